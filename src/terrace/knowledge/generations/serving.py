"""Which generation serves: an embedder that is exchanged between two searches, never within one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.base import EmbedderState, StatefulEmbedder
from terrace.types import Scope


@dataclass(frozen=True, slots=True)
class Keyed:
    """An embedder whose vectors are kept under another name than its own."""

    inner: StatefulEmbedder
    key: str

    @property
    def name(self) -> str:
        return self.key

    @property
    def dimensions(self) -> int:
        return self.inner.dimensions

    def state(self) -> EmbedderState:
        return self.inner.state()

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        return await self.inner.embed(texts, query=query, scope=scope)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return await self.inner.count_tokens(texts)

    async def close(self) -> None:
        """Whoever opened it closes it."""


class ServingEmbedder:
    """What the settings name, until generations say otherwise.

    Its name and vectors may change from one call to the next: who needs several that belong together takes `present`
    once.
    """

    def __init__(self, configured: StatefulEmbedder) -> None:
        self.configured = configured
        self._present: StatefulEmbedder = configured
        self._beside: tuple[StatefulEmbedder, ...] = ()

    def present(self) -> StatefulEmbedder:
        return self._present

    def beside(self) -> Sequence[StatefulEmbedder]:
        """Further generations that every new passage goes into."""
        return self._beside

    def serve(self, present: StatefulEmbedder, beside: Sequence[StatefulEmbedder]) -> None:
        """In one step, on the event loop."""
        self._present, self._beside = present, tuple(beside)

    @property
    def name(self) -> str:
        return self._present.name

    @property
    def dimensions(self) -> int:
        return self._present.dimensions

    def state(self) -> EmbedderState:
        return self._present.state()

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        return await self._present.embed(texts, query=query, scope=scope)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return await self._present.count_tokens(texts)

    async def close(self) -> None:
        """Whoever opened them closes them."""


def waiting(key: str, model: str, building: str) -> StatefulEmbedder:
    """Where the model of the vectors there are can't be had and those of another are still being made."""
    why = f"The model {model} is away; search goes by words until the vectors of {building} are made."
    return Keyed(AbsentEmbedder(model, why), key)
