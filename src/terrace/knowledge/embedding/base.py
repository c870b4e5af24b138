"""What the rest of the house knows of an embedder beyond `models.base.Embedder`: how it is doing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

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


@runtime_checkable
class Changing(Protocol):
    """An embedder that another may take the place of while it is in use."""

    def present(self) -> StatefulEmbedder:
        """The one in its place now: its name and its vectors belong together."""

    def beside(self) -> Sequence[StatefulEmbedder]:
        """Others whose vectors every new passage gets, too."""


def present(embedder: StatefulEmbedder) -> StatefulEmbedder:
    """One that stays what it is."""
    return embedder.present() if isinstance(embedder, Changing) else embedder


def beside(embedder: StatefulEmbedder) -> Sequence[StatefulEmbedder]:
    return embedder.beside() if isinstance(embedder, Changing) else ()
