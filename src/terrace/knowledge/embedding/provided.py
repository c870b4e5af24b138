"""Embeddings from a provider's endpoint: `<provider>/<model>` in the settings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from terrace.errors import Unavailable
from terrace.knowledge.embedding.absent import estimate_tokens
from terrace.knowledge.embedding.base import EmbedderState
from terrace.models.base import Embeddings
from terrace.types import Scope

SLICE = 64  # texts in one call


class Embeds(Protocol):
    """As much of a provider as this needs."""

    @property
    def name(self) -> str: ...

    async def embed(self, model: str, texts: Sequence[str], scope: Scope) -> Embeddings: ...


class ProvidedEmbedder:
    def __init__(self, provider: Embeds, model: str) -> None:
        self._provider = provider
        self._model = model
        self._dimensions = 0

    @property
    def name(self) -> str:
        return f"{self._provider.name}/{self._model}"

    @property
    def dimensions(self) -> int:
        """0 until the provider first answered."""
        return self._dimensions

    def state(self) -> EmbedderState:
        return EmbedderState("ready", self.name, f"Texts are embedded by {self._provider.name}.")

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        payer = replace(scope or Scope(), models=())  # the model is the operator's choice, whatever a caller may use
        rows: list[list[float]] = []
        for start in range(0, len(texts), SLICE):
            part = texts[start : start + SLICE]
            rows += (await self._provider.embed(self._model, part, payer)).vectors
        if len(rows) != len(texts) or len({len(row) for row in rows}) > 1:
            raise Unavailable(f"{self._provider.name} answered with the wrong number of vectors or dimensions.")
        if not rows:
            return np.zeros((0, self._dimensions), np.float32)
        vectors = np.asarray(rows, np.float32)
        self._dimensions = vectors.shape[1]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all():
            raise Unavailable(f"{self._provider.name} answered with vectors that are not numbers.")
        return vectors / np.maximum(lengths, 1e-12)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return estimate_tokens(texts)

    async def close(self) -> None:
        """The provider belongs to others."""
