"""The outermost ASGI layer: request ids, refusals, security headers, metrics, the last catch.

One plain ASGI wrapper: each BaseHTTPMiddleware would cost hundreds of microseconds a request.
"""

import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from random import Random
from typing import Any, Protocol

from starlette.responses import Response

from terrace.errors import Invalid, TerraceError
from terrace.telemetry.logs import request_id
from terrace.telemetry.metrics import Metrics
from terrace.web.problems import from_error, unforeseen
from terrace.web.security import CORS, SECURITY_HEADERS, Guard

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

log = logging.getLogger("terrace.web")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


def _security(path: str) -> tuple[tuple[bytes, bytes], ...]:
    """A header costs a microsecond, so /v1, which no browser shows, carries only the one that means something there."""
    return SECURITY_HEADERS[:1] if path.startswith("/v1/") else SECURITY_HEADERS


_random = Random().getrandbits  # a request id need not be a secret, and asking the kernel for one costs 3 us


def _request_id() -> str:
    """Sortable as all ids; hexadecimal is quickest made."""
    return f"req_{int(time.time() * 1000) << 80 | _random(80):032x}"


class Answer(Protocol):
    """What is known of an answer, and what is added to it. Our own server's `Exchange` is one."""

    added: tuple[tuple[bytes, bytes], ...]
    status: int  # 0 before it begins
    complete: bool


class _Watched:
    """An `Answer` on any other ASGI server."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.added: tuple[tuple[bytes, bytes], ...] = ()
        self.status = 0
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self.added]
        else:
            self.complete = not message.get("more_body", False)
        await self._send(message)


class Edge:
    def __init__(self, app: ASGI, *, guard: Guard, metrics: Metrics, max_body: int, cors: CORS | None = None) -> None:
        self._app = app
        self._guard = guard
        self._cors = cors or CORS()
        self._metrics = metrics
        self._limit = max_body

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        answer: Answer | None = scope.get("terrace.exchange")
        if answer is None:
            answer = _Watched(send)
            send = answer.send
        headers: dict[bytes, bytes] = scope.get("terrace.headers") or dict(scope["headers"])
        given = headers.get(b"x-request-id")
        identity = given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else _request_id()
        scope.setdefault("state", {})["request_id"] = identity
        token = request_id.set(identity)
        answer.added = ((b"x-request-id", identity.encode()), *_security(scope["path"]))
        if origin := headers.get(b"origin"):
            answer.added += self._cors.headers(origin)
        self._metrics.open_requests.value += 1
        try:
            refusal = self._guard.check(scope["method"], headers) or self._oversized(scope["path"], headers)
            if refusal is not None:
                await from_error(refusal)(scope, receive, send)
            elif (preflight := self._cors.preflight(scope["method"], headers)) is not None:
                answer.added = (answer.added[0], *preflight)
                await Response(status_code=204)(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        except Exception:
            log.exception("unforeseen failure", extra={"path": scope["path"]})
            if not answer.status:
                await unforeseen()(scope, receive, send)
            elif not answer.complete:  # too late to say anything; closing the connection tells the client it is cut
                raise
        finally:
            self._metrics.open_requests.value -= 1
            self._record(scope, answer.status, time.perf_counter() - started)
            request_id.reset(token)

    def _oversized(self, path: str, headers: dict[bytes, bytes]) -> TerraceError | None:
        """A body that says itself that it is too long; whoever reads one that doesn't counts, as /v1 always does."""
        length = headers.get(b"content-length", b"")
        if (
            path.startswith("/v1/")
            or not length.isdigit()
            or int(length) <= self._limit
            or headers.get(b"content-type", b"")[:10] == b"multipart/"
        ):
            return None
        return Invalid(
            f"The body is larger than {self._limit:,} bytes. Send less, or upload it as a document.",
            code="body_too_large",
            status=413,
        )

    def _record(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or scope.get("terrace.route", "other")
        self._metrics.request(scope["method"], route, status or 499, seconds)
