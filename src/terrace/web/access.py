"""Who may call what: the one place that holds requests to `web.rules`."""

import hmac
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import Response

from terrace.accounts.base import Caller
from terrace.errors import Denied, Unauthenticated
from terrace.types import Scope
from terrace.web.rules import KEYS, RULES, SHORT, Rule

READING = frozenset({"GET", "HEAD", "OPTIONS"})
UNCOUNTED = frozenset({"public"})


class Gatekeeper(Protocol):
    """`terrace.accounts.gatekeeper.Gatekeeper` is one. Headers are ASGI's: lower-case names, the last of a name."""

    def known(self, headers: dict[bytes, bytes], address: str) -> Caller | None:
        """From what is known now, without I/O; None when `authenticate` has to look. Raises Unauthenticated, Denied."""

    async def authenticate(self, headers: dict[bytes, bytes], address: str) -> Caller:
        """Raises Unauthenticated or Denied."""

    def csrf(self, session: str) -> str:
        """What a page logged in by cookie must send as X-CSRF-Token."""


def headers_of(asgi: MutableMapping[str, Any]) -> dict[bytes, bytes]:
    """By name in lower case; of several the last. Our own server has made the dictionary already."""
    made: dict[bytes, bytes] | None = asgi.get("terrace.headers")
    return dict(asgi["headers"]) if made is None else made


class Doorkeeper:
    """Says who a request comes from: at FastAPI's routes and at /v1."""

    def __init__(self, gatekeeper: Gatekeeper, trusted_proxies: Iterable[str] = ()) -> None:
        self._gatekeeper = gatekeeper
        self._trusted = [ip_network(each, strict=False) for each in trusted_proxies]

    def known(self, asgi: MutableMapping[str, Any]) -> Caller | None:
        headers = headers_of(asgi)
        caller = self._gatekeeper.known(headers, self.address(asgi, headers))
        if caller is not None:
            self._check_csrf(asgi, headers, caller)
        return caller

    async def authenticate(self, asgi: MutableMapping[str, Any]) -> Caller:
        headers = headers_of(asgi)
        caller = await self._gatekeeper.authenticate(headers, self.address(asgi, headers))
        self._check_csrf(asgi, headers, caller)
        return caller

    def address(self, asgi: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> str:
        """The client's, behind any number of trusted proxies: the last hop of X-Forwarded-For that is not one."""
        peer = asgi.get("client")
        address: str = peer[0] if peer else ""
        if self._trusted and self._trusts(address):
            hops = headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")
            for hop in (each.strip() for each in reversed(hops)):
                if not hop:
                    break
                address = hop
                if not self._trusts(hop):
                    break
        return address

    def secure(self, asgi: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> bool:
        """Whether it came by https, to us or to a trusted proxy."""
        peer = asgi.get("client")
        if self._trusted and peer and self._trusts(peer[0]):
            return headers.get(b"x-forwarded-proto", b"").lower() == b"https"
        return str(asgi["scheme"]) == "https"

    def _trusts(self, address: str) -> bool:
        try:
            return any(ip_address(address) in network for network in self._trusted)
        except ValueError:
            return False

    def _check_csrf(self, asgi: MutableMapping[str, Any], headers: dict[bytes, bytes], caller: Caller) -> None:
        """A browser sends cookies whoever made it ask; only our own page knows the token."""
        if caller.cookie and asgi["method"] not in READING:
            sent = headers.get(b"x-csrf-token", b"")
            if not hmac.compare_digest(sent, self._gatekeeper.csrf(caller.session or "").encode()):
                raise Denied("This request lacks the page's CSRF token. Reload the page.", code="csrf")


class Guarded(APIRoute):
    """A route that asks who calls, and whether they may, before it reads the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle, name = super().get_route_handler(), name_of(self)
        if name not in RULES:
            raise RuntimeError(f"{name} has no rule: web.rules says who may call what.")

        async def guarded(request: Request) -> Response:
            await admit(request, name)
            return await handle(request)

        return guarded


class Resource(APIRouter):
    """A resource's routes, told by decorators and made once they enter an application's router, each guarded.

    FastAPI would make them when they are told and once more when they are included: a third of a second at each start.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._told: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._told.append((path, endpoint, options))

    def enter(self, router: APIRouter, prefix: str = "", *, described: bool = True) -> None:
        """Raises RuntimeError for a route nobody thought of: a server that has one must not start."""
        for path, endpoint, options in self._told:
            options = {**options, "tags": [*self.tags, *(options["tags"] or ())], "route_class_override": Guarded}
            options["include_in_schema"] = described and options["include_in_schema"]
            router.add_api_route(f"{prefix}{self.prefix}{path}", endpoint, **options)


def resource(**options: Any) -> Resource:
    return Resource(**options)


def rule_of(route: APIRoute) -> Rule:
    return RULES[name_of(route)]


def name_of(route: APIRoute) -> str:
    """As the rules call it."""
    method = min(route.methods or ())
    name = f"{method} {route.path}"
    return SHORT.get(name) or (name if name in RULES else f"{method} /api{route.path}")


async def admit(request: Request, name: str) -> None:
    """`name`: of the route, as `RULES` has it. Raises Unauthenticated, Denied, Limited."""
    rule = RULES[name]
    doorkeeper: Doorkeeper = request.app.state.doorkeeper
    try:
        caller = doorkeeper.known(request.scope) or await doorkeeper.authenticate(request.scope)
    except (Unauthenticated, Denied):
        if rule != "public":
            raise
        request.state.caller = None
        return
    request.state.caller = caller
    needed = KEYS.get(name) if rule == "anyone" and caller.via == "key" else rule
    if needed not in (None, "public", "anyone", *caller.permissions):
        raise Denied(
            f"This needs the permission `{needed}`, which {_whose(caller)} does not have.",
            code="not_permitted",
            permission=needed,
        )
    if rule != "public" and request.method not in READING:
        await count(request, caller)


def _whose(caller: Caller) -> str:
    return "this key" if caller.via == "key" else f"your role ({caller.role})"


async def count(request: Request, caller: Caller) -> None:
    """Against the limit of requests a minute."""
    limits = request.app.state.services.limits
    patience = wait_wanted(request.headers.get("prefer", ""))
    if patience or limits.shared:
        await limits.count_waiting(caller.scope, patience)
    else:
        limits.count(caller.scope)


def wait_wanted(prefer: str) -> float:
    """Seconds of `Prefer: wait=N` (RFC 7240); 0 when it asks for none."""
    for preference in prefer.split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait" and value.strip().isdigit():
            return float(value)
    return 0.0


def _caller(request: Request) -> Caller:
    caller: Caller | None = request.state.caller
    if caller is None:
        raise Unauthenticated("Say who you are: log in, or send an API key as `Authorization: Bearer trc_...`.")
    return caller


def _caller_if_any(request: Request) -> Caller | None:
    caller: Caller | None = request.state.caller
    return caller


def _scope(request: Request) -> Scope:
    return _caller(request).scope


Me = Annotated[Caller, Depends(_caller)]
"""Who calls, with what it may do."""
Stranger = Annotated[Caller | None, Depends(_caller_if_any)]
"""At public routes: who calls, if they said."""
Who = Annotated[Scope, Depends(_scope)]
"""On whose behalf: what the rooms want to know."""
