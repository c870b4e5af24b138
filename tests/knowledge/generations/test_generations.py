"""Vectors made anew: what serves meanwhile, when it changes hands, and how it comes back."""

import asyncio
from typing import Any

import pytest
from tests.knowledge.generations.conftest import Lab

from terrace.errors import Conflict, Missing, Unavailable
from terrace.knowledge.generations import store
from terrace.types import Scope

QUESTIONS = ("quay and tide", "lighthouse 3", "ferry", "rope and sail")


async def test_the_first_model_serves_at_once(lab: Lab, scope: Scope) -> None:
    [only] = await lab.generations.list()
    assert (only.key, only.state, only.vectors, only.available) == ("first", "serving", 320, True)
    assert lab.generations.keys() == ("first",)


async def test_the_same_model_again_is_made_beside_and_takes_over(lab: Lab, scope: Scope) -> None:
    before = [await lab.found(scope, question) for question in QUESTIONS]
    await lab.queries.flush()
    made = await lab.generations.create(Scope())
    assert (made.key, made.state, made.vectors) == ("first#2", "building", 0)
    await lab.build()
    assert await lab.states() == {"first#2": "serving", "first": "retired"}
    new = await lab.generations.get(made.id)
    assert new.comparison is not None
    assert (new.comparison.queries, new.comparison.overlap, new.comparison.rank_change) == (4, 1.0, 0.0)
    assert (new.vectors, new.dimensions) == (320, 64)
    result = await lab.search.search(scope, QUESTIONS[0], mode="vector")
    assert result.embedding == "first#2"
    assert [await lab.found(scope, question) for question in QUESTIONS] == before
    assert await lab.library.doctor.embed_missing() == 0  # every document says so


async def test_killed_anywhere_it_goes_on_and_makes_nothing_twice(lab: Lab, scope: Scope) -> None:
    await lab.generations.create(Scope())
    model: Any = lab.models["first"]
    model.embedded = 0
    attempt = 0
    while True:
        attempt += 1
        assert attempt < 20
        try:
            await lab.build(writes=2)
        except lab.library.died:
            continue
        break
    assert attempt > 1
    assert (await lab.states())["first#2"] == "serving"
    assert model.embedded <= 320 + 128 * attempt  # at most the batch that was cut off
    assert model.embedded < 2 * 320


async def test_a_rollback_gives_what_was_before(lab: Lab, scope: Scope) -> None:
    before = [await lab.found(scope, question) for question in QUESTIONS]
    lab.use("second")
    await lab.generations.start()
    await lab.build()
    [new] = [each for each in await lab.generations.list() if each.key == "second"]
    await lab.generations.switch(Scope(), new.id)
    assert [await lab.found(scope, question) for question in QUESTIONS] != before
    [old] = [each for each in await lab.generations.list() if each.key == "first"]
    shown = await lab.generations.switch(Scope(), old.id)
    assert shown.state == "serving"
    assert [await lab.found(scope, question) for question in QUESTIONS] == before
    lab.use("second")  # and it outlives a restart
    await lab.generations.start()
    assert (await lab.search.search(scope, "quay", mode="vector")).embedding == "first"


async def test_no_search_is_ever_answered_by_a_mixture(lab: Lab, scope: Scope) -> None:
    """Vectors of one model mean nothing to the other, so a mixture would find what neither finds."""
    lab.use("second")
    await lab.generations.start()
    await lab.build()
    ids = {each.key: each.id for each in await lab.generations.list()}
    right: dict[str, list[Any]] = {}
    for key in ("first", "second"):
        await lab.generations.switch(Scope(), ids[key])
        right[key] = [await lab.found(scope, question) for question in QUESTIONS]
    assert right["first"] != right["second"]
    stop = asyncio.Event()
    seen: dict[str, int] = {"first": 0, "second": 0}

    async def ask(number: int) -> None:
        while not stop.is_set():
            result = await lab.search.search(scope, QUESTIONS[number], k=5, mode="vector")
            assert result.embedding is not None
            hits = [(hit.chunk_id, round(hit.score, 5)) for hit in result.hits]
            assert hits == right[result.embedding][number]
            seen[result.embedding] += 1

    asking = [asyncio.create_task(ask(number)) for number in range(4)]
    for turn in range(12):
        key = "first" if turn % 2 else "second"
        await lab.generations.switch(Scope(), ids[key])
        before = seen[key]
        while seen[key] == before and not any(each.done() for each in asking):  # noqa: ASYNC110 others count
            await asyncio.sleep(0.005)
    stop.set()
    await asyncio.gather(*asking)


async def test_what_comes_in_meanwhile_goes_into_both(lab: Lab, scope: Scope) -> None:
    lab.use("second")
    await lab.generations.start()
    document = await lab.library.add(scope, "A submarine.\n\nA periscope.", "new.txt")
    assert document.searchable == "meaning"
    vectors, _ = await lab.library.database.read(store.counts)
    assert vectors == {"first": 322, "second": 2}
    await lab.build()
    [new] = [each for each in await lab.generations.list() if each.key == "second"]
    assert new.vectors == 322
    if new.state != "serving":
        await lab.generations.switch(Scope(), new.id)
    await lab.library.add(scope, "A torpedo.", "newer.txt")  # the old one is kept whole, for a rollback
    vectors, _ = await lab.library.database.read(store.counts)
    assert vectors == {"first": 323, "second": 323}
    await lab.library.knowledge.delete(scope, document.id)
    vectors, _ = await lab.library.database.read(store.counts)
    assert vectors == {"first": 321, "second": 321}


async def test_the_old_model_serves_until_the_new_one_is_made(lab: Lab, scope: Scope) -> None:
    before = await lab.found(scope, "quay")
    lab.use("second")
    await lab.generations.start()
    assert await lab.states() == {"first": "serving", "second": "building"}
    assert await lab.found(scope, "quay") == before


async def test_without_the_old_model_search_goes_by_words_and_says_so(lab: Lab, scope: Scope) -> None:
    lab.away.add("first")
    lab.use("second")
    await lab.generations.start()
    result = await lab.search.search(scope, "quay")
    assert result.mode == "text"
    assert result.hits
    assert "goes by words until the vectors of second are made" in lab.serving.state().why
    document = await lab.library.add(scope, "A submarine.", "new.txt")
    assert document.searchable == "words"
    await lab.build()
    assert (await lab.states())["second"] == "serving"  # nothing to compare with: it serves at once
    assert (await lab.search.search(scope, "quay")).mode == "hybrid"
    document = await lab.library.knowledge.get(scope, document.id)
    assert (document.searchable, document.warnings) == ("meaning", ())
    with pytest.raises(Unavailable, match="can't be had"):
        await lab.generations.switch(Scope(), (await lab.generations.list())[-1].id)


async def test_what_is_too_different_waits_for_a_person(lab: Lab, scope: Scope) -> None:
    for question in QUESTIONS:
        await lab.search.search(scope, question)
    await lab.queries.flush()
    made = await lab.generations.create(Scope(), automatic=False)
    await lab.build()
    ready = await lab.generations.get(made.id)
    assert (ready.state, ready.note) == ("ready", "It is ready; switch to it by hand.")
    lab.use("second")
    await lab.library.database.write(lambda session: setattr(store.get(session, made.id), "bound", 0.0))
    await lab.generations.start()
    await lab.library.database.write(
        lambda session: [setattr(store.get(session, row.id), "bound", 1.0) for row in store.every(session)] and None
    )
    await lab.build()
    [other] = [each for each in await lab.generations.list() if each.key == "second"]
    assert other.state == "ready"
    assert "less than the 100% wanted" in other.note
    assert (await lab.generations.switch(Scope(), other.id)).state == "serving"


async def test_a_switch_waits_for_passages_it_lacks(lab: Lab, scope: Scope) -> None:
    made = await lab.generations.create(Scope(), automatic=False)
    await lab.build()
    await lab.library.database.write(store.drop_vectors, "first#2", 5)
    waiting = await lab.generations.switch(Scope(), made.id)
    assert waiting.state == "ready"
    await lab.build(waiting.job_id)
    assert (await lab.generations.get(made.id)).state == "serving"


async def test_dropping(lab: Lab, scope: Scope) -> None:
    made = await lab.generations.create(Scope())
    with pytest.raises(Conflict, match="made already"):
        await lab.generations.create(Scope())
    await lab.build()
    with pytest.raises(Conflict, match="serves"):
        await lab.generations.drop(Scope(), made.id)
    [old] = [each for each in await lab.generations.list() if each.state == "retired"]
    await lab.generations.drop(Scope(), old.id)
    vectors, _ = await lab.library.database.read(store.counts)
    assert vectors == {"first#2": 320}
    with pytest.raises(Missing):
        await lab.generations.switch(Scope(), old.id)


async def test_every_week_one_more_and_only_one_is_kept(lab: Lab, scope: Scope) -> None:
    model: Any = lab.models["first"]
    for _ in range(4):
        model.embedded = 0
        job_id = await lab.library.database.write(lab.generations.start_one, Scope(), {})
        await lab.build(job_id)
        assert model.embedded == 320
    assert sorted((await lab.states()).values()) == ["retired", "retired", "serving"]
    vectors, chunks = await lab.library.database.read(store.counts)
    assert sum(vectors.values()) <= 3 * chunks


async def test_recent_questions_are_few_and_their_tenants_own(lab: Lab, scope: Scope, other: Scope) -> None:
    for number in range(150):
        lab.queries.asked(scope, f"question {number}")
    lab.queries.asked(other, "another's question")
    lab.queries.asked(scope, "x" * 1000)
    await lab.queries.flush()
    kept = await lab.library.database.read(store.queries, 1000)
    assert len([query for tenant, query in kept if tenant == scope.tenant]) == 100
    assert (other.tenant, "another's question") in kept[:2]  # every tenant in turn
    await lab.library.database.write(store.forget_tenant, scope)
    assert await lab.library.database.read(store.queries, 1000) == [(other.tenant, "another's question")]
