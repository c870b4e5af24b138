"""Schedules as doors use them: made, looked at, changed, run now."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from sqlmodel import Session, col, select

from terrace import settings
from terrace.errors import Conflict, Denied, Invalid
from terrace.schedules import store
from terrace.schedules.base import Action, BuiltIn, Emitter, Run, Schedule, Silent
from terrace.schedules.runner import Runner
from terrace.schedules.tables import ScheduleRow
from terrace.schedules.timing import Timing, timing
from terrace.schedules.words import sentence
from terrace.storage import Database, after_commit
from terrace.types import Scope, new_id, now

MAX_NAME = 200
MAX_PAYLOAD = 16_384  # bytes of JSON
MAX_VALUE = 500
SHOWN = 5  # next times
TIMES = ("cron", "every", "timezone")


@dataclass(frozen=True, slots=True)
class Due:
    local: datetime
    utc: datetime


@dataclass(frozen=True, slots=True)
class Preview:
    sentence: str
    next: list[Due]


class Schedules:
    def __init__(
        self,
        database: Database,
        options: settings.Schedules,
        *,
        emitter: Emitter = Silent(),
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._settings = options
        self._clock = clock
        self._actions: dict[str, Action] = {}
        self._built_in: list[BuiltIn] = []
        self._unwatch: Callable[[], None] | None = None
        self._runner = Runner(database, self._actions, emitter=emitter, keep_runs=options.keep_runs, clock=clock)

    # -- what assembly says

    def register(self, action: Action) -> None:
        self._actions[action.name] = action

    def build_in(self, built_in: BuiltIn) -> None:
        """Have every installation schedule it, from its next start on; who pauses or moves it is not overruled."""
        self._built_in.append(built_in)

    async def start(self) -> None:
        """Begin to look at the clock."""
        for each in self._built_in:
            await self._database.write(self._install, each)
        self._unwatch = self._database.watch(self._runner.wake_soon)
        self._runner.start()

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        await self._runner.close()

    async def look(self) -> float:
        """Start what is due now; returns the seconds until something is. `start` does this by itself."""
        return await self._runner.look()

    # -- what doors ask

    def actions(self, permissions: Collection[str]) -> Sequence[Action]:
        """Those that people with these permissions may schedule, by name."""
        return [each for _, each in sorted(self._actions.items()) if each.permission in ("", *permissions)]

    async def check(self, cron: str | None, every: int | None, timezone: str) -> Preview:
        """When such a schedule would run. Raises Invalid."""
        return await asyncio.to_thread(_preview, cron, every, timezone, self._clock())

    async def create(
        self,
        scope: Scope,
        *,
        name: str,
        action: str,
        payload: dict[str, Any],
        cron: str | None = None,
        every: int | None = None,
        timezone: str = "UTC",
        enabled: bool = True,
        permissions: Collection[str] = (),
    ) -> Schedule:
        """`permissions` are those of whoever asks. Raises Invalid, Denied, Conflict, and what the action says of its
        payload."""
        when = await asyncio.to_thread(timing, cron, every, timezone)
        name, at = _name(name), self._clock()

        def write(session: Session) -> Schedule:
            self._check_action(session, scope, action, payload, permissions)
            store.check_name(session, scope, name)
            if store.count(session, scope) >= self._settings.most:
                raise Invalid(f"There may be at most {self._settings.most} schedules.", code="too_many_schedules")
            row = _row(scope, name, action, payload, when, at, enabled)
            session.add(row)
            session.flush()
            after_commit(session, self._runner.wake)
            return store.shown(session, scope, [row])[0]

        return await self._database.write(write)

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Schedule], str | None]:
        """Newest first, with the cursor of what follows."""
        items = await self._database.read(store.page, scope, limit + 1, cursor)
        return items[:limit], items[limit - 1].id if len(items) > limit else None

    async def get(self, scope: Scope, schedule_id: str) -> Schedule:
        """Raises Missing."""
        return await self._database.read(_get, scope, schedule_id)

    async def change(
        self, scope: Scope, schedule_id: str, given: dict[str, Any], *, permissions: Collection[str] = ()
    ) -> Schedule:
        """`given`: some of name, payload, cron, every, timezone, enabled. Jobs are of whoever changed it last.

        Switching it on takes what stopped it as mended; what was missed meanwhile is not made up for.
        """

        def write(session: Session) -> Schedule:
            row = store.get(session, scope, schedule_id)
            self._check_may(row, permissions)
            if row.built_in and not given.keys() <= {"enabled", *TIMES}:
                raise Conflict("This schedule is built in: its times can be changed, and it can be paused.")
            self._alter(session, scope, row, given, permissions)
            session.add(row)
            session.flush()
            after_commit(session, self._runner.wake)
            return store.shown(session, scope, [row])[0]

        return await self._database.write(write)

    async def remove(self, scope: Scope, schedule_id: str, *, permissions: Collection[str] = ()) -> None:
        """With its history; a job of it that runs goes on. Raises Missing, Denied, Conflict (it is built in)."""

        def write(session: Session) -> None:
            row = store.get(session, scope, schedule_id)
            self._check_may(row, permissions)
            if row.built_in:
                raise Conflict("This schedule is built in and would come back: pause it instead.", code="built_in")
            store.remove(session, scope, schedule_id)

        await self._database.write(write)

    async def run_now(self, scope: Scope, schedule_id: str, *, permissions: Collection[str] = ()) -> Run:
        """Besides its times; one that is paused too. Raises Conflict while a run goes on, and what the action says."""

        def write(session: Session) -> Run:
            row = store.get(session, scope, schedule_id)
            self._check_may(row, permissions)
            action = self._actions.get(row.action)
            if action is not None and action.check is not None:
                action.check(session, scope, row.payload)
            if (job := store.going(session, row)) is not None:
                raise Conflict(f"It is running already: {job}.", code="running_already")
            at = self._clock()
            run = store.new_run(row, at, at, by_hand=True)
            run.job_id = self._runner.start_action(session, scope, row)
            store.add_run(session, row, run, self._settings.keep_runs)
            session.add(row)
            session.flush()
            return store.shown_runs(session, [run])[0]

        return await self._database.write(write)

    async def runs(
        self, scope: Scope, schedule_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[Sequence[Run], str | None]:
        """Newest first, with the cursor of what follows. Raises Missing."""
        items = await self._database.read(store.run_page, scope, schedule_id, limit + 1, cursor)
        return items[:limit], items[limit - 1].id if len(items) > limit else None

    # -- rules

    def _check_action(
        self, session: Session, scope: Scope, name: str, payload: dict[str, Any], permissions: Collection[str]
    ) -> None:
        action = self._actions.get(name)
        if action is None:
            known = ", ".join(each.name for each in self.actions(permissions))
            raise Invalid(f"There is no action {name[:100]!r}. There are: {known}.", code="unknown_action")
        _check_permitted(action, permissions)
        texts = all(isinstance(value, str) and 0 < len(value) <= MAX_VALUE for value in payload.values())
        if set(payload) != set(action.needs) or not texts:
            wanted = ", ".join(action.needs)
            raise Invalid(
                f"The payload of {name} holds {wanted} and nothing else." if wanted else f"{name} takes no payload.",
                code="bad_payload",
            )
        if len(msgspec.json.encode(payload)) > MAX_PAYLOAD:
            raise Invalid(f"A payload has at most {MAX_PAYLOAD:,} bytes.", code="bad_payload")
        if action.check is not None:
            action.check(session, scope, payload)

    def _check_may(self, row: ScheduleRow, permissions: Collection[str]) -> None:
        if (action := self._actions.get(row.action)) is not None:
            _check_permitted(action, permissions)

    def _alter(
        self, session: Session, scope: Scope, row: ScheduleRow, given: dict[str, Any], permissions: Collection[str]
    ) -> None:
        at = self._clock()
        if "name" in given:
            row.name = _name(given["name"])
            row.name_key = row.name.casefold()
            store.check_name(session, scope, row.name, row.id)
        if "payload" in given:
            self._check_action(session, scope, row.action, given["payload"], permissions)
            row.payload = given["payload"]
        if moved := bool(given.keys() & set(TIMES)):
            when = _changed(row, given)
            row.cron, row.every, row.timezone = when.cron, when.every, when.timezone
        if "enabled" in given:
            moved, row.enabled, row.problem = moved or given["enabled"] != row.enabled, given["enabled"], None
        if moved:
            row.next_at = store.timing_of(row).next(at, at) if row.enabled else None
        if not row.built_in:
            row.user_id, row.key_id = scope.user, scope.key
        row.updated_at = at

    def _install(self, session: Session, built_in: BuiltIn) -> None:
        scope = Scope()
        made = select(ScheduleRow.id).where(
            ScheduleRow.tenant_id == scope.tenant, ScheduleRow.action == built_in.action, col(ScheduleRow.built_in)
        )
        if session.exec(made).first() is None:
            name, number = built_in.name, 2
            while store.named(session, scope, name):  # somebody had one of this name before
                name, number = f"{built_in.name} {number}", number + 1
            row = _row(scope, name, built_in.action, {}, Timing(None, built_in.every, "UTC"), self._clock(), True)
            row.built_in = True
            session.add(row)


def _check_permitted(action: Action, permissions: Collection[str]) -> None:
    if action.permission not in ("", *permissions):
        raise Denied(
            f"To schedule {action.name} you need the permission `{action.permission}`.",
            code="not_permitted",
            permission=action.permission,
        )


def _preview(cron: str | None, every: int | None, timezone: str, at: float) -> Preview:
    given = timing(cron, every, timezone)
    zone, due, coming = ZoneInfo(timezone), at, []
    for _ in range(SHOWN):
        due = given.next(due, at)
        coming.append(Due(datetime.fromtimestamp(due, zone), datetime.fromtimestamp(due, UTC)))
    return Preview(sentence(given), coming)


def _get(session: Session, scope: Scope, schedule_id: str) -> Schedule:
    return store.shown(session, scope, [store.get(session, scope, schedule_id)])[0]


def _row(
    scope: Scope, name: str, action: str, payload: dict[str, Any], when: Timing, at: float, enabled: bool
) -> ScheduleRow:
    return ScheduleRow(
        id=new_id("sch"),
        tenant_id=scope.tenant,
        name=name,
        name_key=name.casefold(),
        action=action,
        payload=payload,
        cron=when.cron,
        every=when.every,
        timezone=when.timezone,
        enabled=enabled,
        next_at=when.next(at, at) if enabled else None,
        user_id=scope.user,
        key_id=scope.key,
        created_at=at,
        updated_at=at,
    )


def _changed(row: ScheduleRow, given: dict[str, Any]) -> Timing:
    """One of `cron` and `every` takes the place of the other."""
    cron, every = given.get("cron"), given.get("every")
    if cron is None and every is None:
        cron, every = row.cron, row.every
    return timing(cron, every, given.get("timezone") or row.timezone)


def _name(given: str) -> str:
    name = " ".join(given.split())
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise Invalid(f"A schedule's name has 1 to {MAX_NAME} visible characters.", code="bad_name")
    return name
