"""Which lanes the living workers serve: what a worker's id begins with says it; other engines' ids begin otherwise."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import text
from sqlmodel import Session

from terrace.jobs.base import Lane
from terrace.types import now

PUBLISHES = "cpb"  # and serves none
SERVES: Mapping[str, frozenset[Lane]] = {
    "cel": frozenset({"io", "cpu"}),
    "cio": frozenset({"io"}),
    "ccp": frozenset({"cpu"}),
}

ALIVE = text("SELECT id FROM job_workers WHERE heartbeat_at > :since")


def prefix_of(lanes: Iterable[Lane]) -> str:
    """What the id of a worker of these lanes begins with."""
    served = frozenset(lanes)
    return next(prefix for prefix, each in SERVES.items() if each == served)


class Workers(NamedTuple):
    slots: Mapping[Lane, int]  # jobs they can run at a time; of one worker where there is none yet
    serve: frozenset[Lane]  # what at least one of them serves


def workers(session: Session, of_one: Mapping[Lane, int], lease: float) -> Workers:
    """Those that live, each taken to be set up as `of_one`."""
    alive = session.execute(ALIVE, {"since": now() - lease}).scalars()
    served = [SERVES.get(each.partition("_")[0], frozenset()) for each in alive]
    io = of_one["io"] * sum("io" in lanes for lanes in served)
    cpu = sum(1 if len(lanes) == 1 else of_one["cpu"] for lanes in served if "cpu" in lanes)  # alone: a prefork child
    return Workers({"io": io or of_one["io"], "cpu": max(cpu, of_one["cpu"])}, frozenset().union(*served))
