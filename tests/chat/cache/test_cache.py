"""An answer given before serves again exactly as long as it is the answer."""

from typing import Any

import pytest
from sqlmodel import select
from tests.chat.cache.conftest import CachedRoom

from terrace import settings
from terrace.chat.base import Ask
from terrace.chat.cache import leaving
from terrace.chat.cache.base import Asking
from terrace.chat.cache.tables import CachedAnswerRow, CacheTallyRow
from terrace.models.base import Finish, Usage
from terrace.types import Scope

QUESTION = "How deep is the quay?"
DEEP = ["Seven metres ", "[1].", Usage(30, 5), Finish("stop")]


@pytest.mark.both
async def test_the_same_question_costs_nothing_the_second_time(cached: CachedRoom) -> None:
    cached.says(DEEP, ["Another."])
    first = await cached.answers(QUESTION)
    second = await cached.answers("  How deep  is the quay?\n")
    assert cached.calls == 1
    assert ("cached" in first, second["cached"]) == (False, True)
    assert (second["response"], second["sources"]) == (first["response"], first["sources"])
    assert (second["usage"]["input_tokens"], second["usage"]["output_tokens"]) == (0, 0)
    assert second["conversation_id"] != first["conversation_id"]
    tally = await cached.cache.tally(cached.scope)
    assert (tally.entries, tally.hits, tally.exact_hits, tally.saved_tokens) == (1, 1, 1, 35)
    assert tally.saved_money == pytest.approx(0.035)
    assert cached.counted == ["miss", "exact"]


async def test_a_hit_is_marked_on_the_message_and_in_the_stream(cached: CachedRoom) -> None:
    cached.says(DEEP)
    await cached.answers(QUESTION)
    started, job = await cached.ask(QUESTION, cache=True)
    message = await cached.message(started)
    assert (message.state, message.cached, message.model) == ("complete", True, "fake/echo")
    assert message.cached_at is not None
    assert message.content == "Seven metres [1]."
    assert [source["n"] for source in message.sources] == [1]
    events = [event for event in await cached.events(started.job_id) if event.type != "state"]
    assert [event.type for event in events] == ["start", "sources", "text", "answer", "done"]
    answer = events[3].data
    assert (answer["cached"], answer["cached_at"]) == (True, message.cached_at.isoformat())
    assert answer["cached_at"] == job.result["cached_at"]
    _, [_, written] = await cached.chat.get(cached.scope, (await cached.chat.list(cached.scope))[0][1].id)
    assert (written.cached, written.cached_at) == (False, None)


async def test_whoever_does_not_choose_it_has_no_cache(cached: CachedRoom) -> None:
    cached.says(DEEP, DEEP, DEEP)
    await cached.answers(QUESTION, cache=None)
    await cached.answers(QUESTION)
    await cached.answers(QUESTION, cache=False)
    assert cached.calls == 3
    assert cached.counted == ["miss"]


async def test_what_is_asked_otherwise_is_another_question(cached: CachedRoom) -> None:
    others: list[dict[str, Any]] = [
        {"message": "How deep is the Quay?"},
        {"model": "fake/other"},
        {"use_rag": False},
        {"use_rag": True},
        {"collections": ("harbour",)},
        {"tags": ("old",)},
        {"passages": 2},
    ]
    cached.says(DEEP, *[DEEP for _ in others])
    await cached.changed("harbour")
    await cached.answers(QUESTION)
    for count, other in enumerate(others, 2):
        result = await cached.answers(**{"message": QUESTION, **other})
        assert ("cached" in result, cached.calls) == (False, count), other


async def test_the_conversation_before_is_part_of_the_question(cached: CachedRoom) -> None:
    cached.says(DEEP, ["It is made of stone."], ["It is made of wood."])
    first = await cached.answers(QUESTION)
    conversation = {"conversation_id": first["conversation_id"], "parent_id": first["message_id"]}
    stone = await cached.answers("And what is it made of?", **conversation)
    again = await cached.answers("And what is it made of?", **conversation)
    alone = await cached.answers("And what is it made of?")
    assert (stone["response"], again["response"], again["cached"]) == (stone["response"],) * 2 + (True,)
    assert (alone["response"], "cached" in alone) == ("It is made of wood.", False)


async def test_what_is_read_changed_or_deleted_makes_it_stale(cached: CachedRoom) -> None:
    cached.says(*[DEEP] * 6)
    await cached.changed("default")
    filters: list[dict[str, Any]] = [{}, {"collections": ("default",)}, {"tags": ("any",)}]
    for each in filters:
        await cached.answers(QUESTION, **each)
    await cached.changed("default")
    for each in filters:
        assert "cached" not in await cached.answers(QUESTION, **each)
        assert (await cached.answers(QUESTION, **each))["cached"]


async def test_other_collections_and_tenants_may_change(cached: CachedRoom, other: Scope) -> None:
    cached.says(DEEP, DEEP)
    await cached.changed("default")
    await cached.answers(QUESTION, collections=("default",))
    await cached.answers(QUESTION, use_rag=False)
    await cached.changed("elsewhere")
    await cached.changed("default", other)
    assert (await cached.answers(QUESTION, collections=("Default",)))["cached"]
    await cached.changed("default")
    assert (await cached.answers(QUESTION, use_rag=False))["cached"], "no document is in it"


async def test_documents_that_change_while_it_is_written(cached: CachedRoom) -> None:
    cached.says(DEEP, DEEP)
    place, _ = await cached.cache.look(cached.scope, Asking(QUESTION, "fake/echo"))
    await cached.changed()
    written = cached.cache.written("Old.", [{"n": 1}], "fake/echo", Usage(1, 1))
    await cached.database.write(lambda session: cached.cache.keep(session, cached.scope, place, written))
    assert "cached" not in await cached.answers(QUESTION)


async def test_age_and_number_are_bounded(cached: CachedRoom) -> None:
    cached.says(DEEP, DEEP)
    await cached.answers(QUESTION)
    cached.moved[0] = 23 * 3600.0
    assert (await cached.answers(QUESTION))["cached"]
    cached.moved[0] = 25 * 3600.0
    assert "cached" not in await cached.answers(QUESTION)
    assert (await cached.cache.tally(cached.scope)).entries == 1


class TestFew:
    @pytest.fixture
    def options(self) -> settings.Cache:
        return settings.Cache(entries=2)

    async def test_the_oldest_go(self, cached: CachedRoom) -> None:
        cached.says(*[DEEP] * 4)
        for question in ("One?", "Two?", "Three?"):
            await cached.answers(question)
        assert (await cached.cache.tally(cached.scope)).entries == 2
        assert (await cached.answers("Three?"))["cached"]
        assert "cached" not in await cached.answers("One?")


@pytest.mark.parametrize("script", [["Half an ans", Finish("length")], ["x", ValueError("broken")]])
async def test_answers_that_are_cut_or_fail_are_not_kept(cached: CachedRoom, script: list[Any]) -> None:
    cached.says(script, DEEP)
    started = await cached.chat.ask(cached.scope, Ask(QUESTION, cache=True))
    await cached.jobs.wait(cached.scope, started.job_id, 20)
    assert "cached" not in await cached.answers(QUESTION)
    assert cached.calls == 2


async def test_asking_again_brings_a_new_answer_that_serves_from_then_on(cached: CachedRoom) -> None:
    cached.says(DEEP, ["Eight metres [1]."])
    first = await cached.answers(QUESTION)
    started = await cached.chat.regenerate(cached.scope, first["conversation_id"], first["message_id"])
    job = await cached.jobs.wait(cached.scope, started.job_id, 20)
    assert job.result is not None
    assert job.result["response"] == "Eight metres [1]."
    again = await cached.answers(QUESTION)
    assert (again["cached"], again["response"]) == (True, "Eight metres [1].")


async def test_members_share_what_the_documents_say_and_nothing_else(cached: CachedRoom, other: Scope) -> None:
    colleague = Scope(cached.scope.tenant, "usr_eve")
    cached.says(DEEP, ["I know nothing of that."], *[DEEP] * 10)
    await cached.answers(QUESTION)
    await cached.answers("What is my secret?")  # cites nothing
    first = await cached.answers(QUESTION, use_rag=False)
    follow = {"conversation_id": first["conversation_id"]}
    await cached.answers("And then?", **follow)
    assert (await cached.answers(QUESTION, colleague))["cached"]
    assert "cached" not in await cached.answers("What is my secret?", colleague)
    assert (await cached.answers("What is my secret?"))["cached"]
    assert "cached" not in await cached.answers(QUESTION, colleague, use_rag=False)
    assert "cached" not in await cached.answers(QUESTION, other)
    assert (await cached.cache.tally(other)).entries == 1


async def test_clearing_forgets_a_tenants_answers_alone(cached: CachedRoom, other: Scope) -> None:
    cached.says(*[DEEP] * 3)
    await cached.answers(QUESTION)
    await cached.answers(QUESTION)
    await cached.answers(QUESTION, other)
    assert await cached.cache.clear(cached.scope) == 1
    assert "cached" not in await cached.answers(QUESTION)
    assert (await cached.cache.tally(cached.scope)).hits == 1
    assert (await cached.answers(QUESTION, other))["cached"]


async def test_leaving(cached: CachedRoom, other: Scope) -> None:
    cached.says(*[DEEP] * 4)
    nobody = Scope("default")
    for scope in (cached.scope, other, nobody):
        await cached.answers(QUESTION, scope)
    await cached.answers(QUESTION, other)
    [(path, pieces)] = [each async for each in leaving.export(cached.database, cached.scope)]
    lines = b"".join([piece async for piece in pieces])
    assert (path, lines.count(b"\n"), QUESTION.encode() in lines) == ("cached_answers.jsonl", 1, True)
    await cached.database.write(leaving.adopt, "usr_first")
    await cached.database.write(leaving.erase_user, cached.scope.user)
    await cached.database.write(leaving.erase_tenant, other)
    for table in (CachedAnswerRow, CacheTallyRow):
        assert await cached.database.read(lambda session, table=table: session.exec(select(table)).all()) == []


class TestSemantic:
    @pytest.fixture
    def options(self) -> settings.Cache:
        return settings.Cache(semantic=True, similarity=0.95)

    async def test_another_wording_of_a_first_question_is_served(self, cached: CachedRoom) -> None:
        cached.says(DEEP)
        await cached.answers("How deep is the quay of the harbour in 2023?")
        result = await cached.answers("In 2023, how deep is the quay of the harbour?")
        assert (result["cached"], cached.calls) == (True, 1)
        assert cached.counted == ["miss", "semantic"]
        assert (await cached.cache.tally(cached.scope)).semantic_hits == 1

    async def test_but_no_trap(self, cached: CachedRoom) -> None:
        cached.says(*[DEEP] * 5)
        await cached.answers("How deep is the quay of the harbour in 2023?")
        for trap in (
            "How deep is the quay of the harbour in 2024?",
            "How deep is the quay of the harbour not in 2023?",
            "How deep is the quay of the Harbour Tor in 2023?",
            "Tell me something else.",
        ):
            assert "cached" not in await cached.answers(trap), trap

    async def test_later_turns_and_stale_answers_are_not(self, cached: CachedRoom) -> None:
        cached.says(*[DEEP] * 4)
        first = await cached.answers("How deep is the quay of the harbour?")
        asked = len(cached.letters.asked)
        follow = {"conversation_id": first["conversation_id"]}
        assert "cached" not in await cached.answers("The quay of the harbour: how deep is it?", **follow)
        assert len(cached.letters.asked) == asked
        await cached.changed()
        assert "cached" not in await cached.answers("How deep is the harbour of the quay?")
