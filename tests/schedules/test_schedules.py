"""Schedules on a clock of our own: once each, late ones together, none beside a run that goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text
from sqlmodel import Session, col, select, update

from terrace.accounts.tables import TenantRow
from terrace.errors import Conflict, Denied, Invalid, Limited, Missing
from terrace.jobs.base import Context, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.schedules import leaving
from terrace.schedules.base import Action, BuiltIn, Schedule
from terrace.schedules.runner import LOOK_SECONDS
from terrace.schedules.service import Schedules
from terrace.schedules.tables import RunRow, ScheduleRow
from terrace.settings import Jobs as JobOptions
from terrace.settings import Schedules as Options
from terrace.storage import Database
from terrace.types import Scope, now

NOON = datetime(2026, 6, 1, 12, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def set(self, local: str) -> None:
        self.at = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp()


class Ear:
    """Hears what is emitted."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict[str, Any]]] = []

    def emit(self, session: Session, scope: Scope, type: str, data: dict[str, Any]) -> None:
        self.heard.append((scope.tenant, type, data))


class House:
    def __init__(self, database: Database, clock: Any, **options: Any) -> None:
        self.database, self.clock, self.ear = database, clock, Ear()
        self.release = asyncio.Event()
        self.refusal: Exception | None = None
        self.jobs = LocalJobs(database, JobOptions(max_failures=1, backoff=0.01))
        self.jobs.register(JobKind("work", self.work, shared=True))
        self.schedules = Schedules(database, Options(**options), emitter=self.ear, clock=clock)
        self.schedules.register(Action("work", "Work", self.begin, needs=("of",)))
        self.schedules.register(Action("all", "For everybody", self.begin, permission="operator"))

    def begin(self, session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        job_id = self.jobs.enqueue(session, scope, "work", payload)
        if self.refusal is not None:
            raise self.refusal
        return job_id

    async def work(self, context: Context) -> dict[str, Any]:
        if context.payload.get("of") == "trouble":
            raise Invalid("This can never work.")
        await self.release.wait()
        return {}

    async def daily(self, scope: Scope, **given: Any) -> Schedule:
        """Half past two, Berlin."""
        given = {"name": "nightly", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "payload": {"of": "x"}} | given
        return await self.schedules.create(scope, action="work", **given)

    async def states(self, scope: Scope, schedule: Schedule) -> list[str]:
        """Of its runs, oldest first."""
        return [run.state for run in (await self.schedules.runs(scope, schedule.id))[0]][::-1]

    async def count(self, scope: Scope) -> int:
        return len((await self.jobs.list(scope, everyone=True))[0])

    async def end(self, scope: Scope) -> None:
        """All jobs that wait or run."""
        for job in (await self.jobs.list(scope, everyone=True))[0]:
            await self.jobs.cancel(scope, job.id, everyone=True)


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database, Clock())
    yield house
    house.release.set()
    await house.schedules.close()
    await house.jobs.close()


async def test_it_runs_at_its_time_and_only_then(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    assert schedule.sentence == "Every day at 02:30, Europe/Berlin."
    assert await house.schedules.look() == 14.5 * 3600
    assert await house.count(scope) == 0
    house.clock.set("2026-06-02T02:30")
    assert await house.schedules.look() == 24 * 3600
    await house.schedules.look()
    [run] = (await house.schedules.runs(scope, schedule.id))[0]
    job = await house.jobs.get(scope, str(run.job_id))
    assert (job.kind, job.payload, job.user) == ("work", {"of": "x"}, scope.user)
    assert run.due_at == run.started_at
    assert (await house.schedules.get(scope, schedule.id)).last_run == run


@pytest.mark.parametrize(
    ("eve", "times"),
    [
        ("2026-10-24T12:00", ["2026-10-25T02:30", "2026-10-25T03:30", "2026-10-26T02:30"]),  # 02:30 exists twice
        ("2026-03-28T12:00", ["2026-03-29T03:00", "2026-03-29T03:30", "2026-03-30T02:30"]),  # 02:30 does not exist
    ],
)
async def test_it_runs_once_on_the_days_on_which_the_clock_leaps(
    house: House, scope: Scope, eve: str, times: list[str]
) -> None:
    house.clock.set(eve)
    schedule = await house.daily(scope)
    moment = house.clock.at
    ran = []
    while moment < datetime.fromisoformat(times[-1]).replace(tzinfo=ZoneInfo("Europe/Berlin")).timestamp() + 1:
        house.clock.at = moment
        await house.schedules.look()
        if await house.count(scope) > len(ran):
            ran.append(datetime.fromtimestamp(moment, ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%dT%H:%M"))
            await house.end(scope)
        moment += 1800
    assert ran == [times[0], times[2]]
    assert len(await house.states(scope, schedule)) == 2


async def test_what_was_missed_is_one_run(house: House, scope: Scope) -> None:
    schedule = await house.schedules.create(scope, name="often", action="work", payload={"of": "x"}, every=3600)
    house.clock.at += 10 * 3600 + 5
    assert await house.schedules.look() == 3595
    assert await house.states(scope, schedule) == ["running"]
    assert (await house.schedules.get(scope, schedule.id)).next_at.timestamp() == NOON + 11 * 3600


async def test_a_clock_that_goes_back_runs_nothing_twice(house: House, scope: Scope) -> None:
    schedule = await house.schedules.create(scope, name="often", action="work", payload={"of": "x"}, every=3600)
    house.clock.at += 3600
    await house.schedules.look()
    await house.end(scope)
    for back in (1800, 10 * 3600):
        house.clock.at = NOON + 3600 - back
        await house.schedules.look()
        house.clock.at = NOON + 3600
        await house.schedules.look()
    assert len(await house.states(scope, schedule)) == 1
    house.clock.at = NOON + 7200
    await house.schedules.look()
    assert len(await house.states(scope, schedule)) == 2


@pytest.mark.both
async def test_any_number_of_processes_run_it_once(
    house: House, scope: Scope, elsewhere: Callable[[], Database]
) -> None:
    """Each with its own connection, all looking at the same moment, over and over."""
    schedule = await house.schedules.create(scope, name="often", action="work", payload={"of": "x"}, every=60)
    houses = [house, *(House(elsewhere(), house.clock) for _ in range(3))]
    for _ in range(10):
        house.clock.at += 60
        await asyncio.gather(*(each.schedules.look() for each in houses for _ in range(2)))
        await house.end(scope)
    assert await house.count(scope) == 10
    assert len(await house.states(scope, schedule)) == 10


async def test_beside_a_run_that_goes_on_there_is_no_other(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    house.clock.set("2026-06-02T02:30")
    await house.schedules.look()
    with pytest.raises(Conflict, match="running already"):
        await house.schedules.run_now(scope, schedule.id)
    house.clock.set("2026-06-03T02:30")
    await house.schedules.look()
    skipped = (await house.schedules.runs(scope, schedule.id))[0][0]
    assert (skipped.state, skipped.job_id) == ("skipped", None)
    assert "still going (job_" in skipped.note
    await house.end(scope)
    house.clock.set("2026-06-04T02:30")
    await house.schedules.look()
    assert await house.states(scope, schedule) == ["cancelled", "skipped", "running"]


async def test_a_run_follows_its_job(house: House, scope: Scope) -> None:
    good = await house.daily(scope)
    bad = await house.daily(scope, name="bad", payload={"of": "trouble"})
    house.release.set()
    await house.jobs.start()
    runs = {each.id: await house.schedules.run_now(scope, each.id) for each in (good, bad)}
    for run in runs.values():
        await house.jobs.wait(scope, str(run.job_id), 20)
    for _ in range(2):  # read off the jobs, then as it was written down
        assert await house.states(scope, good) == ["succeeded"]
        [failed] = (await house.schedules.runs(scope, bad.id))[0]
        assert (failed.state, failed.note, failed.by_hand) == ("failed", "This can never work.", True)
        await house.schedules.look()
    [(tenant, type, data)] = house.ear.heard
    assert (tenant, type, data["schedule_id"], data["stopped"]) == (scope.tenant, "schedule.failed", bad.id, False)
    assert (await house.schedules.get(scope, bad.id)).enabled


async def test_a_job_that_is_gone_does_not_block_its_schedule(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    run = await house.schedules.run_now(scope, schedule.id)
    await house.database.write(
        lambda session: session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": run.job_id})
    )
    await house.schedules.run_now(scope, schedule.id)
    await house.schedules.look()
    assert await house.states(scope, schedule) == ["cancelled", "running"]


@pytest.mark.parametrize("refusal", [Missing("The source is gone."), Invalid("No."), Denied("You may not.")])
async def test_one_that_can_never_start_is_stopped_with_a_sentence(
    house: House, scope: Scope, refusal: Exception
) -> None:
    schedule = await house.daily(scope)
    house.refusal = refusal
    house.clock.set("2026-06-02T02:30")
    await house.schedules.look()
    stopped = await house.schedules.get(scope, schedule.id)
    assert (stopped.enabled, stopped.problem, stopped.next_at) == (False, str(refusal), None)
    assert await house.count(scope) == 0  # what it had put in was taken back
    [(_, type, data)] = house.ear.heard
    assert (type, data["message"], data["stopped"]) == ("schedule.failed", str(refusal), True)
    house.clock.set("2026-06-03T02:30")
    await house.schedules.look()
    assert await house.states(scope, schedule) == ["failed"]
    house.refusal = None
    again = await house.schedules.change(scope, schedule.id, {"enabled": True})
    assert (again.enabled, again.problem) == (True, None)


@pytest.mark.parametrize("refusal", [Limited("Too many wait."), Conflict("It is under way."), RuntimeError("Oops")])
async def test_one_that_could_not_start_tries_at_its_next_time(
    house: House, scope: Scope, refusal: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = await house.daily(scope)
    house.refusal = refusal
    house.clock.set("2026-06-02T02:30")
    await house.schedules.look()
    house.refusal = None
    house.clock.set("2026-06-03T02:30")
    await house.schedules.look()
    first = "failed" if isinstance(refusal, RuntimeError) else "skipped"
    assert await house.states(scope, schedule) == [first, "running"]
    [run] = [each for each in (await house.schedules.runs(scope, schedule.id))[0] if each.state == first]
    assert "Oops" not in run.note
    assert run.note


async def test_an_action_that_is_no_more_stops_its_schedules(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    later = Schedules(house.database, Options(), emitter=house.ear, clock=house.clock)
    house.clock.set("2026-06-02T02:30")
    await later.look()
    assert "no action 'work'" in str((await house.schedules.get(scope, schedule.id)).problem)


async def test_paused_ones_rest_and_make_nothing_up(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    paused = await house.schedules.change(scope, schedule.id, {"enabled": False})
    assert paused.next_at is None
    house.clock.set("2026-06-05T12:00")
    await house.schedules.look()
    await house.schedules.change(scope, schedule.id, {"enabled": True})
    await house.schedules.look()
    assert await house.states(scope, schedule) == []
    assert (await house.schedules.run_now(scope, schedule.id)).by_hand


async def test_changing_times_moves_the_next_run(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)
    moved = await house.schedules.change(scope, schedule.id, {"every": 600})
    assert (moved.cron, moved.every, moved.next_at.timestamp()) == (None, 600, NOON + 600)
    back = await house.schedules.change(scope, schedule.id, {"cron": "0 13 * * *"})
    assert (back.cron, back.every, back.next_at.timestamp()) == ("0 13 * * *", None, NOON + 3600)
    elsewhere = await house.schedules.change(scope, schedule.id, {"timezone": "UTC"})
    assert elsewhere.next_at.timestamp() == NOON + 3 * 3600
    with pytest.raises(Invalid):
        await house.schedules.change(scope, schedule.id, {"cron": "0 0 31 2 *"})


async def test_history_is_bounded(database: Database, scope: Scope) -> None:
    house = House(database, Clock(), keep_runs=3)
    schedule = await house.schedules.create(scope, name="often", action="work", payload={"of": "x"}, every=60)
    for _ in range(6):
        house.clock.at += 60
        await house.schedules.look()
    assert await house.states(scope, schedule) == ["running", *["skipped"] * 3]  # one that goes on is not forgotten
    items, following = await house.schedules.runs(scope, schedule.id, limit=3)
    rest, last = await house.schedules.runs(scope, schedule.id, limit=3, cursor=following)
    assert (len(items), len(rest), last) == (3, 1, None)


async def test_what_is_refused_at_the_door(house: House, scope: Scope, database: Database) -> None:
    await house.daily(scope)
    for given, error, said in [
        ({"name": "Nightly"}, Conflict, "already"),
        ({"name": " "}, Invalid, "1 to 200"),
        ({"name": "a\x00b"}, Invalid, "visible"),
        ({"name": "b", "payload": {}}, Invalid, "holds of and nothing else"),
        ({"name": "b", "payload": {"of": "x", "more": "y"}}, Invalid, "nothing else"),
        ({"name": "b", "payload": {"of": 1}}, Invalid, "holds of"),
        ({"name": "b", "payload": {"of": "x" * 501}}, Invalid, "holds of"),
    ]:
        with pytest.raises(error, match=said):
            await house.daily(scope, **given)
    with pytest.raises(Invalid, match="There are: work"):
        await house.schedules.create(scope, name="b", action="nothing", payload={}, every=60)
    with pytest.raises(Denied, match="the permission `operator`"):
        await house.schedules.create(scope, name="b", action="all", payload={}, every=60)
    few = House(database, house.clock, most=1)
    with pytest.raises(Invalid, match="at most 1"):
        await few.daily(scope, name="second")


async def test_what_concerns_everybody_is_for_operators(house: House, scope: Scope) -> None:
    made = await house.schedules.create(
        scope, name="all", action="all", payload={}, every=60, permissions=("operator",)
    )
    assert [each.name for each in house.schedules.actions(())] == ["work"]
    with pytest.raises(Denied):
        await house.schedules.change(scope, made.id, {"enabled": False})
    with pytest.raises(Denied):
        await house.schedules.run_now(scope, made.id)
    with pytest.raises(Denied):
        await house.schedules.remove(scope, made.id)
    await house.schedules.remove(scope, made.id, permissions=("operator",))


async def test_nobody_sees_anothers(house: House, scope: Scope, other: Scope) -> None:
    schedule = await house.daily(scope)
    await house.daily(other)  # a name is each tenant's own
    assert [each.id for each in (await house.schedules.list(scope))[0]] == [schedule.id]
    for refused in (
        house.schedules.get(other, schedule.id),
        house.schedules.change(other, schedule.id, {"enabled": False}),
        house.schedules.remove(other, schedule.id),
        house.schedules.run_now(other, schedule.id),
        house.schedules.runs(other, schedule.id),
    ):
        with pytest.raises(Missing):
            await refused


async def test_a_closed_tenant_rests(house: House, scope: Scope) -> None:
    schedule = await house.daily(scope)

    def close(session: Session) -> None:
        session.add(TenantRow(id=scope.tenant, name="Acme", name_key="acme", created_at=now(), disabled_at=now()))

    await house.database.write(close)
    house.clock.set("2026-06-02T02:30")
    await house.schedules.look()
    assert await house.states(scope, schedule) == ["skipped"]


async def test_a_built_in_one_is_made_once_and_stays_as_the_operator_left_it(database: Database) -> None:
    house = House(database, Clock())
    for _ in range(2):
        house = House(database, Clock())
        house.schedules.build_in(BuiltIn("For everybody", "all", 3600))
        await house.schedules.start()
        await house.schedules.close()
    [schedule] = (await house.schedules.list(Scope()))[0]
    assert (schedule.every, schedule.built_in, schedule.enabled) == (3600, True, True)
    for refused in (
        house.schedules.remove(Scope(), schedule.id, permissions=("operator",)),
        house.schedules.change(Scope(), schedule.id, {"name": "x"}, permissions=("operator",)),
    ):
        with pytest.raises(Conflict, match="built in"):
            await refused
    await house.schedules.change(Scope(), schedule.id, {"enabled": False, "cron": "@daily"}, permissions=("operator",))
    await house.schedules.start()
    await house.schedules.close()
    [schedule] = (await house.schedules.list(Scope()))[0]
    assert (schedule.cron, schedule.enabled) == ("0 0 * * *", False)


async def test_on_the_real_clock(database: Database, scope: Scope) -> None:
    """It sleeps until the next time is due, and wakes when one comes nearer."""
    house = House(database, now)
    await house.schedules.start()
    schedule = await house.schedules.create(scope, name="often", action="work", payload={"of": "x"}, every=60)

    def nearer(session: Session) -> None:
        session.execute(update(ScheduleRow).where(col(ScheduleRow.id) == schedule.id).values(next_at=now() + 0.2))

    await database.write(nearer)
    await house.schedules.change(scope, schedule.id, {"name": "oftener"})  # tells the runner
    async with asyncio.timeout(LOOK_SECONDS / 2):
        while not await house.states(scope, schedule):  # noqa: ASYNC110 its own doing
            await asyncio.sleep(0.05)
    [run] = (await house.schedules.runs(scope, schedule.id))[0]
    assert (run.state, run.started_at >= run.due_at) == ("running", True)
    await house.schedules.close()
    await house.jobs.close()


@pytest.mark.both
async def test_leaving(house: House, scope: Scope, other: Scope) -> None:
    mine = await house.daily(scope)
    theirs = await house.daily(other)
    nobodys = await house.daily(Scope())
    for each, whose in ((mine, scope), (theirs, other)):
        await house.schedules.run_now(whose, each.id)
    files = {
        path: b"".join([piece async for piece in pieces])
        async for path, pieces in leaving.export(house.database, scope)
    }
    [line] = files["schedules.jsonl"].splitlines()
    assert mine.id.encode() in line
    assert b"job_" in line
    await house.database.write(leaving.adopt, "usr_first")
    await house.database.write(leaving.erase_user, str(scope.user))

    def owners(session: Session) -> dict[str, str | None]:
        return dict(session.connection().exec_driver_sql("SELECT id, user_id FROM schedules").all())

    assert await house.database.read(owners) == {mine.id: None, theirs.id: other.user, nobodys.id: "usr_first"}
    await house.database.write(leaving.erase_tenant, scope)
    assert mine.id not in await house.database.read(owners)
    left = await house.database.read(lambda session: set(session.exec(select(RunRow.tenant_id))))
    assert left == {other.tenant}


async def test_what_another_process_changes_is_seen_soon(
    database: Database, elsewhere: Callable[[], Database], scope: Scope
) -> None:
    """Not only at the next look, which may be half a minute away."""
    theirs = elsewhere()
    house = House(database, now)
    schedule = await house.daily(scope)
    await house.schedules.start()

    def make_due(session: Session) -> None:
        session.execute(update(ScheduleRow).where(col(ScheduleRow.id) == schedule.id).values(next_at=now() - 1))

    await database.write(lambda session: None)  # from now on it hears of others
    await theirs.write(make_due)
    async with asyncio.timeout(20):
        while not await house.states(scope, schedule):  # noqa: ASYNC110 its own doing
            await asyncio.sleep(0.05)
    await house.schedules.close()
