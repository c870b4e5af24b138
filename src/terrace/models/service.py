"""The model room's one door: names to models, requests to answers."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from terrace.errors import Invalid, Missing, TerraceError, Unavailable
from terrace.models.base import (
    ANYBODY,
    ChatRequest,
    Counting,
    Delta,
    Embeddings,
    KnowsContext,
    KnowsVision,
    Meter,
    ModelInfo,
    Provider,
    Pulls,
    SentenceRanker,
)
from terrace.models.catalog import Catalog, Entry, State
from terrace.models.choice import Answering, choose, explain, explain_default, explain_unknown
from terrace.models.discovery import Origin, candidates
from terrace.models.names import sees
from terrace.models.providers.openai import CHAT_PATH, OpenAI
from terrace.models.providers.opening import open_provider
from terrace.models.transport.base import Headers, Transport
from terrace.models.walls import denied, nothing_left, permits
from terrace.models.wrappers import Choice, Fallback, Gate, wrapped
from terrace.settings import Models as Settings
from terrace.types import Scope

Infos = list[ModelInfo]  # `Models.list` hides the builtin where it is declared

AUTO = "auto"
PATIENCE_SECONDS = 1.0  # how long a question waits for a provider to say whether it is there
AWAY = frozenset({"upstream_unreachable", "upstream_denied"})


@dataclass(slots=True)  # not frozen: one is made at each request, and that would cost a microsecond
class Passthrough:
    """Where a request in OpenAI's form may go as it is. Take a place at `gate` before, give it back after."""

    url: str
    headers: Headers  # with the key; add nothing of the client's but content-type
    model: str  # the upstream's own name
    id: str
    provider: str
    gate: Gate
    kind: str  # of the provider, as in the settings


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    name: str
    kind: str
    base_url: str  # without secrets
    state: State
    why: str
    models: int


class Answer:
    """A running answer. `model` is the public id of who answers, certain once the first delta is there."""

    def __init__(self, models: "Models", request: ChatRequest) -> None:
        self.model = request.model
        self._deltas = models.answer(request, self)

    def __aiter__(self) -> "Answer":
        return self

    async def __anext__(self) -> Delta:
        return await anext(self._deltas)

    async def aclose(self) -> None:
        """Stop it, upstream too."""
        await self._deltas.aclose()


class Models:
    """Every model there is, behind one protocol; see docs/models.md for what each name means.

    What a caller's scope does not allow is held back here and nowhere else: a model that is named raises Denied
    (`model_not_allowed`), `auto` and the fallbacks pass over it, lists leave it out.
    """

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog

    def start(self) -> None:
        """Begin asking the providers what they have; nothing waits for it. Needs a running event loop."""
        self._catalog.refresh()

    async def resolve(self, model: str | None = None, scope: Scope = ANYBODY) -> Choice:
        """The model a name means: `auto` or nothing, `<provider>/<model>`, or a bare name only one provider has.

        Raises Missing with near names (`extra["near"]`), Invalid when several providers have it, or Denied.
        """
        entry, own, public = await self._find(model or AUTO, scope)
        return Choice(public, entry.provider, own, entry.kind)

    def passthrough(self, model: str | None, scope: Scope = ANYBODY) -> Passthrough | None:
        """For the hot path: without I/O, from what is known now. None when the model is not one of an
        OpenAI-compatible server, or not known (yet): `resolve` then says more. Raises Denied."""
        if model in (None, AUTO):
            self._catalog.refresh()  # the best provider may change
        found = self._known(model or AUTO, scope)
        if found is None or not isinstance(found[0].raw, OpenAI):
            return None
        entry, own, public = found
        upstream = found[0].raw.upstream
        url = upstream.base_url + CHAT_PATH
        return Passthrough(url, upstream.headers, own, public, entry.name, entry.gate, entry.kind)

    def failed(self, provider: str, error: TerraceError) -> None:
        """A passthrough found its upstream away: until it is back, `auto` means another."""
        if error.code in AWAY:
            self._catalog.failed(provider, error.message)

    def stream(self, request: ChatRequest) -> Answer:
        """Ask `request.model` (a public name), then models.fallback as long as nothing was answered."""
        return Answer(self, request)

    async def answer(self, request: ChatRequest, answer: Answer) -> AsyncGenerator[Delta, None]:
        """What `Answer` runs."""
        scope = request.scope
        entry, own, public = await self._find(request.model or AUTO, scope)
        choices = [Choice(public, entry.provider, own, entry.kind), *self._fallbacks(public, scope)]

        def answering(model: str) -> None:
            answer.model = model

        try:
            async with aclosing(Fallback(choices, answering).stream(request)) as deltas:
                async for delta in deltas:
                    yield delta
        except TerraceError as error:
            self.failed(entry.name, error)
            if error.code == "model_unknown":
                error.extra.setdefault("near", self._catalog.near(public, scope))
            raise

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        scope: Scope = ANYBODY,
        *,
        patience: float = 0.0,
        requests: int = 0,
    ) -> Embeddings:
        """`patience` and `requests` as in `ChatRequest`."""
        entry, own, _ = await self._find(model, scope)
        return await entry.provider.embed(own, texts, scope, patience=patience, requests=requests)

    async def pull(self, model: str) -> AsyncIterator[dict[str, Any]]:
        """Fetch a model with the provider it names, else the first that can (Ollama): {status, completed?, total?}."""
        entry = self._puller(model)
        assert isinstance(entry.raw, Pulls)
        name = model.removeprefix(f"{entry.name}/")
        async for step in entry.raw.pull(name):
            yield step
        entry.forget()
        await self._catalog.fresh(PATIENCE_SECONDS)

    async def list(self, scope: Scope = ANYBODY) -> Infos:
        """What can be asked now, best provider first; known for a minute before it is asked again."""
        await self._catalog.fresh(PATIENCE_SECONDS)
        return self._catalog.infos(scope)

    async def providers(self) -> Sequence[ProviderInfo]:
        await self._catalog.fresh(PATIENCE_SECONDS)
        return [_provider_info(entry) for entry in self._catalog.entries]

    async def answering(self, scope: Scope = ANYBODY) -> Answering:
        """What answers when a request names no model, and why, in sentences for people."""
        await self._catalog.fresh(PATIENCE_SECONDS)
        entries = self._catalog.entries
        if self._default(scope) != AUTO:
            try:
                entry, _, public = await self._find(AUTO, scope)
            except (Missing, Invalid) as error:
                return explain_unknown(self._settings.default, error.message)
            return explain_default(public, entry)
        chosen = choose(entries, scope)
        if chosen is None:
            raise nothing_left(scope) if scope.models else self._catalog.unknown(AUTO)
        return explain(*chosen, entries)

    async def context_tokens(self, model: str | None = None, scope: Scope = ANYBODY) -> int | None:
        """The longest prompt and answer together that the model takes, in tokens; None when nobody says."""
        entry, own, _ = await self._find(model or AUTO, scope)
        if isinstance(entry.raw, KnowsContext):
            try:
                return await entry.raw.context_tokens(own)
            except Unavailable:
                return None  # the call itself will say so, or fall back
        info = entry.models.get(own)
        return info.context_tokens if info else None

    async def sees(self, model: str | None = None, scope: Scope = ANYBODY) -> bool | None:
        """Whether a model reads images; None when nobody says."""
        entry, own, _ = await self._find(model or AUTO, scope)
        return await _vision(entry, own)

    async def seeing(self, scope: Scope = ANYBODY) -> str | None:
        """The model that pictures go to when none is named: the default one if it is known to read images, else the
        best that is; None when there is none."""
        await self._catalog.fresh(PATIENCE_SECONDS)
        if self._default(scope) != AUTO and (found := self._known(AUTO, scope)) is not None:
            entry, own, public = found
            if await _vision(entry, own):
                return public
        for entry in self._catalog.entries:
            if entry.state != "ok":
                continue
            named = choose([entry], scope)
            infos = sorted(entry.chat_models, key=lambda info: named is None or info.id != named[1].id)
            for info in infos:  # the one that `auto` would take first
                if permits(scope, info.id) and await _vision(entry, info.name):
                    return info.id
        return None

    async def close(self) -> None:
        await self._catalog.close()

    def _default(self, scope: Scope) -> str:
        """The model meant by naming none: the settings', unless the caller may not use it."""
        default = self._settings.default
        if default != AUTO and scope.models:
            found = self._catalog.find(default, scope)
            return AUTO if found is not None and not permits(scope, found[2]) else default
        return default

    def _known(self, model: str, scope: Scope) -> tuple[Entry, str, str] | None:
        """What a name means by what is known now. Raises Denied: every way to a model leads through here."""
        if model == AUTO:
            model = self._default(scope)
        if model == AUTO:
            chosen = choose(self._catalog.entries, scope)
            return (chosen[0], chosen[1].name, chosen[1].id) if chosen else None
        found = self._catalog.find(model, scope)
        if found is not None and not permits(scope, found[2]):
            raise denied(scope, found[2])
        return found

    async def _find(self, model: str, scope: Scope) -> tuple[Entry, str, str]:
        found = self._known(model, scope)
        if found is None or _doubtful(model, found[0]):
            await self._catalog.fresh(PATIENCE_SECONDS)  # a provider may have come up, or not been asked yet
            found = self._known(model, scope)
        else:
            self._catalog.refresh()
        if found is None and model == AUTO and self._default(scope) == AUTO and scope.models:
            raise nothing_left(scope)
        if found is None:
            raise self._catalog.unknown(model if model != AUTO else self._settings.default, scope)
        return found

    def _fallbacks(self, tried: str, scope: Scope) -> Sequence[Choice]:
        found = (self._catalog.find(model) for model in self._settings.fallback)
        return [
            Choice(public, entry.provider, own, entry.kind)
            for entry, own, public in filter(None, found)
            if public != tried and permits(scope, public)
        ]

    def _puller(self, model: str) -> Entry:
        pullers = [entry for entry in self._catalog.entries if isinstance(entry.raw, Pulls)]
        named = [entry for entry in pullers if model.startswith(f"{entry.name}/")]
        if not pullers:
            raise Invalid("No provider can fetch models: only Ollama does.", code="cannot_pull")
        return (named or pullers)[0]


def open_models(
    settings: Settings,
    transport: Transport,
    ranker: SentenceRanker,
    meter: Meter | None = None,
    environ: Mapping[str, str] | None = None,
    others: Sequence[Provider] = (),
) -> Models:
    """Build every provider that is configured or discovered; asks none of them yet (`Models.start` does).

    `environ` holds the vendors' own variables (OPENAI_API_KEY and such). `others` are providers that come ready
    made, from other rooms or from tests; they count as configured, the first of them as the best. Raises Invalid
    for settings that can't work, such as a base_url that is none.
    """

    def entry(raw: Provider, kind: str, origin: Origin, concurrency: int = 0, declared: Sequence[str] = ()) -> Entry:
        gate = Gate(raw.name, concurrency or settings.concurrency, settings.queue, settings.queue_wait)
        return Entry(
            raw,
            wrapped(raw, gate, settings, meter or Counting(lambda _: None), kind),
            gate,
            kind=kind,
            origin=origin,
            declared=declared,
            patience=settings.connect_timeout,
        )

    entries = [entry(raw, type(raw).__name__.lower(), "configured") for raw in others]
    for each in candidates(settings, environ or {}):
        chosen = each.settings
        raw = open_provider(each.name, chosen, settings, transport, ranker)
        entries.append(entry(raw, chosen.kind, each.origin, chosen.concurrency, chosen.models))
    return Models(settings, Catalog(entries))


def _doubtful(model: str, entry: Entry) -> bool:
    """Whether asking the providers first may give a better answer to what a name means."""
    return (model == AUTO and entry.kind == "quote") or (entry.state == "unknown" and not entry.takes_any)


async def _vision(entry: Entry, model: str) -> bool | None:
    info = entry.models.get(model)
    told = info.vision if info is not None else sees(model)
    if told is None and isinstance(entry.raw, KnowsVision):
        try:
            return await entry.raw.vision(model)
        except TerraceError:
            return None  # the call itself will say what is wrong
    return told


def _provider_info(entry: Entry) -> ProviderInfo:
    upstream = getattr(entry.raw, "upstream", None)
    url = upstream.base_url if upstream else ""
    return ProviderInfo(entry.name, entry.kind, url, entry.state, entry.why, len(entry.models))
