"""An embedder in a few lines of arithmetic: hashed words and word pieces, deterministic, in memory.

It knows spelling, not meaning; tests and demonstrations that must not load a model use it.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from terrace.knowledge.embedding.base import EmbedderState
from terrace.types import Scope

_WORD = re.compile(r"\w+")


class HashEmbedder:
    """Feature hashing (Weinberger et al., 2009): each word and each trigram of it adds +-1 at a hashed place."""

    def __init__(self, dimensions: int = 64) -> None:
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        return f"hash-{self._dimensions}/fp32"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def state(self) -> EmbedderState:
        return EmbedderState("ready", self.name)

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        vectors = np.zeros((len(texts), self._dimensions), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in _WORD.findall(text.lower()):
                self._add(row, word, 1.0)
                for at in range(len(word) - 2):
                    self._add(row, word[at : at + 3], 0.3)
            if not row.any():
                row[0] = 1.0
            row /= np.linalg.norm(row)
        return vectors

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(_WORD.findall(text)) for text in texts]

    async def close(self) -> None:
        pass

    def _add(self, row: Any, feature: str, weight: float) -> None:
        number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "big")
        row[(number >> 1) % self._dimensions] += weight if number & 1 else -weight
