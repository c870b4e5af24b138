"""The words of generations."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

State = Literal["building", "ready", "serving", "retired"]

REEMBED = "index.reembed"
BOUND = 0.5  # of the ten best, how many a new generation must have in common to take its place by itself


@dataclass(frozen=True, slots=True)
class Comparison:
    """Over `queries` recent questions: the share of the ten best that both find, and how many places those that both
    find move. None of the two where nothing was asked lately."""

    queries: int
    overlap: float | None
    rank_change: float | None


@dataclass(frozen=True, slots=True)
class Generation:
    """`vectors` of `chunks` are made. `available` says whether its model can be had now."""

    id: str
    key: str
    model: str
    state: State
    available: bool
    dimensions: int
    vectors: int
    chunks: int
    automatic: bool
    bound: float
    comparison: Comparison | None
    note: str
    job_id: str | None
    created_at: datetime
    ready_at: datetime | None
    switched_at: datetime | None
