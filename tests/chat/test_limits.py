"""An answer's room is kept from the moment it is asked for, and given back when its job is over."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.accounts.limits_house import ACME, ADA, Bench, in_memory, people
from tests.chat.conftest import Room, Shelf
from tests.models.wires import NoRanker

from terrace import settings
from terrace.chat.answering import Answering
from terrace.chat.base import Ask
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds
from terrace.errors import Denied, Limited, Missing
from terrace.jobs.engines.local import LocalJobs
from terrace.models.base import Usage
from terrace.models.providers.fake import Fake, Step
from terrace.models.service import Models, open_models
from terrace.models.transport import open_transport
from terrace.storage import Database
from terrace.types import Scope


class Limitedly:
    """The chat room with real models, a scripted provider called `box`, and limits."""

    def __init__(self, database: Database, bench: Bench, models: Models, provider: Fake, script: list[Step]) -> None:
        options = settings.Chat()
        self.bench, self.models, self.provider, self.script = bench, models, provider, script
        answering = Answering(models, Shelf(), options)
        self.jobs = LocalJobs(
            database, settings.Jobs(backoff=0.01, drain=0.2), kinds(database, answering, bench.limits)
        )
        self.chat = Chat(database, self.jobs, models, options, bench.limits)

    async def used(self) -> dict[str, float]:
        return {limit.name: limit.used for limit in await self.bench.limits.show(ACME)}


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[Limitedly]:
    await database.write(people)
    bench = Bench(database, tmp_path, in_memory)
    await bench.open()
    chosen = settings.Models(discover=False, retries=0)
    script: list[Step] = ["Four weeks.", Usage(700, 4)]
    provider = Fake("box", [script], models=["gpt", "other"])
    models = open_models(chosen, open_transport(chosen), NoRanker(), bench.limits, others=[provider])
    house = Limitedly(database, bench, models, provider, script)
    yield house
    await house.jobs.close()
    await models.close()
    await bench.close()


async def test_who_has_no_room_hears_at_once_and_nothing_is_kept(house: Limitedly) -> None:
    await house.bench.limits.change(ACME, {"tokens_per_day": 1000}, "x")
    with pytest.raises(Limited) as caught:
        await house.chat.ask(ADA, Ask("How long is it?"))
    assert caught.value.code == "limit_reached"
    assert await house.chat.list(ADA) == ([], None)


async def test_the_answers_call_takes_over_what_was_kept_for_it(house: Limitedly) -> None:
    await house.bench.limits.change(ACME, {"tokens_per_day": 10_000, "concurrent_requests": 1}, "x")
    started = await house.chat.ask(ADA, Ask("How long is it?"))
    assert 4096 < (await house.used())["tokens_per_day"] < 8000
    with pytest.raises(Limited):
        await house.chat.ask(ADA, Ask("x " * 15_000))
    await house.jobs.start()
    job = await house.jobs.wait(ADA, started.job_id, 20)
    assert (job.state, job.user) == ("succeeded", "usr_ada")
    assert await house.used() == {"tokens_per_day": 704, "concurrent_requests": 0}
    (request,) = house.provider.requests
    assert request.scope == Scope("acme", "usr_ada", "key_ada", started.job_id)
    assert request.options["max_tokens"] == 4096


@pytest.mark.parametrize("how", ["cancelled", "deleted", "failed"])
async def test_what_was_kept_is_given_back_when_no_call_comes(house: Limitedly, how: str) -> None:
    await house.bench.limits.change(ACME, {"tokens_per_day": 10_000}, "x")
    started = await house.chat.ask(ADA, Ask("How long is it?", use_rag=True))
    assert (await house.used())["tokens_per_day"]
    if how == "cancelled":
        await house.jobs.cancel(ADA, started.job_id)
    else:
        if how == "deleted":
            await house.chat._database.write(
                lambda session: session.connection().exec_driver_sql("DELETE FROM messages")
            )
        else:
            house.script[:] = [RuntimeError("a bug")]
        await house.jobs.start()
        await house.jobs.wait(ADA, started.job_id, 20)
    await asyncio.sleep(0)
    kept = (await house.used())["tokens_per_day"]
    assert kept == 0 if how != "failed" else kept > 0, "a call that broke may have used what was reserved"


async def test_a_question_sent_twice_is_kept_room_for_once(house: Limitedly) -> None:
    await house.bench.limits.change(ACME, {"tokens_per_day": 8000}, "x")
    first = await house.chat.ask(ADA, Ask("How long is it?", key="once"))
    before = await house.used()
    assert await house.chat.ask(ADA, Ask("How long is it?", key="once")) == first
    assert await house.used() == before


async def test_an_answer_waits_for_a_place_and_does_not_fail(house: Limitedly) -> None:
    await house.bench.limits.change(ACME, {"concurrent_requests": 1}, "x")
    await house.jobs.start()
    asked = [await house.chat.ask(ADA, Ask(f"Question {n}?")) for n in range(5)]
    jobs = [await house.jobs.wait(ADA, each.job_id, 20) for each in asked]
    assert {job.state for job in jobs} == {"succeeded"}


async def test_an_answer_is_held_to_the_models_whoever_asked_may_use(house: Limitedly) -> None:
    who = replace(ADA, models=(frozenset({"box/g*"}),))
    with pytest.raises(Denied):
        await house.chat.ask(who, Ask("How long?", model="box/other"))
    await house.jobs.start()
    started = await house.chat.ask(who, Ask("How long?"))
    await house.jobs.wait(who, started.job_id, 20)
    assert house.provider.requests[-1].scope.models == who.models
    with pytest.raises(Denied):
        await house.chat.regenerate(who, started.conversation_id, started.message_id, "box/other")


async def test_a_colleague_sees_nothing_of_a_conversation(room: Room, scope: Scope) -> None:
    started, _ = await room.ask("Mine?")
    for colleague in (Scope(scope.tenant, "usr_eve"), Scope(scope.tenant)):
        asks: list[Any] = [
            room.chat.get(colleague, started.conversation_id),
            room.chat.change(colleague, started.conversation_id, title="Theirs"),
            room.chat.delete(colleague, started.conversation_id),
            room.chat.export(colleague, started.conversation_id, "json"),
            room.chat.regenerate(colleague, started.conversation_id, started.message_id),
            room.chat.ask(colleague, Ask("Ours?", conversation_id=started.conversation_id)),
            room.jobs.get(colleague, started.job_id),
        ]
        for each in asks:
            with pytest.raises(Missing):
                await each
        assert await room.chat.list(colleague) == ([], None)
        assert await room.chat.list(colleague, q="Mine") == ([], None)
