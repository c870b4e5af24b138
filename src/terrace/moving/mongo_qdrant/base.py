"""The words of an import from MongoDB and Qdrant."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

BATCH = 256  # records read at a time

Record = Mapping[str, Any]  # a document of MongoDB, or a payload of Qdrant


@dataclass(frozen=True, slots=True)
class Space:
    """A named vector of a Qdrant collection; the unnamed one is ''."""

    name: str
    dimensions: int
    distance: str  # Cosine | Dot | Euclid | Manhattan


@dataclass(frozen=True, slots=True)
class PointCollection:
    """`count` is None where only reading it all would tell."""

    name: str
    count: int | None
    spaces: tuple[Space, ...]


@dataclass(frozen=True, slots=True)
class Point:
    id: str
    vectors: Mapping[str, Sequence[float]]  # dense ones by name
    payload: Record


class Documents(Protocol):
    """A MongoDB, alive or dumped. Collections are called `database.collection`."""

    async def collections(self) -> Sequence[str]: ...

    async def count(self, collection: str) -> int | None:
        """None where only reading it all would tell."""

    def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Record]]:
        """In batches. Raises Missing for a collection that is not there, Invalid for what cannot be read."""

    async def close(self) -> None: ...


class Points(Protocol):
    """A Qdrant, alive or as files."""

    async def collections(self) -> Sequence[PointCollection]: ...

    def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Point]]:
        """In batches, as `Documents.read`."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with the source, and what becomes of it."""

    code: str
    count: int
    told: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    documents: int = 0
    chunks: int = 0
    vectors: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """Where the vectors that come along belong.

    `serving`: with those that search uses. `generation`: a generation of their own, of a model that can be had here.
    `none`: nowhere, so passages are embedded anew. `likeness` is the median cosine to what `model` makes of the same
    passages, where that was tried.
    """

    kind: Literal["serving", "generation", "none"]
    key: str = ""
    model: str = ""
    setting: str = ""
    precision: str = ""
    dimensions: int = 0
    likeness: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an import would bring."""

    found: Counts  # in the source
    coming: Counts
    unread: int  # documents without passages: Terrace reads them itself
    collections: Mapping[str, int]  # documents by the collection they come into
    problems: Sequence[Problem]
    fit: Fit
    already: int = 0  # documents that an earlier run of this import has brought


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was verified."""

    name: str
    good: bool
    told: str


@dataclass(frozen=True, slots=True)
class Report:
    id: str
    state: Literal["running", "verified", "differs", "rolled_back"]
    came: Counts
    checks: Sequence[Check] = ()
    left_out: Sequence[Problem] = ()
    fit: Fit = field(default_factory=lambda: Fit("none"))
    waiting: int = 0  # documents whose vectors or text a job still makes
