"""What each provider offers now, remembered for a while, and which model a name means."""

import asyncio
from collections.abc import Sequence
from typing import Literal

from terrace.errors import Invalid, Missing, TerraceError
from terrace.models.base import ModelInfo, Provider
from terrace.models.discovery import Origin
from terrace.models.names import is_embedding, nearest, sees, shortened
from terrace.models.walls import permits
from terrace.models.wrappers.limited import Gate
from terrace.models.wrappers.retry import Retry
from terrace.types import Scope

FRESH_SECONDS = 60.0  # a good list is believed this long
RETRY_SECONDS = 15.0  # a provider that is away, or has no model, is asked again after this
LOCAL_PROBE_SECONDS = 1.0

State = Literal["unknown", "ok", "unreachable"]


class Entry:
    """A provider, the gate before it, and what it said when last asked."""

    def __init__(
        self,
        raw: Provider,
        wrapped: Retry,
        gate: Gate,
        *,
        kind: str,
        origin: Origin,
        declared: Sequence[str] = (),
        patience: float = 10.0,
    ) -> None:
        self.name = raw.name
        self.kind = kind
        self.origin = origin
        self.raw = raw
        self.provider = wrapped
        self.gate = gate
        self.state: State = "unknown"
        self.why = "It has not been asked yet."
        self._declared = declared
        self.models: dict[str, ModelInfo] = {name: self._info(name) for name in declared}
        self._patience = LOCAL_PROBE_SECONDS if origin == "local" else patience
        self._asked = float("-inf")

    @property
    def chat_models(self) -> list[ModelInfo]:
        return [info for info in self.models.values() if info.kind == "chat"]

    @property
    def takes_any(self) -> bool:
        """OpenAI-likes and Anthropic answer to names they do not list, and say themselves what they do not know."""
        return self.kind in ("openai", "anthropic") and not self._declared

    @property
    def stale(self) -> bool:
        believed = FRESH_SECONDS if self.state == "ok" and self.chat_models else RETRY_SECONDS
        return asyncio.get_running_loop().time() - self._asked >= believed

    async def refresh(self) -> None:
        """Ask the provider what it offers; a failure becomes its state."""
        try:
            async with asyncio.timeout(self._patience):
                listed = await self.raw.models()
        except TimeoutError:
            self.failed(f"The provider `{self.name}` did not answer within {self._patience:g} seconds.")
        except TerraceError as error:
            if self._declared and error.code == "upstream_wrong_url":
                self._succeeded([])  # it lists no models, but we were told which it has
            else:
                self.failed(error.message)
        else:
            self._succeeded(listed)

    def failed(self, why: str) -> None:
        self.state, self.why = "unreachable", why
        self._asked = asyncio.get_running_loop().time()

    def forget(self) -> None:
        """Ask again at the next occasion."""
        self._asked = float("-inf")

    def named(self, model: str) -> str | None:
        """The provider's own name for `model`, or None if it has none such. One that is away may have any."""
        if model in self.models:
            return model
        if self.kind == "ollama" and f"{model}:latest" in self.models:
            return f"{model}:latest"
        return model if self.takes_any or (not self.models and self.state != "ok") else None

    def _succeeded(self, listed: Sequence[ModelInfo]) -> None:
        known = {info.name: info for info in listed}
        if self._declared:
            known = {name: known.get(name) or self._info(name) for name in self._declared}
        self.models = known
        self.state, self.why = "ok", f"It offers {len(self.models)} model{'s' * (len(self.models) != 1)}."
        self._asked = asyncio.get_running_loop().time()

    def _info(self, name: str) -> ModelInfo:
        kind: Literal["chat", "embedding"] = "embedding" if is_embedding(name) else "chat"
        return ModelInfo(f"{self.name}/{name}", self.name, name, kind, vision=sees(name))


class Catalog:
    """All providers, best first."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self._by_name = {entry.name: entry for entry in entries}
        self._refreshing: asyncio.Task[None] | None = None
        self._started = 0.0

    def refresh(self) -> "asyncio.Task[None] | None":
        """Start asking the providers whose answer is old, unless that is under way; None when none is."""
        if self._refreshing is not None and not self._refreshing.done():
            return self._refreshing
        stale = [entry for entry in self.entries if entry.stale]
        self._started = asyncio.get_running_loop().time()
        self._refreshing = asyncio.create_task(_refresh(stale), name="models-refresh") if stale else None
        return self._refreshing

    async def fresh(self, patience: float) -> None:
        """Refresh what is old, waiting until the refresh is `patience` seconds old; what takes longer goes on by
        itself, and those who come later do not wait for it."""
        if (task := self.refresh()) is not None:
            waited = asyncio.get_running_loop().time() - self._started
            await asyncio.wait([task], timeout=max(0.0, patience - waited))

    def failed(self, provider: str, why: str) -> None:
        self._by_name[provider].failed(why)

    def infos(self, scope: Scope = Scope()) -> list[ModelInfo]:
        """What a caller may use."""
        return [info for entry in self.entries for info in entry.models.values() if permits(scope, info.id)]

    def find(self, model: str, scope: Scope = Scope()) -> tuple[Entry, str, str] | None:
        """The provider, its name for the model, and the public id; None if unknown. A bare name that several have is
        the one the caller may use; Invalid if it may use several."""
        provider, _, rest = model.partition("/")
        if (entry := self._by_name.get(provider)) is not None:
            own = entry.named(rest) if rest else entry.named(provider) if entry.kind == "quote" else None
            if own is not None:
                return entry, own, self._public(entry, own)
        having = [(entry, own) for entry in self.entries if (own := entry.named(model)) in entry.models]
        if len(having) > 1:
            having = [each for each in having if permits(scope, self._public(*each))] or having[:1]
        if len(having) > 1:
            ids = " or ".join(f"`{self._public(entry, own)}`" for entry, own in having)
            raise Invalid(f"Several providers have `{model}`. Say {ids}.", code="model_ambiguous")
        return (*having[0], self._public(*having[0])) if having else None

    def near(self, model: str, scope: Scope = Scope()) -> list[str]:
        """Ids that may have been meant, best first."""
        return nearest(model, [info.id for info in self.infos(scope)])

    def unknown(self, model: str, scope: Scope = Scope()) -> Missing:
        near = self.near(model, scope)
        hint = f"Did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else "GET /api/models lists them."
        return Missing(f"There is no model `{shortened(model)}`. {hint}", code="model_unknown", near=near)

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        for entry in self.entries:
            await entry.provider.close()

    def _public(self, entry: Entry, own: str) -> str:
        info = entry.models.get(own)
        return info.id if info else f"{entry.name}/{own}"


async def _refresh(entries: Sequence[Entry]) -> None:
    await asyncio.gather(*(entry.refresh() for entry in entries))
