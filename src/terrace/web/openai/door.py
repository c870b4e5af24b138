"""OpenAI's API as one raw ASGI app. No framework stands on its way: a request through it costs microseconds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from terrace.accounts.base import Caller
from terrace.batches.base import Answer
from terrace.errors import Denied, Internal, Invalid, Missing, TerraceError, Unavailable
from terrace.models.base import Embedder
from terrace.models.transport.base import Transport
from terrace.models.walls import permits
from terrace.settings import Models as ModelSettings
from terrace.settings import Web
from terrace.types import Scope, now
from terrace.web.openai.alone import Alone
from terrace.web.openai.base import Answerer, ASGIScope, Doorkeeper, Limits, Models, Passthrough, Receive, Send
from terrace.web.openai.chunks import Form
from terrace.web.openai.embeddings import EmbeddingsDoor
from terrace.web.openai.kept import Routes, wrong_method
from terrace.web.openai.relay import Relay
from terrace.web.openai.request import ClientGone, Fields, Request, fields_of, text_field, typed_field
from terrace.web.openai.translation import RAG, Translation, rag_collections

log = logging.getLogger("terrace.web.openai")

AUTO = "auto"
MODELS = "/v1/models"
CHAT, TEXT, EMBEDDINGS = "/chat/completions", "/completions", "/embeddings"
FULL_RETRY_AFTER = 1.0  # seconds

Work = Callable[[Request, Fields], Awaitable[None]]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class OpenAIDoor:
    """`transport` carries the hot path; `embedder` is the built-in model; `answerer` serves `rag:<collection>`;
    `resources` are what other rooms keep: files, batches."""

    def __init__(
        self,
        models: Models,
        transport: Transport,
        *,
        settings: ModelSettings,
        web: Web,
        doorkeeper: Doorkeeper,
        limits: Limits,
        answerer: Answerer | None = None,
        embedder: Embedder | None = None,
        resources: Sequence[Routes] = (),
    ) -> None:
        self._models = models
        self._answerer = answerer
        self._doorkeeper = doorkeeper
        self._web = web
        self._relay = Relay(transport, settings, limits)
        self._translation = Translation(models, answerer, limits, settings.max_answer_bytes)
        self._embeddings = EmbeddingsDoor(models, embedder, limits)
        self._limits = limits
        self._resources = {routes.name: routes for routes in resources}
        self._created = int(now())
        self._posts: dict[str, Work] = {
            "/v1/chat/completions": self._chat,
            "/v1/completions": self._completions,
            "/v1/embeddings": self._embed,
        }
        self.open = 0
        """Requests being answered."""

    async def __call__(self, asgi: ASGIScope, receive: Receive, send: Send) -> None:
        if asgi["type"] != "http":
            return
        request = Request(asgi, receive, send)
        if self.open >= self._web.max_streams:
            await request.refuse(self._full())
            return
        self.open += 1
        try:
            caller = self._doorkeeper.known(asgi)
            if caller is None:
                caller = await self._doorkeeper.authenticate(asgi)
            request.owner = caller.scope
            work = self._work(request, caller)
            if work is None:
                if (routes := self._resource(asgi["path"])) is not None:
                    await routes.answer(request, self._limits)
                else:
                    await self._show(request)
                return
            fields = await request.fields(self._web.max_json_bytes)
            request.watch()
            await work(request, fields)
        except TerraceError as error:
            await request.refuse(error)
        except ClientGone:
            return
        except asyncio.CancelledError:
            if not request.abandoned():
                raise
        except Exception:
            log.exception("unforeseen failure", extra={"path": asgi["path"]})
            await request.refuse(
                Internal("Something went wrong on our side. The log holds the details under this request id.")
            )
        finally:
            self.open -= 1

    async def run_line(self, scope: Scope, endpoint: str, body: bytes) -> Answer:
        """A request of a batch, as if it had been sent by itself. Raises Limited when there is room for it later."""
        alone = Alone(scope, endpoint, body)
        try:
            await self._posts[endpoint](alone.request, fields_of(body))
        except TerraceError as error:
            if error.kind == "limited" and error.retry_after is not None:
                raise
            await alone.request.refuse(error)
        except Exception:
            log.exception("unforeseen failure", extra={"path": endpoint})
            await alone.request.refuse(Internal("Something went wrong on our side. The log holds the details."))
        return alone.answer

    def _resource(self, path: str) -> Routes | None:
        """What is kept below /v1 and looked after by other rooms."""
        return self._resources.get(path[4:].partition("/")[0])

    def _full(self) -> TerraceError:
        return Unavailable(
            f"All {self._web.max_streams:,} places of this server are taken; try again in a moment.",
            code="too_many_streams",
            retry_after=FULL_RETRY_AFTER,
        )

    def _work(self, request: Request, caller: Caller) -> Work | None:
        """What is to be done with a JSON body; None when something is to be shown. Raises Denied; Missing or Invalid
        (405) in OpenAI's manner."""
        method, path = request.asgi["method"], request.asgi["path"]
        work = self._posts.get(path)
        if work is not None:
            if method != "POST":
                raise wrong_method(method, path, "POST")
            if "chat" not in caller.permissions:
                raise _not_permitted(caller)
            return work
        if self._resource(path) is not None:
            if "chat" not in caller.permissions:
                raise _not_permitted(caller)
            return None
        if path.rstrip("/") == MODELS or path.startswith(f"{MODELS}/"):
            if method != "GET":
                raise wrong_method(method, path, "GET")
            return None
        raise Missing(f"Unknown request URL: {method} {path}. docs/openai.md lists what is served.", code="unknown_url")

    def _chat(self, request: Request, fields: Fields) -> Awaitable[None]:
        return self._generate(request, fields, CHAT, "chat")

    def _completions(self, request: Request, fields: Fields) -> Awaitable[None]:
        return self._generate(request, fields, TEXT, "text")

    async def _generate(self, request: Request, fields: Fields, path: str, form: Form) -> None:
        model = text_field(fields, "model")
        stream, wants_usage = _streaming(fields)
        _one_choice(fields)
        target = await self._target(model, request.owner) if rag_collections(model) is None else None
        if target is not None:
            if await self._relay.run(request, fields, target, path, stream, wants_usage):
                return
            request.counted = True
        await self._translation.run(request, fields, model, form, stream=stream, wants_usage=wants_usage)

    async def _embed(self, request: Request, fields: Fields) -> None:
        model = text_field(fields, "model")
        target = None if self._embeddings.serves(model) else await self._target(model, request.owner)
        if target is not None:
            if await self._relay.run(request, fields, target, EMBEDDINGS, False, False):
                return
            request.counted = True
        await self._embeddings.run(request, fields)

    async def _target(self, model: str, owner: Scope) -> Passthrough | None:
        target = self._models.passthrough(model, owner)
        if target is None:
            await self._models.resolve(model, owner)  # asks the providers; raises Missing with near names
            target = self._models.passthrough(model, owner)
        return target

    async def _show(self, request: Request) -> None:
        """The models, or the one that the path names."""
        wanted = request.asgi["path"].removeprefix(MODELS).removeprefix("/")
        listed = await self._listed(request.owner)
        if not wanted:
            await request.answer(msgspec.json.encode({"object": "list", "data": listed}))
            return
        for model in listed:
            if model["id"] == wanted:
                await request.answer(msgspec.json.encode(model))
                return
        raise Missing(f"The model `{wanted}` does not exist.", code="model_unknown", param="model")

    async def _listed(self, owner: Scope) -> list[dict[str, Any]]:
        ours = [AUTO]
        if self._answerer is not None:
            ours += [RAG, *(f"{RAG}:{name}" for name in await self._answerer.collections(owner))]
        built_in = self._embeddings.built_in
        if built_in is not None and permits(owner, built_in):
            ours.append(built_in)
        listed = [(name, "terrace") for name in ours]
        listed += [(info.id, info.provider) for info in await self._models.list(owner) if info.id not in ours]
        return [
            {"id": name, "object": "model", "created": self._created, "owned_by": owner_name}
            for name, owner_name in listed
        ]


def _streaming(fields: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether the client wants the usage at the end of it."""
    if "stream" not in fields or not typed_field(fields, "stream", bool, "true or false"):
        return False, False
    options = typed_field(fields, "stream_options", _StreamOptions, 'an object such as {"include_usage": true}')
    return True, bool(options and options.include_usage)


def _one_choice(fields: Fields) -> None:
    if "n" in fields and typed_field(fields, "n", int, "1") not in (None, 1):
        raise Invalid("Only one choice an answer is served: `n` must be 1.", code="unsupported_parameter", param="n")


def _not_permitted(caller: Caller) -> Denied:
    who = "this key" if caller.via == "key" else f"your role ({caller.role})"
    return Denied(f"This needs the permission `chat`, which {who} does not have.", code="not_permitted")
