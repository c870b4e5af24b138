"""The embedder that is not there: it says why, and still counts tokens well enough to cut chunks."""

from collections.abc import Sequence
from typing import Any

from terrace.knowledge.embedding.base import EmbedderState, EmbeddingAbsent
from terrace.types import Scope

CHARACTERS_PER_TOKEN = 4  # English prose under WordPiece


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    return [-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts]


class AbsentEmbedder:
    def __init__(self, name: str, why: str) -> None:
        self._state = EmbedderState("absent", name, why)

    @property
    def name(self) -> str:
        return self._state.model

    @property
    def dimensions(self) -> int:
        return 0

    def state(self) -> EmbedderState:
        return self._state

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        raise EmbeddingAbsent(self._state.why)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return estimate_tokens(texts)

    async def close(self) -> None:
        pass
