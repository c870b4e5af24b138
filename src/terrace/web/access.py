"""Who may call what. The one table of rules, and the one place that holds requests to it."""

import hmac
from collections.abc import Callable, Coroutine, Iterable, MutableMapping
from ipaddress import ip_address, ip_network
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.responses import Response
from starlette.routing import BaseRoute

from terrace.accounts.base import Caller
from terrace.accounts.roles import Permission
from terrace.errors import Denied, Unauthenticated
from terrace.types import Scope

Rule = Permission | Literal["public", "anyone"]
"""public: without saying who; anyone: whoever says who, and the handler looks only at what is theirs."""

RULES: dict[str, Rule] = {
    "GET /health": "public",
    "GET /ready": "public",
    "GET /metrics": "operator",
    # signing in
    "POST /api/users": "public",
    "POST /api/auth/login": "public",
    "POST /api/auth/refresh": "public",
    "POST /api/auth/logout": "public",
    "GET /api/auth/session": "public",
    "POST /api/auth/forgot": "public",
    "POST /api/auth/reset": "public",
    "POST /api/auth/invitation": "public",
    "GET /api/auth/oidc/{name}": "public",
    "GET /api/auth/oidc/{name}/callback": "public",
    "POST /api/auth/accept": "anyone",
    "POST /api/auth/switch": "anyone",
    "POST /api/auth/password": "anyone",
    "GET /api/auth/sessions": "anyone",
    "DELETE /api/auth/sessions/{session_id}": "anyone",
    # people
    "GET /api/users/{user_id}": "anyone",
    "PATCH /api/users/{user_id}": "anyone",
    "DELETE /api/users/{user_id}": "anyone",
    "GET /api/users/{user_id}/questions": "anyone",
    "POST /api/users/{user_id}/reset-link": "members",
    "GET /api/members": "members",
    "PATCH /api/members/{user_id}": "members",
    "DELETE /api/members/{user_id}": "members",
    "GET /api/invitations": "members",
    "POST /api/invitations": "members",
    "DELETE /api/invitations/{invitation_id}": "members",
    "GET /api/keys": "anyone",
    "POST /api/keys": "keys",
    "GET /api/keys/{key_id}": "anyone",
    "PATCH /api/keys/{key_id}": "keys",
    "DELETE /api/keys/{key_id}": "keys",
    "POST /api/keys/{key_id}/rotate": "keys",
    # what is used, and how much may be
    "GET /api/usage": "anyone",
    "GET /api/usage/calls": "anyone",
    "GET /api/limits": "anyone",
    "PUT /api/limits/{subject}": "limits",
    "GET /api/prices": "anyone",
    "PUT /api/prices/{model:path}": "operator",
    "DELETE /api/prices/{model:path}": "operator",
    "GET /api/audit": "audit",
    # tenants
    "GET /api/tenant": "anyone",
    "PATCH /api/tenant": "tenant",
    "GET /api/tenant/export": "tenant",
    "GET /api/tenants": "operator",
    "POST /api/tenants": "operator",
    "GET /api/tenants/{tenant_id}": "operator",
    "PATCH /api/tenants/{tenant_id}": "operator",
    "DELETE /api/tenants/{tenant_id}": "operator",
    "PUT /api/tenants/{tenant_id}/limits": "operator",
    "GET /api/tenants/{tenant_id}/usage": "operator",
    "GET /api/tenants/{tenant_id}/export": "operator",
    "POST /api/tenants/{tenant_id}/invitations": "operator",
    # asking
    "POST /api/chat": "chat",
    "POST /api/questions": "chat",
    "GET /api/questions/{question_id}": "anyone",
    "GET /api/conversations": "anyone",
    "POST /api/conversations": "chat",
    "GET /api/conversations/{conversation_id}": "anyone",
    "PATCH /api/conversations/{conversation_id}": "chat",
    "DELETE /api/conversations/{conversation_id}": "chat",
    "POST /api/conversations/{conversation_id}/regenerate": "chat",
    "GET /api/conversations/{conversation_id}/export": "anyone",
    # documents
    "POST /api/documents/upload": "documents:write",
    "POST /api/documents/batch-upload": "documents:write",
    "GET /api/documents": "documents:read",
    "GET /api/documents/{document_id}": "documents:read",
    "PATCH /api/documents/{document_id}": "documents:write",
    "DELETE /api/documents/{document_id}": "documents:write",
    "POST /api/documents/{document_id}/reprocess": "documents:write",
    "GET /api/documents/{document_id}/original": "documents:read",
    "GET /api/documents/{document_id}/text": "documents:read",
    "GET /api/documents/{document_id}/chunks": "documents:read",
    "GET /api/documents/{document_id}/pages": "documents:read",
    "GET /api/documents/{document_id}/pages/{number}.png": "documents:read",
    "GET /api/documents/{document_id}/pages/{number}/marks": "documents:read",
    "GET /api/collections": "documents:read",
    "POST /api/collections": "documents:write",
    "GET /api/collections/{collection_id}": "documents:read",
    "DELETE /api/collections/{collection_id}": "documents:write",
    "GET /api/tags": "documents:read",
    "POST /api/search": "documents:read",
    # documents analysed: one's own
    "POST /api/analyses": "analyses",
    "GET /api/analyses": "analyses",
    "GET /api/analyses/types": "analyses",
    "GET /api/analyses/{analysis_id}": "analyses",
    "DELETE /api/analyses/{analysis_id}": "analyses",
    "POST /api/analyses/{analysis_id}/retry": "analyses",
    "POST /api/analyses/{analysis_id}/document": "documents:write",
    "GET /api/analyses/{analysis_id}/events": "analyses",
    "GET /api/analyses/{analysis_id}/original": "analyses",
    "GET /api/analyses/{analysis_id}/pages/{number}.png": "analyses",
    # contacts, templates, campaigns: the tenant's
    "GET /api/contacts": "campaigns",
    "POST /api/contacts": "campaigns",
    "POST /api/contacts/import": "campaigns",
    "GET /api/contacts/fields": "campaigns",
    "GET /api/contacts/{contact_id}": "campaigns",
    "PATCH /api/contacts/{contact_id}": "campaigns",
    "DELETE /api/contacts/{contact_id}": "campaigns",
    "POST /api/contacts/{contact_id}/history": "campaigns",
    "GET /api/contact-lists": "campaigns",
    "DELETE /api/contact-lists/{list_id}": "campaigns",
    "GET /api/databases": "campaigns",
    "POST /api/databases": "sources",
    "GET /api/databases/{database_id}": "campaigns",
    "DELETE /api/databases/{database_id}": "sources",
    "POST /api/databases/{database_id}/query": "sources",
    "POST /api/databases/{database_id}/import": "sources",
    "GET /api/templates": "campaigns",
    "POST /api/templates": "campaigns",
    "POST /api/templates/check": "campaigns",
    "GET /api/templates/{template_id}": "campaigns",
    "PATCH /api/templates/{template_id}": "campaigns",
    "DELETE /api/templates/{template_id}": "campaigns",
    "GET /api/templates/{template_id}/versions": "campaigns",
    "GET /api/campaigns": "campaigns",
    "POST /api/campaigns": "campaigns",
    "GET /api/campaigns/{campaign_id}": "campaigns",
    "PATCH /api/campaigns/{campaign_id}": "campaigns",
    "DELETE /api/campaigns/{campaign_id}": "campaigns",
    "POST /api/campaigns/{campaign_id}/preview": "campaigns",
    "POST /api/campaigns/{campaign_id}/start": "campaigns",
    "POST /api/campaigns/{campaign_id}/pause": "campaigns",
    "POST /api/campaigns/{campaign_id}/resume": "campaigns",
    "POST /api/campaigns/{campaign_id}/cancel": "campaigns",
    "POST /api/campaigns/{campaign_id}/retry": "campaigns",
    "POST /api/campaigns/{campaign_id}/approve": "campaigns",
    "GET /api/campaigns/{campaign_id}/events": "campaigns",
    "GET /api/campaigns/{campaign_id}/export": "campaigns",
    "GET /api/campaigns/{campaign_id}/messages": "campaigns",
    "GET /api/campaigns/{campaign_id}/messages/{message_id}": "campaigns",
    "PATCH /api/campaigns/{campaign_id}/messages/{message_id}": "campaigns",
    "POST /api/campaigns/{campaign_id}/messages/{message_id}/regenerate": "campaigns",
    "POST /api/campaigns/{campaign_id}/messages/{message_id}/approve": "campaigns",
    # what goes on by itself
    "GET /api/webhooks": "webhooks",
    "POST /api/webhooks": "webhooks",
    "GET /api/webhooks/events": "webhooks",
    "GET /api/webhooks/{webhook_id}": "webhooks",
    "PATCH /api/webhooks/{webhook_id}": "webhooks",
    "DELETE /api/webhooks/{webhook_id}": "webhooks",
    "POST /api/webhooks/{webhook_id}/test": "webhooks",
    "POST /api/webhooks/{webhook_id}/rotate": "webhooks",
    "GET /api/webhooks/{webhook_id}/deliveries": "webhooks",
    "GET /api/webhooks/{webhook_id}/deliveries/{delivery_id}": "webhooks",
    "POST /api/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": "webhooks",
    "GET /api/schedules": "sources",
    "POST /api/schedules": "sources",
    "POST /api/schedules/check": "sources",
    "GET /api/schedules/actions": "sources",
    "GET /api/schedules/{schedule_id}": "sources",
    "PATCH /api/schedules/{schedule_id}": "sources",
    "DELETE /api/schedules/{schedule_id}": "sources",
    "POST /api/schedules/{schedule_id}/run": "sources",
    "GET /api/schedules/{schedule_id}/runs": "sources",
    "GET /api/sources": "sources",
    "POST /api/sources": "sources",
    "GET /api/sources/{source_id}": "sources",
    "PATCH /api/sources/{source_id}": "sources",
    "DELETE /api/sources/{source_id}": "sources",
    "POST /api/sources/{source_id}/run": "sources",
    "GET /api/sources/{source_id}/items": "sources",
    "GET /api/index/health": "sources",
    "POST /api/index/health/check": "sources",
    "POST /api/index/health/repair": "sources",
    "GET /api/index/generations": "operator",
    "POST /api/index/generations": "operator",
    "POST /api/index/generations/{generation_id}/switch": "operator",
    "DELETE /api/index/generations/{generation_id}": "operator",
    "GET /api/cache": "tenant",
    "DELETE /api/cache": "tenant",
    # jobs: one's own, or everybody's with `jobs:all`
    "GET /api/jobs": "anyone",
    "POST /api/jobs": "operator",
    "GET /api/jobs/events": "anyone",
    "GET /api/jobs/{job_id}": "anyone",
    "GET /api/jobs/{job_id}/events": "anyone",
    "POST /api/jobs/{job_id}/cancel": "anyone",
    "POST /api/jobs/{job_id}/retry": "anyone",
    # models
    "GET /api/models": "anyone",
    "POST /api/models/pull": "operator",
    "GET /api/status": "anyone",
}

KEYS: dict[str, Permission] = {
    "GET /api/questions/{question_id}": "chat",
    "GET /api/users/{user_id}/questions": "chat",
    "GET /api/conversations": "chat",
    "GET /api/conversations/{conversation_id}": "chat",
    "GET /api/conversations/{conversation_id}/export": "chat",
    "GET /api/keys": "keys",
    "GET /api/keys/{key_id}": "keys",
}
"""What is open to anyone who has logged in, and to a key only with this permission: who holds a key made for one
purpose is not its owner."""

SHORT = {
    "GET /documents/list": "GET /api/documents",
    "GET /jobs/{job_id}/status": "GET /api/jobs/{job_id}",
    "POST /jobs/process-document": "POST /api/documents/{document_id}/reprocess",
    "POST /upload": "POST /api/analyses",
    "GET /{file_id:analysis}": "GET /api/analyses/{analysis_id}",
}
"""Promised short paths that are more than the canonical one without its prefix."""

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
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await admit(request, name_of(self))
            return await handle(request)

        return guarded


def resource(**options: Any) -> APIRouter:
    """A router whose routes are guarded."""
    return APIRouter(route_class=Guarded, **options)


def rule_of(route: APIRoute) -> Rule:
    """Raises KeyError for a route nobody thought of: such a server must not start."""
    return RULES[name_of(route)]


def name_of(route: APIRoute) -> str:
    """As the rules call it."""
    method = min(route.methods or ())
    name = f"{method} {route.path}"
    return SHORT.get(name) or (name if name in RULES else f"{method} /api{route.path}")


def check_rules(routes: Iterable[BaseRoute]) -> None:
    """Raises RuntimeError when a route has no rule, or is not held to it."""
    for context in iter_route_contexts(list(routes)):  # those of included routers too
        route = context.original_route
        if isinstance(route, APIRoute):
            if not isinstance(route, Guarded):
                raise RuntimeError(f"{route.path} is not guarded: make its router with web.access.resource.")
            try:
                rule_of(route)
            except KeyError as error:
                raise RuntimeError(f"{route.path} has no rule: web.access.RULES says who may call what.") from error


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
    if patience:
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
