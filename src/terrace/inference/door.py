"""The HTTP side: who may call, what is asked for, and how it is told when it can't be had."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from typing import Any

import msgspec

from terrace.errors import Invalid, Missing, TerraceError, Unauthenticated, Unavailable
from terrace.inference.caller import Caller, Gone, Receive, Send
from terrace.inference.measures import Measures
from terrace.inference.vectors import Vectors
from terrace.inference.writing import Writer
from terrace.telemetry.metrics import CONTENT_TYPE

OPEN = frozenset({"/", "/health", "/ready"})  # whoever watches over us asks without a key


class Asked(msgspec.Struct):
    """What we read of a request; the rest is llama.cpp's."""

    model: str = ""
    stream: bool | None = None


class Door:
    """An ASGI application. `key` empty: whoever reaches it may call. Once `stop` is set, it takes nothing new."""

    def __init__(
        self,
        writer: Writer | None,
        vectors: Vectors | None,
        measures: Measures,
        *,
        key: str,
        max_body: int,
        stop: asyncio.Event,
    ) -> None:
        self._writer = writer
        self._vectors = vectors
        self._measures = measures
        self._key = sha256(key.encode()).digest() if key else b""
        self._max_body = max_body
        self._stop = stop
        self._routes: dict[tuple[str, str], Callable[[Caller], Awaitable[None]]] = {
            ("GET", "/"): self._health,
            ("GET", "/health"): self._health,
            ("GET", "/ready"): self._ready,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._write,
            ("POST", "/v1/completions"): self._write,
            ("POST", "/v1/embeddings"): self._embed,
        }

    async def __call__(self, asgi: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        caller = Caller(asgi, receive, send)
        asgi["terrace.route"] = caller.path if caller.path in {path for _, path in self._routes} else "other"
        try:
            await self._handle(caller)
        except Gone:
            return
        except TerraceError as error:
            await caller.refuse(error)

    async def _handle(self, caller: Caller) -> None:
        if caller.path not in OPEN:
            self._check(caller)
        handle = self._routes.get((caller.method, caller.path))
        if handle is not None:
            await handle(caller)
        elif caller.method == "GET" and caller.path.startswith("/v1/models/"):
            await self._model(caller, caller.path.removeprefix("/v1/models/"))
        elif any(path == caller.path for _, path in self._routes):
            raise Invalid(f"{caller.method} is not served at {caller.path}.", code="method_not_allowed", status=405)
        else:
            raise Missing(f"There is nothing at {caller.path[:200]}.", code="unknown_path")

    def _check(self, caller: Caller) -> None:
        """Raises Unauthenticated. Digests are compared: their length tells nothing of the key's."""
        if not self._key:
            return
        scheme, _, given = caller.header(b"authorization").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(sha256(given.strip()).digest(), self._key):
            raise Unauthenticated(
                "This model server takes its own key: send it as `Authorization: Bearer ...` (its operator set it as "
                "TERRACE_INFERENCE__KEY).",
                code="invalid_api_key",
            )

    # What it is and how it does

    async def _health(self, caller: Caller) -> None:
        await caller.say({"status": "healthy"})

    async def _ready(self, caller: Caller) -> None:
        checks = self.checks()
        fine = all(state.startswith("ok") for state in checks.values())
        said = {"status": "ready" if fine else "not ready", "role": "inference", "checks": checks}
        await caller.say(said, 200 if fine else 503)

    def checks(self) -> dict[str, str]:
        checks = {}
        if self._writer is not None:
            checks["model"] = f"ok: {self._writer.name}" if self._writer.ready else "loading"
        if self._vectors is not None:
            state = self._vectors.embedder.state()
            checks["embedding"] = f"failing: {state.why}" if state.state == "absent" else f"ok: {state.model}"
        if self._stop.is_set():
            checks["stopping"] = "takes no new calls"
        return checks

    async def _metrics(self, caller: Caller) -> None:
        gate = self._writer.gate if self._writer is not None else None
        text = self._measures.text(
            busy=gate.active if gate else 0, slots=gate.limit if gate else 0, waiting=gate.waiting if gate else 0
        )
        await caller.answer(text, headers=[(b"content-type", CONTENT_TYPE.encode())])

    def _offered(self) -> dict[str, dict[str, Any]]:
        names = [each.name for each in (self._writer, self._vectors) if each is not None]
        return {name: {"id": name, "object": "model", "created": 0, "owned_by": "terrace"} for name in names}

    async def _models(self, caller: Caller) -> None:
        await caller.say({"object": "list", "data": list(self._offered().values())})

    async def _model(self, caller: Caller, name: str) -> None:
        offered = self._offered()
        if name not in offered:
            raise self._unknown(name)
        await caller.say(offered[name])

    # What it is asked for

    async def _write(self, caller: Caller) -> None:
        body, asked = await self._read(caller)
        if self._writer is None or asked.model not in ("", self._writer.name):
            raise self._unknown(asked.model)
        path = caller.path.removeprefix("/v1")
        await self._writer.run(caller, path, body, stream=bool(asked.stream))

    async def _embed(self, caller: Caller) -> None:
        body, asked = await self._read(caller)
        if self._vectors is None or asked.model not in ("", self._vectors.name, self._vectors.embedder.name):
            raise self._unknown(asked.model)
        await self._vectors.run(caller, body)

    async def _read(self, caller: Caller) -> tuple[bytes, Asked]:
        if self._stop.is_set():
            raise Unavailable("This model server is stopping. Ask another.", code="stopping", retry_after=1)
        body = await caller.body(self._max_body)
        caller.watch()
        try:
            return body, msgspec.json.decode(body, type=Asked)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"The body is no request in OpenAI's form: {error}.", code="invalid_json") from None

    def _unknown(self, model: str) -> Missing:
        there = ", ".join(self._offered()) or "none"
        return Missing(
            f"There is no model {model[:200]!r} here that does this; there are: {there}.",
            code="model_not_found",
            param="model",
        )
