"""Which of the processes publishes: the one with the first id among those that show signs of life.

Two at a time, for a moment, do no harm: a message that comes twice is for a row that is taken already.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import text
from sqlmodel import Session

from terrace.jobs.base import Lane

# What a worker's id begins with says what it can do; ids of other engines begin otherwise.
PUBLISHES = "cpb"
SERVES: Mapping[str, frozenset[Lane]] = {
    "cel": frozenset({"io", "cpu"}),
    "cio": frozenset({"io"}),
    "ccp": frozenset({"cpu"}),
}

BEATS = text("SELECT id, heartbeat_at FROM job_workers")


def beats(session: Session) -> dict[str, float]:
    """When each process of this engine last said that it lives, by its own clock."""
    return {row.id: row.heartbeat_at for row in session.execute(BEATS) if _prefix(row.id) in {PUBLISHES, *SERVES}}


def prefix_of(lanes: Iterable[Lane]) -> str:
    """What the id of a worker of these lanes begins with."""
    served = frozenset(lanes)
    return next(prefix for prefix, each in SERVES.items() if each == served)


class Lives:
    """Tells who lives by whether a heartbeat moves, since the clocks of two machines need not agree."""

    def __init__(self, patience: float) -> None:
        self._patience = patience  # seconds without a new heartbeat
        self._seen: dict[str, tuple[float, float]] = {}  # id -> the heartbeat, and when we first saw it

    def see(self, beats: Mapping[str, float], at: float) -> list[str]:
        """Who lives at `at` (seconds of a monotonic clock), in their order; whoever is new does."""
        self._seen = {
            each: self._seen[each] if each in self._seen and self._seen[each][0] == beat else (beat, at)
            for each, beat in beats.items()
        }
        return sorted(each for each, (_, since) in self._seen.items() if at - since <= self._patience)


def slots_of(alive: Iterable[str], of_one: Mapping[Lane, int]) -> Mapping[Lane, int]:
    """Jobs that all workers can run at a time, each set up as `of_one`; of one worker where there is none yet."""
    served = [SERVES.get(_prefix(each), frozenset()) for each in alive]
    both = frozenset(SERVES["cel"])
    io = of_one["io"] * sum("io" in lanes for lanes in served)
    cpu = sum(of_one["cpu"] if lanes == both else 1 for lanes in served if "cpu" in lanes)  # alone: a prefork child
    return {"io": io or of_one["io"], "cpu": max(cpu, of_one["cpu"])}


def _prefix(worker: str) -> str:
    return worker.partition("_")[0]
