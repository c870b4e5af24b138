"""The /v1 door alone on a free port, in front of a loopback upstream of each kind, with OpenAI's own SDK."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import openai
import pytest
from tests.models.upstream import Reply, Upstream, json_reply
from tests.models.wires import KEY, NoRanker, OllamaWire, OpenAIWire

from terrace.accounts.base import Caller
from terrace.errors import Missing, TerraceError, Unauthenticated
from terrace.models.base import Finish, TextDelta, Usage
from terrace.models.service import open_models
from terrace.models.transport import open_transport
from terrace.settings import Settings
from terrace.telemetry.calls import Call, Demand
from terrace.types import Scope
from terrace.web.openai import OpenAIDoor, Sources
from terrace.web.server import bind, serve

NATIVE, FOREIGN = OpenAIWire(), OllamaWire()


class Opened:
    def __init__(self, limits: "Books", output_tokens: int | None) -> None:
        self._limits = limits
        self.output_tokens = output_tokens
        self.answer_tokens = output_tokens or 0
        self._ended = False

    def end(self, call: Call) -> None:
        assert not self._ended, "a call ends once"
        self._ended = True
        self._limits.open -= 1
        self._limits.calls.append(call)


@dataclass
class Books:
    """Limits that write down what they are asked, and refuse when told to."""

    calls: list[Call] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    patience: list[float] = field(default_factory=list)
    counted: int = 0
    open: int = 0
    bound: int | None = None
    refusal: TerraceError | None = None
    shared: bool = False

    def begin(self, scope: Scope, demand: Demand) -> Opened:
        if self.refusal is not None:
            raise self.refusal
        self.demands.append(demand)
        self.scopes.append(scope)
        self.counted += demand.requests
        self.open += 1
        return Opened(self, demand.output_tokens or self.bound)

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> Opened:
        self.patience += [patience] if patience else []
        return self.begin(scope, demand)

    def count(self, scope: Scope) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.scopes.append(scope)
        self.counted += 1

    async def count_waiting(self, scope: Scope, patience: float) -> None:
        self.patience += [patience] if patience else []
        self.count(scope)


CHATS = Caller(Scope("acme", "usr_1", "key_1"), frozenset({"chat"}), "member", "key")
READS = Caller(Scope("acme", "usr_1", "key_2"), frozenset({"documents:read"}), "member", "key")
WALLED = Caller(Scope("acme", "usr_1", "key_3", models=(frozenset({"local/*"}),)), frozenset({"chat"}), "member", "key")


class Keys:
    """Knows some keys, one of them only after a look."""

    callers: ClassVar = {b"": CHATS, b"anything": CHATS, b"late": CHATS, b"reads": READS, b"walled": WALLED}

    def known(self, asgi: Any) -> Caller | None:
        key = dict(asgi["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        return self.callers.get(key) if key != b"late" else None

    async def authenticate(self, asgi: Any) -> Caller:
        await asyncio.sleep(0)
        key = dict(asgi["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if key not in self.callers:
            raise Unauthenticated("Send a key.", code="bad_key")
        return self.callers[key]


class Rows:
    """Three dimensions: the length of the text, one, zero."""

    name = "tiny/int8"
    dimensions = 3

    async def embed(self, texts: Sequence[str], *, query: bool = False) -> Any:
        return [array("f", [len(text), 1.0, 0.0]) for text in texts]

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    async def close(self) -> None: ...


class Shelf:
    """Answers from two collections."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []

    async def answer(
        self, scope: Scope, messages: list[dict[str, Any]], options: dict[str, Any], collections: Sequence[str]
    ) -> AsyncIterator[Any]:
        self.asked.append(collections)
        if "nowhere" in collections:
            raise Missing("There is no collection `nowhere`.", code="collection_unknown")
        yield Sources([{"n": 1, "document_name": "found.txt"}, {"n": 2, "document_name": "not cited.txt"}])
        yield TextDelta("Seven metres")
        yield TextDelta(" [1].")
        yield Sources([{"n": 1, "document_name": "found.txt"}])
        yield Usage(5, 2)
        yield Finish()

    async def collections(self, scope: Scope) -> Sequence[str]:
        return ["harbours", "ships"]


@dataclass
class House:
    """`upstream` speaks OpenAI and is called `mock`; `ollama` speaks Ollama and must be translated."""

    url: str
    upstream: Upstream
    ollama: Upstream
    door: OpenAIDoor
    limits: Books = field(default_factory=Books)
    shelf: Shelf = field(default_factory=Shelf)

    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    def client(self, key: str = "anything", **headers: str) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30, default_headers=headers,
            http_client=openai.DefaultAsyncHttpxClient(verify=False),  # no TLS, no lists of its issuers
        )  # fmt: skip
        self.clients.append(client)
        return client

    async def idle(self) -> None:
        """Returns when the door has nothing left to do."""
        for _ in range(2000):
            if not self.door.open:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError

    def sync_client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="anything", max_retries=0, timeout=30)


@asynccontextmanager
async def opened(**changes: Any) -> AsyncIterator[House]:
    """`changes` go into the settings: `models` and `web`."""
    async with Upstream() as upstream, Upstream() as ollama:
        upstream.on(NATIVE.listing, *[_listing(NATIVE, "m", "text-embedding-small")])
        ollama.on(FOREIGN.listing, _listing(FOREIGN, "llama:latest"))
        ollama.on("/api/show", json_reply({"model_info": {"llama.context_length": 4096}, "capabilities": ["tools"]}))
        models = {
            "discover": False,
            "retries": 0,
            "providers": {
                "mock": {"kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY},
                "local": {"kind": "ollama", "base_url": ollama.url},
            },
            **changes.get("models", {}),
        }
        settings = Settings(host="127.0.0.1", port=0, models=models, web=changes.get("web", {}))
        transport = open_transport(settings.models)
        limits, shelf = Books(), Shelf()
        known = open_models(settings.models, transport, NoRanker(), limits)
        door = OpenAIDoor(
            known,
            transport,
            settings=settings.models,
            web=settings.web,
            answerer=shelf,
            embedder=Rows(),
            doorkeeper=Keys(),
            limits=limits,
        )
        listener = bind(settings)
        stop, started = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(serve(door, listener, settings, started=started.set, stop=stop))
        await started.wait()
        house = House(f"http://127.0.0.1:{listener.getsockname()[1]}", upstream, ollama, door, limits, shelf)
        yield house
        for client in house.clients:
            await client.close()
        stop.set()
        await serving
        await known.close()
        await transport.close()


def _listing(wire: OpenAIWire | OllamaWire, *names: str) -> Reply:
    return json_reply(wire.models(*names))


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with opened() as house:
        yield house
