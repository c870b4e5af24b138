"""Events reach their receivers, however these behave."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from tests.models.transport_server import Peer, plain
from tests.outbound.certificates import self_signed, serving_with
from tests.webhooks.conftest import Room, Rooms, caller, eventually
from tests.webhooks.receiver import OK, Received, hang, leave, receiving

from terrace import settings
from terrace.storage import Database
from terrace.types import Scope
from terrace.webhooks.base import Delivery
from terrace.webhooks.courier import AT_ONCE
from terrace.webhooks.outbox import DELIVER
from terrace.webhooks.verdicts import BACKOFF, Tried, asked_wait, next_try

FAILED = plain(b"no", b"500 Internal Server Error")


async def test_an_event_arrives_signed(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, secret = await room.add(scope, receiver.url, events=["document.*"])
        await room.emit(scope, "document.ready", id="doc_1", name="a.pdf")
        await room.emit(scope, "analysis.failed", id="ana_1")  # which it does not want
        delivery = await room.settled(scope, endpoint)
    [received] = receiver.received
    assert received.signed_by(secret)
    assert received.json["type"] == "document.ready"
    assert received.json["data"] == {"id": "doc_1", "name": "a.pdf"}
    assert datetime.fromisoformat(received.json["timestamp"]).tzinfo is not None
    assert abs(int(received.headers["webhook-timestamp"]) - time.time()) < 10
    assert received.headers["content-type"] == "application/json"
    assert (delivery.state, delivery.attempts, delivery.status, delivery.event_id) == (
        "delivered", 1, 200, received.id,
    )  # fmt: skip
    detail = await room.last(scope, endpoint)
    assert (detail.body, detail.answer) == (received.json, "thanks")
    assert len(await room.log(scope, endpoint)) == 1


async def test_an_event_is_told_with_the_transaction_or_not_at_all(room: Room, scope: Scope) -> None:
    def fail(session: Any) -> None:
        room.webhooks.emit(session, scope, "document.ready", {"id": "doc_1"})
        raise ZeroDivisionError

    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        with pytest.raises(ZeroDivisionError):
            await room.database.write(fail)
        assert await room.log(scope, endpoint) == []
        await room.emit(scope, "document.failed", id="doc_2")
        await room.settled(scope, endpoint)
    assert [each.json["type"] for each in receiver.received] == ["document.failed"]


async def test_it_is_tried_again_with_the_same_id(room: Room, scope: Scope) -> None:
    async with receiving(FAILED, leave, OK) as receiver:
        endpoint, secret = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint, tries=3)
        detail = await room.last(scope, endpoint)
    assert len(set(receiver.ids)) == 1
    assert len(receiver.received) == 3
    assert all(each.signed_by(secret) for each in receiver.received)
    assert (delivery.state, delivery.attempts, delivery.error) == ("delivered", 3, None)
    assert [each.status for each in detail.tries] == [500, None, 200]
    assert "closed the connection" in str(detail.tries[1].error)
    assert (await room.endpoints.get(scope, endpoint)).failing_since is None


MISBEHAVIOUR: list[tuple[Any, int | None, str]] = [
    (FAILED, 500, "answered 500"),
    (plain(b"", b"404 Not Found"), 404, "answered 404"),
    (leave, None, "closed the connection"),
    (hang, None, "did not answer within"),
    (b"SSH-2.0-x\r\n\r\n", None, "not HTTP"),
    (plain(b"", b"302 Found", b"Location: http://10.0.0.1/in?token=secret"), 302, "redirects to http://10.0.0.1/in ("),
    (plain(b"", b"307 Moved", b"Location: http://u:secret@x/"), 307, "redirects ("),
    (plain(b"", b"301 Moved"), 301, "redirects ("),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", None, "breaks off"),
]


@pytest.mark.parametrize(("behaviour", "status", "sentence"), MISBEHAVIOUR)
async def test_every_misbehaviour_is_told(
    rooms: Rooms, scope: Scope, behaviour: Any, status: int | None, sentence: str
) -> None:
    room = await rooms.open(timeout=1 if behaviour is hang else 10, backoff=(60,))
    async with receiving(behaviour) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
        assert (delivery.state, delivery.status, delivery.attempts) == ("queued", status, 1)
        assert sentence in str(delivery.error)
        assert "secret" not in str(delivery.error)
        assert delivery.next_at is not None
        assert (await room.endpoints.get(scope, endpoint)).failing_since is not None
        assert len(receiver.received) == 1


async def test_a_receiver_that_drips_is_left(rooms: Rooms, scope: Scope) -> None:
    async def drip(peer: Peer, received: Received) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await peer.write(b".")
            await asyncio.sleep(0.02)

    room = await rooms.open(timeout=0.3, backoff=(60,))
    async with receiving(drip) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
    assert "within 0.3 seconds" in str(delivery.error)


async def test_of_a_huge_answer_the_beginning_is_kept(room: Room, scope: Scope) -> None:
    async def huge(peer: Peer, received: Received) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\nbegin\0\xff")
        for _ in range(1000):
            await peer.write(b"x" * 10_000)

    async with receiving(huge) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        assert (await room.settled(scope, endpoint)).state == "delivered"
    answer = (await room.last(scope, endpoint)).answer
    assert answer is not None
    assert len(answer) == 2048
    assert answer.startswith("begin\ufffd\ufffd")


async def test_a_bad_certificate_is_told(room: Room, scope: Scope, tmp_path: Path) -> None:
    async with receiving(context=serving_with(self_signed(tmp_path / "both.pem"))) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
    assert "cannot be trusted" in str(delivery.error)
    assert receiver.received == []


async def test_gone_switches_the_endpoint_off(room: Room, scope: Scope) -> None:
    async with receiving(plain(b"", b"410 Gone"), OK) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
        assert (delivery.state, delivery.attempts) == ("dead", 1)
        told = await eventually(lambda: off(room, scope, endpoint))
        assert "410" in told.disabled_reason
        await room.emit(scope)
        assert len(await room.log(scope, endpoint)) == 1  # nothing new is put in
        await room.endpoints.change(caller(scope), endpoint, enabled=True)
        await room.emit(scope)
        assert (await room.settled(scope, endpoint)).state == "delivered"
        assert (await room.endpoints.get(scope, endpoint)).disabled_reason is None


async def off(room: Room, scope: Scope, endpoint: str) -> Any:
    told = await room.endpoints.get(scope, endpoint)
    return None if told.enabled else told


async def test_five_days_of_nothing_but_failures_switch_it_off(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(backoff=(600,))
    async with receiving(FAILED) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        for day in range(6):
            assert (await room.endpoints.get(scope, endpoint)).enabled
            room.clock.ahead = day * 86_400.0 + 60
            await room.emit(scope)
            await room.settled(scope, endpoint)
        told = await eventually(lambda: off(room, scope, endpoint))
    assert "five days" in told.disabled_reason
    assert "answered 500" in told.disabled_reason


async def test_one_success_ends_a_row_of_failures(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(backoff=(600,))
    async with receiving(FAILED, FAILED, OK, FAILED, FAILED) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        for day in (0, 4, 4.5, 5, 7):
            room.clock.ahead = day * 86_400.0
            await room.emit(scope)
            await room.settled(scope, endpoint)
        assert (await room.endpoints.get(scope, endpoint)).enabled


async def test_after_its_time_it_is_a_dead_letter_and_can_be_sent_again(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(retry_hours=0.3 / 3600, backoff=(0.1, 0.1, 1000))
    async with receiving(FAILED, FAILED, FAILED, OK) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        dead = await eventually(lambda: ended(room, scope, endpoint))
        assert (dead.state, dead.next_at) == ("dead", None)
        before = dead.attempts
        await room.endpoints.redeliver(caller(scope), endpoint, dead.id)
        again = await eventually(lambda: ended(room, scope, endpoint))
        while again.state != "delivered":
            await room.endpoints.redeliver(caller(scope), endpoint, dead.id)
            again = await eventually(lambda: ended(room, scope, endpoint))
    assert again.id == dead.id
    assert again.attempts > before
    assert set(receiver.ids) == {dead.event_id}


async def ended(room: Room, scope: Scope, endpoint: str) -> Delivery | None:
    [delivery] = await room.log(scope, endpoint)
    return delivery if delivery.finished_at is not None else None


async def test_what_waits_for_an_endpoint_that_is_off_goes_out_when_it_is_on(rooms: Rooms, scope: Scope) -> None:
    """It is switched off while the receiver ponders: no courier is on its way for the next attempt."""
    ponders, answers = asyncio.Event(), asyncio.Event()

    async def ponder(peer: Peer, received: Received) -> None:
        ponders.set()
        await answers.wait()
        await peer.write(FAILED)

    room = await rooms.open(backoff=(30, 600))
    async with receiving(ponder, OK) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        await ponders.wait()
        await room.endpoints.change(caller(scope), endpoint, enabled=False)
        answers.set()
        await room.settled(scope, endpoint)
        await room.emit(scope)
        [delivery] = await room.log(scope, endpoint)  # nothing new is put in
        assert (delivery.state, delivery.next_at) == ("queued", None)
        room.clock.ahead = 60
        await room.endpoints.change(caller(scope), endpoint, enabled=True)
        assert (await room.settled(scope, endpoint, tries=2)).state == "delivered"


async def test_retry_after_is_honoured(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(backoff=(0.01,))
    async with receiving(plain(b"", b"503 Busy", b"Retry-After: 7200")) as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
        assert delivery.next_at is not None
        assert delivery.next_at - delivery.created_at >= timedelta(seconds=7200)
        assert len(receiver.received) == 1


def test_retry_after_is_a_number_or_a_date() -> None:
    at = time.time()
    assert asked_wait("120", at) == 120
    later = asked_wait(format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True), at)
    assert 290 < later < 310
    for nonsense in ("", "soon", "-5", "²", "Thu, 99 Foo 2026", "9" * 400):
        assert asked_wait(nonsense, at) >= 0


def test_a_day_of_retries() -> None:
    """The waits grow, and the last attempt is made within the day."""
    at, failures, until = 0.0, 0, 86_400.0
    while (following := next_try(Tried("dlv", at, 0.0), failures + 1, until)) is not None:
        assert following > at
        at, failures = following, failures + 1
    assert 9 <= failures + 1 <= 13
    assert at > until / 2
    assert list(BACKOFF) == sorted(BACKOFF)


async def test_a_receiver_that_hangs_holds_up_nobody(rooms: Rooms, scope: Scope, other: Scope) -> None:
    """It takes one job's place, a few connections, and nothing of its neighbours."""
    room = await rooms.open(timeout=30)
    async with receiving(hang) as hanging, receiving() as good:
        stuck, _ = await room.add(scope, hanging.url)
        mine, _ = await room.add(scope, good.url, events=["document.failed"])
        theirs, _ = await room.add(other, good.url)
        for _ in range(50):
            await room.emit(scope, "document.ready")
        await eventually(lambda: full(hanging.received))
        await room.emit(scope, "document.failed")
        await room.emit(other, "document.ready")
        assert (await room.settled(scope, mine)).state == "delivered"
        assert (await room.settled(other, theirs)).state == "delivered"
        assert len(hanging.received) == AT_ONCE
        assert all(each.attempts == 0 for each in await room.log(scope, stuck))
        jobs, _ = await room.jobs.list(scope, kind=DELIVER, state="running", everyone=True)
        assert [each.payload["lane"] for each in jobs].count(stuck) == 1


async def test_who_stops_leaves_the_rest_to_who_comes_next(rooms: Rooms, scope: Scope) -> None:
    stopping = asyncio.Event()

    async def slow(peer: Peer, received: Received) -> None:
        await stopping.wait()
        await peer.write(OK)

    first = await rooms.open(timeout=20)
    async with receiving(slow) as receiver:
        endpoint, _ = await first.add(scope, receiver.url)
        await asyncio.gather(*(first.emit(scope) for _ in range(100)))
        await eventually(lambda: full(receiver.received))
        begun = time.monotonic()
        first.webhooks.drain()
        stopping.set()
        await first.jobs.drain()
        assert time.monotonic() - begun < first.jobs.settings.drain  # it ended by itself
        log = await first.log(scope, endpoint)
        assert sum(each.attempts for each in log) == len(receiver.received) == AT_ONCE  # nothing was cut off
        second = await rooms.open()

        async def arrived() -> bool:
            return len(await second.log_in(scope, endpoint, "delivered")) == 100

        await eventually(arrived)
    assert len(receiver.received) == len(set(receiver.ids)) == 100


async def full(received: list[Received]) -> bool:
    return len(received) >= AT_ONCE


@pytest.mark.both
async def test_many_events_need_few_jobs(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await asyncio.gather(*(room.emit(scope, "document.ready", number=each) for each in range(150)))

        async def all_there() -> bool:
            return all(each.state == "delivered" for each in await room.log(scope, endpoint))

        await eventually(all_there)
    assert sorted(each.json["data"]["number"] for each in receiver.received) == list(range(150))
    assert len(set(receiver.ids)) == 150
    jobs, _ = await room.jobs.list(scope, kind=DELIVER, everyone=True)
    assert len(jobs) <= 5


async def test_where_nobody_listens_nothing_is_read_or_written(room: Room, scope: Scope) -> None:
    await room.emit(scope)

    def twice(session: Any) -> int:
        statements: list[str] = []
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        for _ in range(2):
            room.webhooks.emit(session, scope, "document.ready", {"id": "doc_1"})
            assert not room.webhooks.wants_job(session, scope, "chat.answer")
        return len(statements)

    assert await room.database.write(twice) == 0


async def test_an_endpoint_made_by_another_process_is_heard_of(
    room: Room, scope: Scope, elsewhere: Callable[[], Database]
) -> None:
    theirs = Room(elsewhere(), settings.Webhooks())
    room.webhooks.start()
    await room.emit(scope)  # remembers that there is none
    async with receiving() as receiver:
        endpoint, _ = await theirs.add(scope, receiver.url)

        async def told() -> bool:
            await room.emit(scope)
            return bool(await room.log(scope, endpoint))

        await eventually(told)
    room.webhooks.close()
    await theirs.close()


async def test_too_much_is_cut_down_to_what_is_short(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope, "document.ready", id="doc_1", text="x" * 20_000)
        await room.settled(scope, endpoint)
    assert receiver.received[0].json["data"] == {"id": "doc_1", "abridged": True}


async def test_a_one_off_address_is_signed_with_the_tenants_secret(room: Room, scope: Scope, other: Scope) -> None:
    async with receiving() as receiver:
        await room.database.write(
            room.webhooks.send_to, scope, receiver.url + "?a=b", "analysis.succeeded", {"id": "a"}
        )
        await room.database.write(room.webhooks.send_to, other, receiver.url, "analysis.succeeded", {"id": "b"})

        async def both() -> bool:
            return len(receiver.received) == 2

        await eventually(both)
        secrets = [await room.endpoints.signing_secret(each) for each in (scope, other)]
        by_id = {each.json["data"]["id"]: each for each in receiver.received}
    assert secrets[0] != secrets[1]
    assert by_id["a"].signed_by(secrets[0])
    assert by_id["b"].signed_by(secrets[1])


async def test_a_one_off_address_inside_is_refused(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(retry_hours=0.0001, backoff=(600,))
    await room.database.write(room.webhooks.send_to, scope, "http://10.0.0.1/x", "analysis.failed", {"id": "a"})

    async def state() -> Any:
        return await room.database.read(lambda session: log_of(session))

    found = await eventually(state)
    assert "public internet" in found


def log_of(session: Any) -> str:
    return str(session.execute(text("SELECT tries FROM webhook_deliveries WHERE attempts > 0")).scalar() or "")


async def test_a_secret_that_cannot_be_read_is_told(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(backoff=(600,))
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.database.write(lambda session: session.execute(text("UPDATE webhook_endpoints SET secret = 'AAAA'")))
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
        assert "sealed with another secret" in str(delivery.error)
        assert receiver.received == []
        _, secret = await room.endpoints.rotate(caller(scope), endpoint)
        await room.endpoints.redeliver(caller(scope), endpoint, delivery.id)
        assert (await room.settled(scope, endpoint, tries=2)).state == "delivered"
        assert receiver.received[0].signed_by(secret)
