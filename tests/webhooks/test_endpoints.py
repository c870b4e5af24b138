"""Endpoints as an administrator has them: made, changed, given a new secret, looked into; each tenant's its own."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlmodel import Session
from tests.webhooks.conftest import Room, Rooms, caller, eventually
from tests.webhooks.receiver import receiving

from terrace.accounts.audit import Audit
from terrace.errors import Conflict, Invalid, Missing, TerraceError
from terrace.jobs.base import Context, JobKind
from terrace.types import Scope
from terrace.webhooks import leaving
from terrace.webhooks.events import EVENTS, FAMILIES, filters_of, wants


async def test_a_secret_is_shown_once_and_kept_sealed(room: Room, scope: Scope) -> None:
    endpoint, secret = await room.endpoints.create(
        caller(scope),
        url="https://Example.org/hook?token=hidden",
        events=["job.failed", "document.*"],
        description=" a  b",
    )
    assert (endpoint.url, endpoint.events, endpoint.description, endpoint.enabled) == (
        "https://example.org/hook?token=hidden", ("document.*", "job.failed"), "a b", True,
    )  # fmt: skip
    assert await room.endpoints.get(scope, endpoint.id) == endpoint
    assert "whsec_" not in repr(endpoint)
    kept = await room.database.read(
        lambda session: session.execute(text("SELECT secret FROM webhook_endpoints")).scalar()
    )
    assert secret.startswith("whsec_")
    assert secret not in kept
    [line], _ = await Audit(room.database).list(scope, action="webhook")
    assert (line.action, line.subject, line.detail["at"]) == ("webhook.created", endpoint.id, "https://example.org:443")
    assert "hidden" not in repr(line)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"url": "http://10.0.0.1/"}, "private_target"),
        ({"url": "http://0x7f.2/"}, "private_target"),
        ({"url": "http://[::1]/"}, "private_target"),
        ({"url": "http://169.254.169.254/latest"}, "private_target"),
        ({"url": "ftp://example.org/"}, "bad_url"),
        ({"url": "https://u:p@example.org/"}, "bad_url"),
        ({"url": "https://example.org/", "events": ["document.eaten"]}, "unknown_event"),
        ({"url": "https://example.org/", "description": "x" * 201}, "bad_text"),
    ],
)
async def test_what_is_wrong_is_told(rooms: Rooms, scope: Scope, given: dict[str, Any], code: str) -> None:
    room = await rooms.open()
    good, _ = await room.add(scope, "https://example.org/")
    with pytest.raises(Invalid) as told:
        await room.endpoints.create(caller(scope), **given)
    assert told.value.code == code
    with pytest.raises(Invalid):
        await room.endpoints.change(caller(scope), good, **given)


async def test_there_may_be_so_many(rooms: Rooms, scope: Scope, other: Scope) -> None:
    room = await rooms.open(endpoints=2)
    first, _ = await room.add(scope, "https://example.org/1")
    await room.add(scope, "https://example.org/2")
    with pytest.raises(Conflict, match="Remove one first"):
        await room.add(scope, "https://example.org/3")
    await room.add(other, "https://example.org/3")
    await room.endpoints.remove(caller(scope), first)
    await room.add(scope, "https://example.org/3")
    items, following = await room.endpoints.list(scope, limit=1)
    rest, end = await room.endpoints.list(scope, limit=1, cursor=following)
    assert [each.url for each in [*items, *rest]] == ["https://example.org/3", "https://example.org/2"]
    assert end is None


async def test_both_secrets_sign_while_one_takes_over_from_the_other(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, old = await room.add(scope, receiver.url)
        _, new = await room.endpoints.rotate(caller(scope), endpoint, overlap=3600)
        await room.emit(scope)
        await room.settled(scope, endpoint)
        room.clock.ahead = 3601
        await room.emit(scope)
        await room.settled(scope, endpoint)
        _, newest = await room.endpoints.rotate(caller(scope), endpoint)
        await room.emit(scope)
        await room.settled(scope, endpoint)
    first, second, third = receiver.received
    assert (first.signed_by(old), first.signed_by(new)) == (True, True)
    assert (second.signed_by(old), second.signed_by(new)) == (False, True)
    assert (third.signed_by(new), third.signed_by(newest)) == (False, True)
    with pytest.raises(Invalid):
        await room.endpoints.rotate(caller(scope), endpoint, overlap=-1)


async def test_it_can_be_tried_out(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url, events=["job.failed"])
        sent = await room.endpoints.test(caller(scope), endpoint)
        assert (sent.state, sent.attempts, sent.type) == ("queued", 0, "webhook.test")
        assert (await room.settled(scope, endpoint)).state == "delivered"
        await room.endpoints.change(caller(scope), endpoint, enabled=False)
        for refused in (
            room.endpoints.test(caller(scope), endpoint),
            room.endpoints.redeliver(caller(scope), endpoint, sent.id),
        ):
            with pytest.raises(Conflict, match="switched off"):
                await refused
    assert receiver.received[0].json["data"] == {"webhook_id": endpoint}


async def test_the_log_is_paged_and_filtered(room: Room, scope: Scope) -> None:
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        for _ in range(3):
            await room.emit(scope)

        async def arrived() -> bool:
            return len(await room.log_in(scope, endpoint, "delivered")) == 3

        await eventually(arrived)
        items, following = await room.endpoints.deliveries(scope, endpoint, limit=2)
        rest, end = await room.endpoints.deliveries(scope, endpoint, limit=2, cursor=following)
    assert [each.id for each in [*items, *rest]] == [each.id for each in await room.log(scope, endpoint)]
    assert (len(items), len(rest), end) == (2, 1, None)
    assert await room.log_in(scope, endpoint, "dead") == []


async def test_nobody_reaches_what_is_another_tenants(room: Room, scope: Scope, other: Scope) -> None:
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        mine, _ = await room.add(other, receiver.url)
        await room.emit(scope)
        delivery = await room.settled(scope, endpoint)
        me = caller(other)
        attempts: list[Any] = [
            room.endpoints.get(other, endpoint),
            room.endpoints.change(me, endpoint, enabled=False),
            room.endpoints.remove(me, endpoint),
            room.endpoints.rotate(me, endpoint),
            room.endpoints.test(me, endpoint),
            room.endpoints.deliveries(other, endpoint),
            room.endpoints.delivery(other, endpoint, delivery.id),
            room.endpoints.delivery(other, mine, delivery.id),
            room.endpoints.redeliver(me, mine, delivery.id),
        ]
        for attempt in attempts:
            with pytest.raises(Missing):
                await attempt
        assert [each.id for each in (await room.endpoints.list(other))[0]] == [mine]
        assert await room.log(other, mine) == []
    assert len(receiver.received) == 1


async def test_jobs_tell_how_they_ended_and_their_parts_do_not(room: Room, scope: Scope) -> None:
    async def fail(context: Context) -> None:
        raise Invalid("It cannot be done.", code="impossible")

    async def split(context: Context) -> None:
        await context.children("test.part", [{}, {}])

    async def part(context: Context) -> None:
        pass

    for kind in (JobKind("test.fail", fail), JobKind("test.split", split), JobKind("test.part", part)):
        room.jobs.register(kind)
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url, events=["job.*"])
        ids = {}
        for kind in ("test.fail", "test.split"):
            ids[kind] = await room.database.write(room.jobs.enqueue, scope, kind, {})
        delayed = await room.database.write(lambda each: room.jobs.enqueue(each, scope, "test.part", {}, delay=999))
        await room.jobs.cancel(scope, delayed)  # a person's act, which is no event
        for job_id in ids.values():
            await room.jobs.wait(scope, job_id, 30)

        async def told() -> bool:
            return len(await room.log_in(scope, endpoint, "delivered")) >= 2

        await eventually(told)
    told_of = {each.json["type"]: each.json["data"] for each in receiver.received}
    assert len(receiver.received) == 2  # none of the parts, and none of the courier's own
    assert told_of["job.failed"]["id"] == ids["test.fail"]
    assert told_of["job.failed"]["error"] == {"code": "impossible", "message": "It cannot be done."}
    assert told_of["job.succeeded"]["id"] == ids["test.split"]
    assert told_of["job.succeeded"]["children"] == {"succeeded": 2}
    assert scope.user is not None
    assert all(scope.user.encode() not in each.body for each in receiver.received)  # no link to a person


async def test_what_is_old_is_removed(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(keep_days=2)
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        await room.settled(scope, endpoint)
        room.clock.ahead = 86_400.0
        await room.webhooks.tidy()
        assert len(await room.log(scope, endpoint)) == 1
        room.clock.ahead = 3 * 86_400.0
        await room.webhooks.tidy()
        assert await room.log(scope, endpoint) == []


async def test_what_was_left_lying_goes_out(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(work=False)
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        await room.database.write(lambda session: session.execute(text("DELETE FROM jobs")))  # the courier is lost
        await room.jobs.start()
        await room.webhooks.tidy()
        assert (await room.log(scope, endpoint))[0].attempts == 0  # it might be on its way yet
        room.clock.ahead = 600
        await room.webhooks.tidy()
        assert (await room.settled(scope, endpoint)).state == "delivered"


@pytest.mark.both
async def test_a_tenant_takes_its_own_along_and_leaves_nothing(room: Room, scope: Scope, other: Scope) -> None:
    async with receiving() as receiver:
        for each in (scope, other):
            endpoint, _ = await room.add(each, receiver.url + f"/{each.tenant}")
            await room.emit(each)
            await room.settled(each, endpoint)
            await room.endpoints.signing_secret(each)
    exported = {
        path: b"".join([piece async for piece in pieces]) async for path, pieces in leaving.export(room.database, scope)
    }
    assert sorted(exported) == ["webhooks/deliveries.jsonl", "webhooks/endpoints.jsonl"]
    assert exported["webhooks/endpoints.jsonl"].count(b"\n") == 1
    assert b"acme" in exported["webhooks/endpoints.jsonl"]
    assert b"document.ready" in exported["webhooks/deliveries.jsonl"]
    assert not any(word in each for each in exported.values() for word in (b"globex", b"whsec_", b'"secret"'))
    await room.database.write(leaving.erase_tenant, scope)
    assert await room.database.read(left, scope.tenant) == 0
    assert await room.database.read(left, other.tenant) == 4


def left(session: Session, tenant: str) -> int:
    """Rows of the tenant, its courier's included."""
    tables = ("webhook_endpoints", "webhook_signers", "webhook_deliveries", "webhook_couriers")
    counts = [
        session.execute(
            text(f"SELECT COUNT(*) FROM {table} WHERE tenant_id = :tenant"), {"tenant": tenant}
        ).scalar_one()
        for table in tables
    ]
    return sum(counts)


async def test_what_was_removed_is_not_delivered(rooms: Rooms, scope: Scope) -> None:
    room = await rooms.open(work=False)
    async with receiving() as receiver:
        endpoint, _ = await room.add(scope, receiver.url)
        await room.emit(scope)
        await room.endpoints.remove(caller(scope), endpoint)
        assert await room.database.read(left, scope.tenant) == 0
        await room.jobs.start()
        jobs, _ = await room.jobs.list(scope, everyone=True)
        done = await room.jobs.wait(scope, jobs[0].id, 30, everyone=True)
        assert done.result == {"superseded": True}
    assert receiver.received == []
    with pytest.raises(TerraceError):
        await room.endpoints.get(scope, endpoint)


def test_filters_are_types_and_families() -> None:
    assert filters_of(["job.failed", "job.failed", "campaign.*"]) == ("campaign.*", "job.failed")
    assert filters_of(["*", "job.failed"]) == filters_of([]) == ()
    assert all(wants((), each) for each in EVENTS)
    assert wants(("job.*",), "job.failed")
    assert not wants(("job.*", "campaign.message"), "document.ready")
    assert "job.*" in FAMILIES
