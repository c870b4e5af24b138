"""Imports: looked at first, then a job; repeated, cut short, cancelled, too large: nobody is lost or there twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.campaigns.contacts.conftest import Room

from terrace.errors import Conflict, Invalid, Missing
from terrace.types import Scope

Make = Callable[..., Awaitable[Room]]
TABLE = b"email,name,city\nada@example.org,Ada,London\nalan@example.org,Alan,Wilmslow\nnobody,Eve,Rome\n"


def many(count: int) -> bytes:
    return b"email,number\n" + b"".join(b"p%05d@example.org,%d\n" % (number, number) for number in range(count))


async def left(room: Room, scope: Scope) -> tuple[int, int]:
    """(imports under way, files kept)."""
    until = time.monotonic() + 30
    while True:
        rows = await room.database.read(
            lambda session: session.connection().exec_driver_sql("SELECT count(*) FROM contact_imports").scalar_one()
        )
        files = [each.key async for each in room.blobs.list(f"{scope.tenant}/imports/")]
        if not (rows or files) or time.monotonic() > until:
            return rows, len(files)
        await asyncio.sleep(0.01)


async def test_a_dry_run_tells_everything_and_writes_nothing(room: Room, scope: Scope) -> None:
    examined = await room.examine(scope, TABLE)
    assert (examined.rows, examined.new, examined.changed, examined.unchanged, examined.invalid) == (3, 2, 0, 0, 1)
    assert examined.columns == ["email", "name", "city"]
    assert examined.mapping == {"email": "email", "name": "name", "city": "city"}
    assert examined.sample[0] == {"email": "ada@example.org", "name": "Ada", "city": "London"}
    assert [(each.line, "is not an e-mail address" in each.message) for each in examined.problems] == [(4, True)]
    assert await room.contacts.lists(scope) == []
    assert await room.keys(scope) == []
    assert await left(room, scope) == (0, 0)


@pytest.mark.both
async def test_an_import_brings_them_in_and_again_changes_what_changed(room: Room, scope: Scope, other: Scope) -> None:
    job = await room.bring(scope, TABLE)
    assert job.state == "succeeded", job.error
    assert job.result is not None
    told = {name: job.result[name] for name in ("rows", "new", "changed", "unchanged", "invalid")}
    assert told == {"rows": 3, "new": 2, "changed": 0, "unchanged": 0, "invalid": 1}
    assert job.result["problems"][0]["line"] == 4
    assert await room.keys(scope, "people") == ["ada@example.org", "alan@example.org"]
    assert await room.keys(other) == []

    again = b"email,city,plan\nADA@example.org,Paris,gold\nalan@example.org,Wilmslow,\ngrace@example.org,,\n"
    examined = await room.examine(scope, again)
    assert (examined.new, examined.changed, examined.unchanged) == (1, 1, 1)
    job = await room.bring(scope, again, "Others")
    assert job.result is not None
    assert (job.result["new"], job.result["changed"], job.result["unchanged"]) == (1, 1, 1)
    found, _ = await room.contacts.list(scope, q="ada@")
    assert (found[0].name, found[0].fields) == ("Ada", {"city": "Paris", "plan": "gold"})
    assert len(found[0].list_ids) == 2
    assert await room.keys(scope, "Others") == ["ada@example.org", "alan@example.org", "grace@example.org"]
    assert (await room.examine(scope, again)).unchanged == 3
    assert await left(room, scope) == (0, 0)


async def test_an_empty_cell_empties_and_a_column_that_is_not_there_does_not(room: Room, scope: Scope) -> None:
    await room.bring(scope, b"email,name,city\nada@example.org,Ada,London\n")
    await room.bring(scope, b"email,city\nada@example.org,\n")
    found, _ = await room.contacts.list(scope)
    assert (found[0].name, found[0].fields) == ("Ada", {})


async def test_rows_of_one_person_in_one_table(room: Room, scope: Scope) -> None:
    job = await room.bring(scope, b"email,city\na@example.org,Rome\nA@example.org,Oslo\n")
    assert job.result is not None
    assert (job.result["new"], job.result["repeated"]) == (1, 1)
    found, _ = await room.contacts.list(scope)
    assert found[0].fields == {"city": "Oslo"}


async def test_an_import_that_was_cut_short_goes_on_where_it_was(make: Make, scope: Scope) -> None:
    """As after a crash: another attempt has the same row, and counts go on."""
    room = await make(work=False)
    job_id = await room.start(scope, many(1200))
    job = await room.jobs.get(scope, job_id)
    stopper = Attempt(room, scope, job.payload, stop_after=2)
    with pytest.raises(ConnectionError):
        await room.files.run(stopper)
    assert len(await room.keys(scope)) == 200  # a page of them: 1,000 are in
    done = await room.files.run(Attempt(room, scope, job.payload))
    assert {name: done.result[name] for name in ("rows", "new", "unchanged")} == {
        "rows": 1200,
        "new": 1200,
        "unchanged": 0,
    }
    assert done.commit is not None
    await room.database.write(done.commit)
    with pytest.raises(Missing):
        await room.files.run(Attempt(room, scope, job.payload))


class Attempt:
    """A job's context that loses its database after a few writes."""

    job_id, attempt = "job_x", 1

    def __init__(self, room: Room, scope: Scope, payload: dict[str, Any], stop_after: int = 10_000) -> None:
        self.scope, self.payload, self._room, self._left = scope, payload, room, stop_after
        self.told: list[str] = []

    def emit(self, type: str, data: dict[str, Any]) -> None: ...

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.told.append(note)

    async def write(self, work: Callable[[Any], Any]) -> Any:
        if not self._left:
            raise ConnectionError("gone")
        self._left -= 1
        return await self._room.database.write(work)

    async def children(self, kind: str, payloads: list[dict[str, Any]]) -> list[str]:
        raise AssertionError("an import has no children")


async def test_progress_says_who_is_in(make: Make, scope: Scope) -> None:
    room = await make(work=False)
    job = await room.jobs.get(scope, await room.start(scope, many(700)))
    attempt = Attempt(room, scope, job.payload)
    await room.files.run(attempt)
    assert attempt.told[-1] == "700 of 700 contacts are in"


async def test_a_file_that_cannot_be_read_fails_the_job_with_the_reason(room: Room, scope: Scope) -> None:
    job = await room.bring(scope, b"name,name\nAda,Ada\n")
    assert (job.state, job.dead) == ("failed", True)
    assert job.error is not None
    assert job.error.code == "duplicate_heading"
    assert await left(room, scope) == (0, 0)
    with pytest.raises(Conflict, match="Import it again"):
        await room.jobs.retry(scope, job.id)


async def test_a_cancelled_import_keeps_what_is_in_and_leaves_no_file(make: Make, scope: Scope) -> None:
    room = await make(work=False)
    job_id = await room.start(scope, many(3))
    job = await room.jobs.cancel(scope, job_id)
    assert job.state == "cancelled"
    assert await left(room, scope) == (0, 0)


async def test_there_is_room_for_so_many(make: Make, scope: Scope) -> None:
    room = await make(max_contacts=700)
    job = await room.bring(scope, many(1000))
    assert job.error is not None
    assert job.error.code == "too_many_contacts"
    assert job.progress is not None
    assert job.progress.note == "500 of 1,000 contacts are in"


async def test_a_list_deleted_meanwhile_ends_the_import(make: Make, scope: Scope) -> None:
    room = await make(work=False)
    job_id = await room.start(scope, many(3))
    [made] = await room.contacts.lists(scope)
    await room.contacts.remove_list(scope, made.id)
    await room.jobs.start()
    job = await room.jobs.wait(scope, job_id, 20)
    assert job.error is not None
    assert job.error.code == "list_missing"
    assert await room.keys(scope) == []


async def test_another_tenants_list_is_none(room: Room, scope: Scope, other: Scope) -> None:
    await room.bring(scope, TABLE)
    [made] = await room.contacts.lists(scope)
    with pytest.raises(Missing):
        await room.start(other, TABLE, made.id)
    assert await left(room, other) == (0, 0)


async def test_the_same_table_in_two_tenants(room: Room, scope: Scope, other: Scope) -> None:
    first, second = await asyncio.gather(room.bring(scope, many(600)), room.bring(other, many(600)))
    assert first.result is not None
    assert second.result is not None
    assert (first.result["new"], second.result["new"]) == (600, 600)


async def test_lists_have_names(room: Room, scope: Scope) -> None:
    for name in ("", " ", "x" * 101):
        with pytest.raises(Invalid):
            await room.start(scope, TABLE, name)
    assert await left(room, scope) == (0, 0)


async def test_erasing_a_tenant_takes_the_files_of_its_imports(make: Make, scope: Scope) -> None:
    room = await make(work=False)
    await room.start(scope, many(3))
    await room.database.write(room.leaving.erase_tenant, scope)
    assert await left(room, scope) == (0, 0)
    assert await room.contacts.lists(scope) == []


async def test_what_a_crash_broke_off_is_tidied_away(make: Make, scope: Scope) -> None:
    room = await make(work=False)
    await room.start(scope, many(3))
    await room.blobs.put(f"{scope.tenant}/imports/imp_broken", b"email")
    await room.blobs.put(f"{scope.tenant}/documents/doc_1", b"another room's")
    assert await room.files.tidy() == 0
    assert await room.files.tidy(stale=-1) == 1
    assert len([each async for each in room.blobs.list()]) == 2
