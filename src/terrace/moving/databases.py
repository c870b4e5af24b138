"""From one database into another: copied while the source is read and written, caught up with while its writes wait,
proved, and only then opened to anybody.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlmodel import Session

from terrace.errors import Conflict, Internal, Invalid
from terrace.knowledge.health.base import InspectedIndex
from terrace.moving import searching
from terrace.moving.places import Place, open_index, open_side
from terrace.moving.searching import Moment, Searched
from terrace.moving.sides import Side, Table
from terrace.moving.sides.failing import guarded
from terrace.moving.state import State, empty_of_rows, forget_state, read_state, write_state
from terrace.moving.sums import Sum, Told, sums_of
from terrace.moving.syncing import Synced, Syncing
from terrace.moving.texts import Texts, Words, tended
from terrace.storage.migrate import UNFINISHED, head
from terrace.types import moment, new_id, now

SMALL = 1000  # rows that may be left for the last pass, while writes wait
PASSES = 4

AGAIN = "Go on with --resume, or empty it with --rollback."


@dataclass(frozen=True, slots=True)
class Plan:
    source: str
    destination: str
    schema: str
    tables: dict[str, int]  # rows
    state: str  # empty | begun | done: what is at the destination


@dataclass(frozen=True, slots=True)
class Moved:
    id: str
    tables: dict[str, Sum]
    searched: Searched
    altered: int
    held_seconds: float  # for which writes at the source waited
    until: float  # everything written at the source before is there
    seconds: float


class DatabaseMove:
    def __init__(self, source: Place, destination: Place, told: Told) -> None:
        if source == destination:
            raise Invalid("Source and destination are the same database.", code="same_place")
        self.source = source
        self.destination = destination
        self._told = told

    async def plan(self) -> Plan:
        """What a move would do; nothing is written."""
        return await asyncio.to_thread(guarded, self._plan)

    async def run(self, *, resume: bool = False) -> Moved:
        """Raises Conflict when the destination holds something else, Internal when it could not be proved equal."""
        began = time.monotonic()
        async with open_index(self.source) as (_, here), open_index(self.destination) as (database, there):
            with ExitStack() as kept:
                state, copied = await asyncio.to_thread(guarded, self._copy, resume, there, kept)
                searched = await asyncio.to_thread(guarded, self._search, copied, here, there)
            await tended(database, self._told)
        synced, seconds = copied.synced, time.monotonic() - began
        await asyncio.to_thread(guarded, self._finish, state, synced.sums)
        return Moved(state.id, synced.sums, searched, synced.altered, copied.held_seconds, copied.until, seconds)

    async def roll_back(self) -> None:
        """The destination is emptied. Raises Conflict when it holds anything that was not moved from this source."""
        await asyncio.to_thread(guarded, self._roll_back)

    # -- in a thread

    def _plan(self) -> Plan:
        with closing(open_side(self.source)) as source, source.snapshot():
            schema = checked_schema(source, self.source)
            tables = {each.name: source.count(each) for each in source.tables()}
        state = "empty"
        if self.destination.kind == "postgresql" or self.destination.path.is_file():
            with closing(open_side(self.destination)) as destination:
                if found := self._state(destination):
                    state = "done" if found.sums else "begun"
        return Plan(str(self.source), str(self.destination), schema, tables, state)

    def _copy(self, resume: bool, index: Words, kept: ExitStack) -> "tuple[State, _Copied]":
        with (
            closing(open_side(self.source)) as source,
            closing(open_side(self.destination, make=True)) as destination,
        ):
            with source.snapshot():
                checked_schema(source, self.source)
            state = self._begin(destination, resume)
            tables = _same(source, destination)
            copied = self._until_equal(source, destination, Texts(destination, index), kept)
            _analyze(destination)
            arrived = sums_of(destination, tables, self._told)
            _compare(copied.synced.sums, arrived)
            return state, copied

    def _begin(self, destination: Side, resume: bool) -> State:
        state = self._state(destination)
        if state is not None and not resume:
            raise Conflict(f"A move into {self.destination} was begun {_when(state)}. {AGAIN}", code="move_begun")
        if state is not None and state.sums:
            self._unused(destination, state)
        state = state or State(new_id("mov"), str(self.source), now())
        with destination.writing():
            if destination.version() != UNFINISHED:
                destination.migrate()
            write_state(destination, State(state.id, state.source, state.begun_at), version=UNFINISHED)
        return state

    def _until_equal(self, source: Side, destination: Side, texts: Texts, kept: ExitStack) -> "_Copied":
        """Reads go on all the time."""
        done: Synced | None = None
        stamp: object = None
        for _ in range(PASSES):
            with source.snapshot():
                stamp = source.stamp()
                copied = Syncing(source, destination, texts, self._told).run()
            done = copied if done is None else done.then(copied)
            if copied.written + copied.removed < SMALL:
                break
            if stamp is not None:
                with source.snapshot():
                    if source.stamp() == stamp:
                        break
        assert done is not None
        with source.held():
            until, began = now(), time.monotonic()
            if stamp is None or source.stamp() != stamp:
                done = done.then(Syncing(source, destination, texts, self._told).run())
            side = kept.enter_context(closing(open_side(self.source)))
            session = kept.enter_context(side.reading())
            return _Copied(done, time.monotonic() - began, until, side, session)

    def _search(self, copied: "_Copied", here: InspectedIndex, there: InspectedIndex) -> Searched:
        """Raises Internal when other passages are found there."""
        asked = searching.probes(copied.source)
        self._told("searches compared", 0, len(asked))
        with closing(open_side(self.destination)) as side, side.reading() as session:
            arrived = Moment(side, session, there)
            if incomplete := searching.incomplete(arrived):
                raise Internal(
                    f"{incomplete:,} passages are not in the full text of the destination as they should be. The "
                    f"source is as it was. {AGAIN}",
                    code="searches_differ",
                )
            searched = searching.compare(Moment(copied.source, copied.session, here), arrived, asked)
            self._told("searches compared", len(asked), len(asked))
        if searched.equal < searched.queries:
            raise Internal(
                f"Of {searched.queries} searches only {searched.equal} found the same. The source is as it was; if "
                f"`terrace doctor` finds its index astray, have that mended first. {AGAIN}",
                code="searches_differ",
            )
        return searched

    def _finish(self, state: State, sums: dict[str, Sum]) -> None:
        with closing(open_side(self.destination)) as destination:
            with destination.writing():
                write_state(destination, State(state.id, state.source, state.begun_at, sums), version=head())
            if destination.dialect == "sqlite":
                destination.run("PRAGMA wal_checkpoint(TRUNCATE)")

    def _roll_back(self) -> None:
        with closing(open_side(self.destination)) as destination:
            state = self._state(destination)
            if state is None:
                raise Conflict(
                    f"Nothing was moved into {self.destination}, so nothing is rolled back.", code="nothing_moved"
                )
            if state.sums:
                self._unused(destination, state)
            with destination.writing():
                forget_state(destination, version=head())
                destination.migrate("base")
        if self.destination.kind == "sqlite":
            for end in ("", "-wal", "-shm"):
                Path(f"{self.destination.path}{end}").unlink(missing_ok=True)

    def _state(self, destination: Side) -> State | None:
        """Raises Conflict where somebody else's rows are, or those of another move."""
        state = read_state(destination)
        if state is None:
            empty_of_rows(destination, str(self.destination))
        elif state.source != str(self.source):
            raise Conflict(
                f"{self.destination} holds what was moved from {state.source}, not from {self.source}.",
                code="moved_from_elsewhere",
            )
        return state

    def _unused(self, destination: Side, state: State) -> None:
        """Raises Conflict when something was written there since the move: it would be lost."""
        self._told("looking whether it was used since", 0, 1)
        if sums_of(destination, destination.tables(), _silent) != state.sums:
            raise Conflict(
                f"{self.destination} was written to since it was filled {_when(state)}; that would be lost. "
                "Move into another one.",
                code="destination_used",
            )


@dataclass(frozen=True, slots=True)
class _Copied:
    synced: Synced
    held_seconds: float  # for which writes waited
    until: float  # when they did
    source: Side  # as it was then, until what it is kept in is closed
    session: Session


def _same(source: Side, destination: Side) -> Sequence[Table]:
    """The destination's tables; both have the same schema."""
    there = {each.name: [column.name for column in each.columns] for each in destination.tables()}
    here = {each.name: [column.name for column in each.columns] for each in source.tables()}
    if here != there:
        differing = ", ".join(sorted(name for name in here | there if here.get(name) != there.get(name)))
        raise Conflict(f"These tables are not alike at both ends: {differing}. {AGAIN}", code="tables_differ")
    return destination.tables()


def _compare(ours: dict[str, Sum], theirs: dict[str, Sum]) -> None:
    for name, sum in ours.items():
        if theirs[name] != sum:
            raise Internal(
                f"{name} is not equal after the move: {sum.rows:,} rows at the source, {theirs[name].rows:,} at the "
                f"destination. The source is as it was. {AGAIN}",
                code="not_equal",
            )


def checked_schema(side: Side, where: Place) -> str:
    """Raises Conflict unless it is this version's."""
    version = side.version()
    if version == UNFINISHED:
        raise Conflict(f"Rows are still being moved into {where}: finish that first.", code="unfinished")
    if version != head():
        raise Conflict(
            f"{where} has schema {version or 'none'}, this version of Terrace has {head()}. Start Terrace on it once, "
            "and it is brought up to date.",
            code="schema_differs",
        )
    return version


def _analyze(side: Side) -> None:
    """So that PostgreSQL plans for what is there now. SQLite's plans need no statistics."""
    if side.dialect == "postgresql":
        with side.writing():
            side.run("ANALYZE")


def _when(state: State) -> str:
    return f"{moment(state.begun_at):%Y-%m-%d %H:%M} UTC"


def _silent(doing: str, done: int, total: int) -> None:
    return None


def told_of(moved: Moved, plan: Plan) -> dict[str, Any]:
    """For a manifest."""
    return {
        "id": moved.id,
        "kind": "move",
        "source": plan.source,
        "destination": plan.destination,
        "schema": plan.schema,
        "complete_until": moved.until,
        "seconds": round(moved.seconds, 3),
        "tables": {name: asdict(sum) for name, sum in moved.tables.items()},
        "searches": asdict(moved.searched),
        "altered": moved.altered,
    }
