"""What the rest of the house knows of an embedder beyond `models.base.Embedder`: how it is doing."""

from dataclasses import dataclass
from typing import Literal, Protocol

from terrace.errors import Unavailable
from terrace.models.base import Embedder

State = Literal["ready", "unloaded", "preparing", "absent"]


@dataclass(frozen=True, slots=True)
class EmbedderState:
    """`why` is a sentence for a person: why it is absent, or what it waits for."""

    state: State
    model: str
    why: str = ""


class EmbeddingAbsent(Unavailable):
    """No embedding model can be had; search by words goes on. Trying again soon does not help."""

    retryable = False

    def __init__(self, why: str) -> None:
        super().__init__(why, code="embedding_absent")


class StatefulEmbedder(Embedder, Protocol):
    """`embed` raises EmbeddingAbsent when the model cannot be had, Unavailable when it broke."""

    def state(self) -> EmbedderState: ...
