"""From a file of requests to files of answers, whatever happens on the way."""

import asyncio
import json
from typing import Any

import pytest
from sqlmodel import Session, select
from tests.batches.conftest import CHAT, Room, answer

from terrace.accounts.tables import KeyRow, MembershipRow, TenantRow, UserRow
from terrace.batches import leaving
from terrace.batches.base import Answer
from terrace.batches.lines import MAX_LINE_BYTES, check
from terrace.batches.tables import BatchFileRow, BatchLineRow, BatchRow
from terrace.errors import Conflict, Limited, Missing, Unavailable
from terrace.storage.blobs import MemoryBlobs
from terrace.types import Scope

TEXTS = [f"text {n}" for n in range(20)]


async def everything(room: Room, batch: Any) -> list[dict[str, Any]]:
    files = [each for each in (batch.output_file_id, batch.error_file_id) if each]
    return [record for each in files for record in await room.read(each)]


@pytest.mark.both
async def test_answers_come_in_the_order_of_the_requests_and_leave_no_rows(room: Room) -> None:
    async def script(scope: Scope, text: str) -> Answer:
        await asyncio.sleep(0.01 * (len(text) % 2))
        return answer(text, 400 if text.endswith("7") else 200)

    room.script = script
    batch, job = await room.over(await room.begin(*TEXTS))
    assert (batch.status, job.state) == ("completed", "succeeded")
    assert (batch.total, batch.completed, batch.failed, batch.usage.input_tokens) == (20, 18, 2, 36)
    answers = await room.read(batch.output_file_id)
    assert [each["custom_id"] for each in answers] == [f"id-{n}" for n in range(20) if n % 10 != 7]
    assert answers[3]["response"]["body"]["text"] == "text 3"
    assert [each["custom_id"] for each in await room.read(batch.error_file_id)] == ["id-7", "id-17"]
    assert await room.database.read(lambda session: session.exec(select(BatchLineRow)).all()) == []
    assert {scope.tenant for scope in room.scopes} == {"acme"}
    assert {scope.job for scope in room.scopes} == {None}  # who asks now comes first
    assert room.told.events == [
        (
            "batch.finished",
            {
                "id": batch.id,
                "status": "completed",
                "endpoint": CHAT,
                "request_counts": {"total": 20, "completed": 18, "failed": 2},
                "output_file_id": batch.output_file_id,
                "error_file_id": batch.error_file_id,
            },
        )
    ]


async def test_no_more_at_a_time_than_the_settings_say(room: Room) -> None:
    open_ = most = 0
    full = asyncio.Event()

    async def script(scope: Scope, text: str) -> Answer:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        if open_ == 4:
            full.set()
        await full.wait()
        await asyncio.sleep(0.001)
        open_ -= 1
        return answer(text)

    room.script = script
    await room.over(await room.begin(*TEXTS))
    assert most == 4


async def test_after_a_restart_no_answer_is_asked_for_again(room: Room) -> None:
    hold = asyncio.Event()

    async def script(scope: Scope, text: str) -> Answer:
        if len(room.asked) > 8:
            await hold.wait()
        return answer(text)

    room.script = script
    begun = await room.begin(*TEXTS)
    await room.until(lambda: len(room.asked) == 12)
    async with asyncio.timeout(20):
        while (await room.batches.get(room.scope, begun.id)).completed < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await room.restart()
    hold.set()
    batch, _ = await room.over(begun)
    assert (batch.status, batch.completed) == ("completed", 20)
    assert sorted(each["custom_id"] for each in await everything(room, batch)) == sorted(f"id-{n}" for n in range(20))
    assert len(room.asked) == 24  # the four that were under way, again
    assert all(room.asked.count(text) == 1 for text in TEXTS[:8])


async def test_a_passing_failure_is_tried_again_a_lasting_one_is_told(room: Room) -> None:
    async def script(scope: Scope, text: str) -> Answer:
        tries = room.asked.count(text)
        return answer(text, 503 if text == "never" or (text == "late" and tries < 3) else 200)

    room.script = script
    batch, _ = await room.over(await room.begin("late", "never"))
    assert (batch.completed, batch.failed) == (1, 1)
    assert (room.asked.count("late"), room.asked.count("never")) == (3, 5)
    assert (await room.read(batch.error_file_id))[0]["response"]["status_code"] == 503


async def test_room_under_the_limits_is_waited_for(room: Room) -> None:
    async def script(scope: Scope, text: str) -> Answer:
        if room.asked.count(text) < 3:
            raise Limited("Full.", retry_after=0.001)
        return answer(text)

    room.script = script
    batch, _ = await room.over(await room.begin(*TEXTS))
    assert (batch.completed, batch.failed) == (20, 0)


async def test_when_its_window_closes_a_batch_ends_with_what_there_is(room: Room) -> None:
    async def script(scope: Scope, text: str) -> Answer:
        if len(room.asked) > 8:
            room.moved = 3700.0
            raise Limited("Full until tomorrow.", retry_after=86_400)
        return answer(text)

    room.script = script
    batch, _ = await room.over(await room.begin(*TEXTS, completion_window="1h"))
    assert (batch.status, batch.total, batch.completed, batch.failed) == ("expired", 20, 8, 12)
    errors = await room.read(batch.error_file_id)
    assert {each["error"]["code"] for each in errors} == {"batch_expired"}
    assert all(each["response"] is None for each in errors)
    records = await everything(room, batch)
    assert sorted(each["custom_id"] for each in records) == sorted(f"id-{n}" for n in range(20))
    assert room.told.events[-1][1]["status"] == "expired"


async def test_cancelled_before_it_began(room: Room) -> None:
    await room.jobs.close()
    begun = await room.begin(*TEXTS)
    assert (await room.batches.cancel(room.scope, begun.id)).status == "cancelling"
    await room.open()
    batch, _ = await room.over(begun)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("cancelled", None, None)
    assert room.asked == []
    with pytest.raises(Conflict):
        await room.batches.cancel(room.scope, begun.id)


@pytest.mark.parametrize("how", ["disabled", "left", "revoked"])
async def test_it_stops_for_who_is_shut_out(room: Room, how: str) -> None:
    def people(session: Session) -> None:
        session.add(TenantRow(id="acme", name="acme", name_key="acme", models=[], created_at=1.0))
        session.add(UserRow(id="usr_ada", name="Ada", email="a@x", email_key="a@x", created_at=1.0))
        session.flush()
        session.add(MembershipRow(tenant_id="acme", user_id="usr_ada", role="member", created_at=1.0))
        session.add(KeyRow(id="key_ada", tenant_id="acme", name="k", secret_hash="", hint="", created_at=1.0))

    def shut_out(session: Session) -> None:
        if how == "left":
            session.delete(session.get(MembershipRow, ("acme", "usr_ada")))
        elif how == "disabled" and (person := session.get(UserRow, "usr_ada")) is not None:
            person.disabled_at = 2.0
        elif how == "revoked" and (key := session.get(KeyRow, "key_ada")) is not None:
            key.revoked_at = 2.0

    room.scope = Scope("acme", "usr_ada", "key_ada")
    await room.database.write(people)
    assert (await room.over(await room.begin("text 1")))[0].status == "completed"

    async def script(scope: Scope, text: str) -> Answer:
        if len(room.asked) == 5:
            await room.database.write(shut_out)
        elif len(room.asked) > 5:
            raise Limited("Full.", retry_after=60)  # and waits until the batch is stopped
        return answer(text)

    room.script = script
    batch, _ = await room.over(await room.begin(*[f"text {n}" for n in range(40)]))
    assert batch.status == "cancelled"
    assert len(room.asked) < 30
    asked = len(room.asked)
    batch, _ = await room.over(await room.begin("text 2"))  # one that was queued before
    assert (batch.status, len(room.asked)) == ("cancelled", asked)


async def test_a_job_that_fails_says_so_and_can_go_on_later(room: Room) -> None:
    broken = True

    async def script(scope: Scope, text: str) -> Answer:
        if broken and text == "text 9":
            raise Unavailable("The disk is full.", code="disk_full")
        return answer(text)

    room.script = script
    batch, job = await room.over(await room.begin(*TEXTS))
    assert (batch.status, job.state) == ("failed", "failed")
    assert batch.errors[0].code == "disk_full"
    assert [data["status"] for _, data in room.told.events] == ["failed"]
    broken = False
    await room.jobs.retry(room.scope, job.id)
    batch, _ = await room.over(batch)
    assert (batch.status, batch.completed, batch.errors) == ("completed", 20, ())
    assert len(await room.read(batch.output_file_id)) == 20
    with pytest.raises(Conflict):
        await room.jobs.retry(room.scope, job.id)


async def test_what_others_have_is_not_there(room: Room, other: Scope) -> None:
    batch, _ = await room.over(await room.begin("x"))
    colleague = Scope(room.scope.tenant, "usr_eve")
    for scope in (other, colleague):
        with pytest.raises(Missing):
            await room.batches.get(scope, batch.id)
        with pytest.raises(Missing):
            await room.files.get(scope, batch.input_file_id)
        assert await room.batches.list(scope) == ([], False)
        assert await room.files.list(scope) == ([], False)


async def test_too_many_lines_and_too_long_ones(room: Room) -> None:
    batch, _ = await room.over(await room.begin(*map(str, range(51))))
    assert [(each.code, each.line) for each in batch.errors] == [("too_many_requests", 51)]
    blobs = MemoryBlobs()
    await blobs.put("a/files/b", b"\n" + b"x" * (MAX_LINE_BYTES + 300_000))
    checked = await check(blobs, "a/files/b", CHAT, 10)
    assert [(each.code, each.line) for each in checked.errors] == [("line_too_long", 2)]


async def test_lines_may_begin_with_a_mark_and_end_as_windows_does(room: Room) -> None:
    request = json.dumps({"custom_id": "é", "method": "POST", "url": CHAT, "body": {"text": "x"}}, ensure_ascii=False)
    batch, _ = await room.over(await room.begin_with(b"\xef\xbb\xbf" + request.encode() + b"\r\n\r\n", room.scope))
    assert [each["custom_id"] for each in await room.read(batch.output_file_id)] == ["é"]


async def test_expired_files_and_halves_of_uploads_go(room: Room) -> None:
    batch, _ = await room.over(await room.begin("x"))

    def expire(session: Session) -> None:
        row = session.exec(select(BatchFileRow).where(BatchFileRow.id == batch.input_file_id)).one()
        row.expires_at = 1.0

    await room.database.write(expire)
    with pytest.raises(Missing):
        await room.files.get(room.scope, batch.input_file_id)
    await room.blobs.put("acme/files/half", b"x")
    room.blobs._blobs["acme/files/half"] = (b"x", 1.0)
    await room.blobs.put("acme/documents/doc_1/original", b"x")
    await room.files.tidy()
    kept = [blob.key async for blob in room.blobs.list()]
    assert kept == ["acme/documents/doc_1/original", f"acme/files/{batch.output_file_id}"]


async def test_leaving(room: Room, other: Scope) -> None:
    batch, _ = await room.over(await room.begin("mine"))
    nobody = Scope("default")
    await room.begin("nobody's", scope=nobody)
    await room.database.write(leaving.adopt, "usr_first")
    assert len((await room.files.list(Scope("default", "usr_first")))[0]) >= 1
    exported = {
        path: b"".join([piece async for piece in pieces])
        async for path, pieces in leaving.Leaving(room.database, room.blobs).export(room.scope)
    }
    assert {"batches/files.jsonl", "batches/batches.jsonl"} < set(exported)
    assert batch.id.encode() in exported["batches/batches.jsonl"]
    assert any(path.endswith("in.jsonl") and b"mine" in content for path, content in exported.items())
    await room.database.write(leaving.erase_user, room.scope.user)
    await room.database.write(leaving.erase_tenant, nobody)
    for table in (BatchRow, BatchFileRow, BatchLineRow):
        assert await room.database.read(lambda session, table=table: session.exec(select(table)).all()) == []
