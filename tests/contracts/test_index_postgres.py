"""What PostgreSQL's index does beneath the contract: SQLite's very scores, counts that add up, graphs when large."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from sqlmodel import Session
from tests.contracts.test_index import EMBEDDER, Shelf, stored_on

from terrace.errors import TerraceError
from terrace.knowledge.base import Filter, Scored
from terrace.knowledge.index.postgres import allowing, counts, graphs, signs, vectors, words
from terrace.knowledge.index.postgres.allowing import Allowed, Passing, allowed, broadly, listed, mapped
from terrace.knowledge.index.postgres.counts import Counts
from terrace.knowledge.index.postgres.kept import ENTRY, Kept
from terrace.knowledge.index.postgres.rows import number_of
from terrace.knowledge.index.postgres.signs import KeptSigns, Signs
from terrace.knowledge.index.postgres.tokens import stems
from terrace.knowledge.index.postgres.vectors import Space
from terrace.knowledge.index.postgres.words import Asked
from terrace.storage.postgresql.migrating import migrate_once
from terrace.types import Scope

WORDS = ["river", "bridge", "Brücke", "naïve", "whale", "whales", "sailing", "harbour", "ice", "glaciers", "running",
         "runs", "1999", "e-mail", "O'Neil", "東京"]  # fmt: skip
RNG = random.Random()


@pytest.fixture(autouse=True)
def _same_passages() -> None:
    """Whatever was tested before."""
    RNG.seed(4)


@pytest.fixture
async def here(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    async with stored_on(request, "postgresql") as shelf:
        yield shelf


@pytest.fixture
async def sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    async with stored_on(request, "sqlite") as shelf:
        yield shelf


def passage(length: int) -> str:
    return " ".join(RNG.choices(WORDS, weights=range(1, len(WORDS) + 1), k=length))


def documents_of(session: Session) -> dict[int, str]:
    """Of each chunk, by its number."""
    rows = session.connection().exec_driver_sql("SELECT number, document_id FROM chunks")
    return {row[0]: row[1] for row in rows}


def numbers(found: list[Scored]) -> dict[int, tuple[float, float | None, float | None]]:
    return {each.number: (each.score, each.text_score, each.vector_score) for each in found}


async def test_both_databases_give_the_same_scores(here: Shelf, sqlite: Shelf, scope: Scope) -> None:
    for number in range(12):
        texts = [passage(RNG.randint(3, 60)) for _ in range(5)]
        title = passage(2)
        for shelf in (here, sqlite):
            await shelf.put(scope, f"d{number}", texts, title=title, tags=("odd",) if number % 2 else ())
    for shelf in (here, sqlite):
        await shelf.take(scope, "d3")
    for query in ("whales", "running on ice", "BRUCKE naive", "e-mail of O'Neil in 1999", "東京", "nothing of it"):
        for filter in (Filter(), Filter(tags=("odd",))):
            mine = numbers(await here.scored(scope, query, 10, filter))
            theirs = numbers(await sqlite.scored(scope, query, 10, filter))
            assert set(mine) == set(theirs)
            for chunk, values in mine.items():
                assert values == pytest.approx(theirs[chunk], abs=2e-3), (query, chunk)
            by_words = numbers(await here.scored(scope, query, 10, filter, meaning=False))
            assert by_words == {
                chunk: (pytest.approx(score), pytest.approx(text), None)
                for chunk, (score, text, _) in numbers(
                    await sqlite.scored(scope, query, 10, filter, meaning=False)
                ).items()
            }


async def test_counts_say_the_same_before_and_after_they_are_folded(here: Shelf, scope: Scope, other: Scope) -> None:
    for number in range(6):
        await here.put(scope, f"d{number}", [passage(30), passage(9)])
        await here.put(other, f"d{number}", passage(20))
    await here.take(scope, "d2")
    before = await here.scored(scope, "whale bridge", 10, meaning=False)
    theirs = await here.scored(other, "whale bridge", 10, meaning=False)
    await here.database.write(counts.fold, scope)
    await here.database.write(counts.fold, scope)
    assert await waiting(here, scope) == 0
    assert await waiting(here, other) == 6
    assert await here.scored(scope, "whale bridge", 10, meaning=False) == before
    assert await here.scored(other, "whale bridge", 10, meaning=False) == theirs
    for number in (0, 1, 3, 4, 5):
        await here.take(scope, f"d{number}")
    await here.database.write(counts.fold, scope)
    assert await here.database.read(lambda session: counts.of(session, scope, [1])) == (0, 0, {1: 0})
    assert await rows(here, "word_counts", scope) == 0


async def test_counts_are_folded_by_themselves(here: Shelf, scope: Scope) -> None:
    for number in range(counts.FOLD_AT):
        await here.put(scope, f"d{number}", "A whale.", vectors=False)
    async with asyncio.timeout(60):
        while await waiting(here, scope):  # noqa: ASYNC110 another task's doing
            await asyncio.sleep(0.01)
    assert len(await here.find(scope, "whale", k=100, meaning=False)) == counts.FOLD_AT


async def test_a_large_space_has_a_graph_until_it_is_small_again(here: Shelf, scope: Scope, other: Scope) -> None:
    texts = [f"{passage(12)} {number}" for number in range(120)]
    for number in range(6):
        await here.put(scope, f"d{number}", texts[number * 20 : number * 20 + 20])
    await here.put(other, "theirs", "A whale in the harbour.")
    await here.index.settled()  # type: ignore[attr-defined]
    exact = {text: await here.scored(scope, text, 3) for text in texts[:10]}
    made = await here.database.write(graphs.tend, scope, 100)
    assert [each.split("_")[0] for each in made] == ["made graph"]
    assert await here.database.write(graphs.tend, scope, 100) == []
    assert await here.database.write(graphs.tend, other, 100) == []
    assert await plan(here, scope) == {"graph": True}
    for text, found in exact.items():
        again = await here.scored(scope, text, 3)
        assert again[0].number == found[0].number
        assert again[0].vector_score == pytest.approx(found[0].vector_score, abs=1e-3)
    assert (await here.find(scope, texts[119], k=1)) == ["d5"]
    assert (await here.find(scope, texts[119], filter=Filter(documents=("doc_acme_d1",)), k=1)) == ["d1"]
    assert await here.find(other, "whale", k=3) == ["theirs"]
    for number in range(6):
        await here.take(scope, f"d{number}")
    dropped = await here.database.write(graphs.tend, scope, 100)
    assert [each.split("_")[0] for each in dropped] == ["dropped graph"]
    assert await rows(here, "vector_spaces", scope) == 0
    assert await here.find(scope, "whale") == []


@pytest.mark.parametrize(
    ("documents", "missed"), [(3, 0), (10, 3)], ids=["few of the nearest pass", "most of the nearest pass"]
)
async def test_a_filter_over_a_graph_finds_what_a_look_at_all_finds(
    here: Shelf, scope: Scope, documents: int, missed: int
) -> None:
    texts = [f"{passage(12)} {number}" for number in range(240)]
    for number in range(12):
        await here.put(scope, f"d{number}", texts[number * 20 : number * 20 + 20])
    await here.index.settled()  # type: ignore[attr-defined]
    await here.database.write(graphs.tend, scope, 100)
    of = {f"doc_acme_d{number}" for number in range(documents)}
    among = listed("{" + ",".join(of) + "}", 20_000)  # as many as are worth asking the graph for
    [question] = await EMBEDDER.embed([texts[239]], query=True)
    near, read = vectors.nearest, here.database.read
    known = await read(vectors.space, scope, "hash-64/fp32", 64)
    assert known is not None
    found = await read(near, scope, "hash-64/fp32", question, 60, known, Kept(0), among)
    every = await read(vectors.nearest_of_all, scope, "hash-64/fp32", question, len(texts))
    whose = await read(documents_of)
    passing = [(cosine, number) for number, cosine in every.items() if whose[number] in of]
    best = {number: cosine for cosine, number in sorted(passing, reverse=True)[:60]}
    assert len(every) == len(texts)
    assert len(found) >= 60
    assert len(best.items() - found.items()) <= missed


@pytest.mark.parametrize("most", [Filter(tags=("most",)), Filter(documents=("doc_acme_d1", "doc_acme_d2"))])
async def test_what_passes_is_the_same_listed_looked_up_or_mapped(
    here: Shelf, scope: Scope, other: Scope, most: Filter
) -> None:
    for number in range(6):
        await here.put(scope, f"d{number}", [passage(20) for _ in range(4)], tags=("most",) if number else ())
    await here.put(other, "d1", passage(20), tags=("most",))
    read, passing = (
        here.database.read,
        {"doc_acme_d1", "doc_acme_d2"} | {f"doc_acme_d{number}" for number in (3, 4, 5) if most.tags},
    )
    among, is_broad = await read(allowed, scope, most)
    assert (among.passages, is_broad) == (4 * len(passing), False)
    broad = broadly(scope, most, among.passages)
    by_map = await read(mapped, scope, most, broad)
    assert by_map.passages == among.passages
    assert (by_map.within, by_map.passes == broad.passes) == (broad.within, False)
    [question] = await EMBEDDER.embed(["whale on the river"], query=True)
    known = Space(graph=False, chunks=24)
    for passages in (among.passages, 20_000):  # and as if they were many: in each way that there is to search
        ways = [each._replace(passages=passages) for each in (broad, by_map, among)]
        by_words = [await read(words.search, scope, "whale on the river", 30, each) for each in ways]
        near = [await read(vectors.nearest, scope, "hash-64/fp32", question, 30, known, Kept(0), each) for each in ways]
        whose = await read(documents_of)
        for found in (*([each.number for each in text] for text in by_words), *near):
            assert {whose[number] for number in found} == passing
        assert by_words[0] == by_words[1] == by_words[2]
        assert near[0] == near[1] == near[2]
        assert len(near[0]) == among.passages


async def test_what_passes_is_looked_up_once_and_anew_when_something_changed(
    here: Shelf, scope: Scope, other: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Filter] = []
    look = allowing.allowed
    monkeypatch.setattr(allowing, "allowed", lambda *given: looked.append(given[2]) or look(*given))  # type: ignore[func-returns-value]
    for number in range(3):
        await here.put(scope, f"d{number}", "A whale.", tags=("big",), collection="sea")
        await here.put(other, f"d{number}", "A whale.", tags=("big",), collection="sea")
    passing, big, sea = Passing(), Filter(tags=("big",)), Filter(collections=("sea",))

    async def documents(filter: Filter, whose: Scope = scope) -> tuple[set[str], int]:
        """Which pass, and how often somebody had to look."""
        found = await here.database.read(passing.of, whose, filter)
        assert found is not None
        names = {each.split("_")[2] for each in found.within[1][0].strip("{}").split(",")} if found.passages else set()
        assert found.passages == len(names)
        return names, len(looked)

    assert await here.database.read(passing.of, scope, Filter()) is None
    assert await documents(big) == await documents(big) == ({"d0", "d1", "d2"}, 1)
    assert await documents(sea) == await documents(sea) == ({"d0", "d1", "d2"}, 2)
    assert await documents(big, other) == ({"d0", "d1", "d2"}, 3)
    await here.take(scope, "d1")
    assert await documents(big) == await documents(big) == ({"d0", "d2"}, 4)
    assert await documents(big, other) == ({"d0", "d1", "d2"}, 4)
    await here.put(scope, "d3", "Bread.", collection="bakery")
    assert await documents(sea) == ({"d0", "d2"}, 5), "since the one before the last change"
    assert await documents(sea) == ({"d0", "d2"}, 5)
    await here.put(scope, "d4", "Bread.", collection="bakery")
    assert await documents(sea) == ({"d0", "d2"}, 5), "nothing changed where it looks"
    await here.database.write(lambda session: rename(session, "col_acme_sea", "ocean"))
    assert await documents(sea) == (set(), 6)
    assert await here.find(scope, "whale", filter=sea) == await here.find(scope, "", filter=sea) == []
    await here.database.write(lambda session: rename(session, "col_acme_bakery", "sea"))
    assert (await documents(sea))[0] == {"d3", "d4"}


def rename(session: Session, collection: str, name: str) -> None:
    session.connection().exec_driver_sql(
        "UPDATE collections SET name = %s, name_key = %s WHERE id = %s", (name, name, collection)
    )


async def test_what_lets_most_through_is_mapped_when_it_is_asked_for_again(
    here: Shelf, scope: Scope, other: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowing, "MANY", 2)
    for number in range(4):
        await here.put(scope, f"d{number}", ["A whale.", "A river."], tags=("most",) if number else ())
        await here.put(other, f"d{number}", ["A whale.", "A river."], tags=("most",))
    await here.database.write(counts.fold, scope)
    passing, most = Passing(), Filter(tags=("most",))

    async def of() -> Allowed:
        found = await here.database.read(passing.of, scope, most)
        assert found is not None
        return found

    async def map_if_asked() -> Filter | None:
        again = passing.asked_again(scope)
        if again is not None:
            await here.database.read(passing.map, scope, again)
        return again

    first = await of()
    assert (first.unmapped, first.passages, await map_if_asked()) == (True, 6, None)
    assert await of() == first
    assert (await map_if_asked(), await map_if_asked()) == (most, None)
    second = await of()
    assert (second.unmapped, second.passages, second.passes != first.passes) == (False, 6, True)
    assert (await of(), await map_if_asked()) == (second, None)
    await here.put(scope, "d4", "Bread.")
    with monkeypatch.context() as known:  # for a while, that they are many
        known.setattr(allowing, "allowed", None)
        assert (await of()).unmapped
    monkeypatch.setattr(allowing, "LARGEST", 1)
    await of()
    assert await map_if_asked() == most
    assert (await of(), await map_if_asked()) == (first._replace(of=(await of()).of, unmapped=False), None), "too far"
    monkeypatch.setattr(allowing, "MAPPABLE", 2)
    passing = Passing()
    assert [(await of()).unmapped for _ in range(2)] == [False, False]


async def test_searches_find_the_same_once_there_is_a_map(
    here: Shelf, scope: Scope, other: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(allowing, "MANY", 2)
    monkeypatch.setattr(words, "MOST_ROWS", 2)  # else all that passes is fetched
    made: list[Allowed] = []
    make = allowing.mapped
    monkeypatch.setattr(allowing, "mapped", lambda *given: made.append(make(*given)) or made[-1])  # type: ignore[func-returns-value]
    most = Filter(tags=("most",))

    async def found() -> set[str]:
        """By each way to search, three times: once, again, and with the map that this is worth."""
        names = []
        for _ in range(3):
            for query, meaning in (("whale", True), ("whale", False), ("", True)):
                names.append(frozenset(await here.find(scope, query, filter=most, k=100, meaning=meaning)))
            await here.index.settled()  # type: ignore[attr-defined]
        assert len(set(names)) == 1
        return set(names[0])

    for number in range(8):
        await here.put(scope, f"d{number}", "A whale.", tags=("most",) if number else ())
        await here.put(other, f"d{number}", "A whale.", tags=("most",))
    await here.database.write(counts.fold, scope)
    assert await found() == {"d1", "d2", "d3", "d4", "d5", "d6", "d7"}
    assert [each.passages for each in made] == [7]
    await here.take(scope, "d1")
    await here.put(scope, "d8", "A whale.", tags=("most",))
    await here.put(scope, "d9", "A whale.")
    assert await found() == {"d2", "d3", "d4", "d5", "d6", "d7", "d8"}
    assert [each.passages for each in made] == [7, 7]
    assert await found() == {"d2", "d3", "d4", "d5", "d6", "d7", "d8"}
    assert len(made) == 2


async def test_what_passes_may_have_no_vectors_yet(here: Shelf, scope: Scope) -> None:
    await here.put(scope, "ready", "A whale.")
    await here.put(scope, "waiting", "Bread.", vectors=False)
    [question] = await EMBEDDER.embed(["whale"], query=True)
    among, known = listed("{doc_acme_waiting}", 20_000), Space(graph=False, chunks=30_000)  # as if they were many
    near = here.database.read(vectors.nearest, scope, "hash-64/fp32", question, 5, known, Kept(0), among)
    assert await near == {}


async def test_signs_are_put_together_once_and_anew_when_something_changed(
    here: Shelf, scope: Scope, other: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, put_together = signs._read, []
    monkeypatch.setattr(signs, "_read", lambda *given: put_together.append(given) or read(*given))
    for number in range(6):
        await here.put(
            scope, f"d{number}", [f"{passage(9)} {number}.{each}" for each in range(4)], tags=("odd",) * (number % 2)
        )
        await here.put(other, f"d{number}", [passage(9)])
    [question] = await EMBEDDER.embed(["whale on the river"], query=True)
    kept: KeptSigns = Kept(1_000_000)
    passing, known, again = Passing(), Space(graph=False, chunks=30_000), here.database.read

    async def whose(filter: Filter = Filter(tags=("odd",))) -> dict[str, int]:
        """How many passages of each document are found; as many as are found with nothing kept."""
        among = await again(passing.of, scope, filter)
        among = among and among._replace(passages=20_000)  # as if they were many
        given = scope, "hash-64/fp32", question, 30, known
        found = await again(vectors.nearest, *given, kept, among)
        assert found == await again(vectors.nearest, *given, Kept(0), among)
        put_together.pop()
        of = await again(documents_of)
        return Counter(of[number].removeprefix("doc_acme_") for number in found)

    assert await whose() == await whose() == {"d1": 4, "d3": 4, "d5": 4}
    assert len(put_together) == 1
    assert len(await whose(Filter())) == len(await whose(Filter())) == 6
    assert len(put_together) == 2
    await here.take(scope, "d3")
    assert await whose() == await whose() == {"d1": 4, "d5": 4}
    await here.put(scope, "d3", ["Another text.", "And one more."], tags=("odd",))
    assert await whose() == await whose() == {"d1": 4, "d3": 2, "d5": 4}
    assert len(put_together) == 4
    await here.put(other, "d9", "Of no interest here.")
    assert await whose() == {"d1": 4, "d3": 2, "d5": 4}
    assert len(put_together) == 4
    assert await whose(Filter(documents=("doc_acme_d4",))) == {"d4": 4}


def test_what_was_asked_for_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [Signs(np.zeros(1, np.int64), np.full((6, 1), each, np.uint64)) for each in range(4)]
    kept: Kept[int, Signs] = Kept(3 * (ENTRY + made[0].bytes), seconds=9)
    for key, each in enumerate(made[:3]):
        kept.keep(key, each)
    assert kept.get(0) is made[0]
    kept.keep(3, made[3])
    kept.keep(3, made[3])
    assert [kept.get(key) for key in range(4)] == [made[0], None, made[2], made[3]]
    kept.keep(1, made[1]._replace(numbers=np.zeros(9999, np.int64)))  # more than there is room for
    assert kept.get(1) is None
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert [kept.get(key) for key in range(4)] == [None] * 4


def test_the_graph_is_asked_where_that_is_sooner_done() -> None:
    known, choose = Space(graph=True, chunks=100_000), vectors._breadth
    assert choose(Space(graph=False, chunks=100_000), 20, None) == 0
    assert choose(known, 20, None) == 120
    assert choose(known, 200, None) == 200
    assert choose(known, 20, listed("", 50_000)) == 120
    assert choose(known, 20, listed("", 22_000)) == 160
    assert choose(known, 20, listed("", 20_000)) == 0  # their signs are sooner looked through
    assert choose(known, 200, listed("", 22_000)) == 0  # it would have to bring more than it can
    assert choose(known, 20, listed("", 0)) == 0
    assert choose(Space(graph=True, chunks=1_000_000), 20, None) == 601


async def test_the_signs_of_vectors_are_kept_with_them(here: Shelf, scope: Scope, other: Scope) -> None:
    def alike(session: Session, scope: Scope) -> tuple[dict[int, bytes], dict[int, bytes]]:
        """The signs by number of chunk: as they are kept, and as the vectors have them now."""
        run = session.connection().exec_driver_sql
        kept: dict[int, bytes] = {}
        for packed, together, width in run("SELECT numbers, signs, dimensions / 8 FROM vector_signs"):
            chunks = np.frombuffer(packed, ">i8").tolist()
            found = {chunk: together[place * width :][:width] for place, chunk in enumerate(chunks)}
            assert not kept.keys() & found.keys()
            kept |= found
        rows = run("SELECT number, substring(bit_send(binary_quantize(vector)) FROM 5) FROM chunk_vectors")
        return kept, {number: bytes(signs) for number, signs in rows}

    for number in range(4):
        await here.put(scope, f"d{number}", [passage(9) for _ in range(5)])
    await here.put(other, "d", passage(9))
    steps: list[tuple[Any, ...]] = [
        (here.index.add_vectors, "hash-64/fp32", ["chk_acme_d1_2", "chk_acme_d2_0"], -np.ones((2, 64)) / 8),
        (here.index.remove_document, "doc_acme_d3"),
        (here.index.remove_vectors, ["another/fp32"], "left", 7),
    ]
    for left, (step, *arguments) in zip((20, 15, 8), steps, strict=True):
        await here.database.write(step, scope, *arguments)
        kept, there = await here.database.read(alike, scope)
        assert kept == there
        assert len(kept) == left
    kept, there = await here.database.read(alike, other)
    assert kept == there
    assert len(kept) == 1


async def test_a_graph_left_half_made_is_made_again(here: Shelf, scope: Scope, postgres_url: str) -> None:
    import psycopg

    await here.put(scope, "d", [f"{passage(6)} {number}" for number in range(30)])
    await here.index.settled()  # type: ignore[attr-defined]
    [made] = await here.database.write(graphs.tend, scope, 20)
    with psycopg.connect(postgres_url) as connection:  # as a build leaves it that was killed
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", (made.removeprefix("made "),)
        )
    assert await plan(here, scope) == {"graph": False}
    assert await here.find(scope, "whale", k=1) == ["d"]
    done = await here.database.write(graphs.tend, scope, 20)
    assert [each.split("_")[0] for each in done] == ["dropped graph", "made graph"]
    assert await plan(here, scope) == {"graph": True}


async def test_another_width_may_take_the_place_of_what_is_gone(here: Shelf, scope: Scope) -> None:
    await here.put(scope, "whales", "A whale.")
    await here.take(scope, "whales")
    await here.put(scope, "bread", "Bread.", vectors=False)
    add: Any = here.index.add_vectors
    await here.database.write(add, scope, "hash-64/fp32", ["chk_acme_bread_0"], np.ones((1, 32)) / np.sqrt(32))
    found = await here.index.search(scope, "", np.ones(32), model="hash-64/fp32", k=1, filter=Filter())
    assert await here.ids(found) == ["chk_acme_bread_0"]


def test_the_commonest_words_bring_in_their_champions_only() -> None:
    rare, common, commonest = Asked(1, 11, 1), Asked(2, 12, 1), Asked(3, 13, 1)
    holding = {1: 50, 11: 20, 2: 3000, 12: 600, 3: 60_000, 13: 700}
    choose: Any = words._lists
    assert choose([commonest, rare, common], holding, 200, 4000) == [1, 2, 13]
    assert choose([commonest, rare, common], holding, 200, 3000) == [1, 12, 13]
    assert choose([commonest], {3: 60_000, 13: 700}, 200, 4000) == [13]
    assert choose([commonest], {3: 60_000, 13: 2}, 200, 4000) == [13, 3]  # too few champions to choose from
    assert choose([rare], holding, 200, 4000) == [1]


async def test_of_many_chunks_the_best_are_scored(here: Shelf, scope: Scope) -> None:
    rng = random.Random(7)
    said = [f"w{number}" for number in range(400)]  # each less often than the one before, as words are

    def told(length: int) -> str:
        return " ".join(rng.choices(said, weights=[1 / (place + 3) for place in range(len(said))], k=length))

    for number in range(10):
        await here.put(scope, f"d{number}", [told(rng.randint(5, 80)) for _ in range(40)], title=told(2))

    def best(session: Session, scope: Scope, query: str, exact: bool) -> list[tuple[int, float]]:
        return [(each.number, each.score) for each in words.search(session, scope, query, 20, exact=exact)]

    for query in ("w1 w2 w30", "w0 w5 w8 w40 w90", "w4 w6 w7 w9 w200", "w3"):
        found, every = [await here.database.read(best, scope, query, exact) for exact in (False, True)]
        assert len(found) == 20
        assert found[:3] == every[:3]
        assert sum(score for _, score in found) >= 0.98 * sum(score for _, score in every)


async def test_what_an_older_version_wrote_is_told_apart_as_well(here: Shelf, scope: Scope) -> None:
    def impacts(session: Session, scope: Scope) -> list[tuple[int, dict[str, float]]]:
        rows = session.connection().exec_driver_sql("SELECT number, impacts::text FROM chunk_words ORDER BY number")
        return [
            (number, dict(each.split(":") for each in told[1 : told.index("}")].split(","))) for number, told in rows
        ]

    await here.put(scope, "d", [passage(40), "whale " * 300, "ice"], title="River bridge")
    written = await here.database.read(impacts, scope)
    for target in ("0022", "head"):
        await here.database.write(migrate_once, target)
    made = await here.database.read(impacts, scope)
    assert [number for number, _ in made] == [number for number, _ in written]
    for (_, mine), (_, theirs) in zip(made, written, strict=True):
        assert {place: float(value) for place, value in mine.items()} == {
            place: pytest.approx(float(value), abs=1e-3) for place, value in theirs.items()
        }
    assert await here.find(scope, "whale", k=1, meaning=False) == ["d"]

    def forget(session: Session, scope: Scope) -> None:  # it writes none at all while both versions run
        session.connection().exec_driver_sql("UPDATE chunk_words SET impacts = NULL")

    await here.database.write(forget, scope)
    assert await here.find(scope, "whale", k=1, meaning=False) == ["d"]


async def test_each_row_holds_its_words_and_nothing_else_however_many_are_written_at_once(
    here: Shelf, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against what is told of each word by itself: a word weighs 4 halves in the title and 2 in the text."""
    monkeypatch.setattr(words, "AT_ONCE", 4)
    texts = [passage(RNG.randint(1, 60)) for _ in range(8)] + ["", "--- !", "whale " * 300, "ice"]
    await here.put(scope, "d", texts, title="Whales")

    def kept(session: Session) -> list[tuple[int, list[int], bytes]]:
        found = session.connection().exec_driver_sql("SELECT length, words, times FROM chunk_words ORDER BY number")
        return [(length, list(words), bytes(times)) for length, words, times in found]

    rows = await here.database.read(kept)
    for text, (length, numbers, times) in zip(texts, rows, strict=True):
        each = Counter(word for piece in text.split() for word in stems([piece]).elements())
        weighed = Counter({word: 2 * count for word, count in each.items()}) + Counter({"whale": 4})
        assert length == each.total() + 1
        assert numbers == sorted(set(numbers))
        told = dict(zip(numbers, times, strict=True))
        assert {number: count for number, count in told.items() if count} == {
            number_of(scope.tenant, word): min(255, count) for word, count in weighed.items()
        }
        champions = {number_of(scope.tenant, word, champion=True) for word in weighed}
        assert {number for number, count in told.items() if not count} <= champions
    assert number_of(scope.tenant, "whale", champion=True) in rows[-2][1]

    def counted(session: Session) -> Counts:
        return counts.of(session, scope, [number_of(scope.tenant, "whale"), number_of(scope.tenant, "ic")])

    known = await here.database.read(counted)
    assert (known.chunks, known.tokens) == (len(texts), sum(length for length, *_ in rows))
    assert [*known.holding.values()] == [len(texts), sum("ice" in text.split() for text in texts)]


async def test_a_word_said_a_thousand_times_counts_as_often_as_can_be_kept(here: Shelf, scope: Scope) -> None:
    await here.put(scope, "often", "whale " * 1000)
    await here.put(scope, "never", "bread")
    assert await here.find(scope, "whale", meaning=False) == ["often"]


async def test_an_old_pgvector_is_told(here: Shelf, scope: Scope, postgres_url: str) -> None:
    import psycopg

    await here.database.write(migrate_once, "0022")
    with psycopg.connect(postgres_url) as connection:
        connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(TerraceError, match=r"pgvector 0\.7\.4, and Terrace needs 0\.8 or later"):
        await here.database.write(migrate_once)


async def waiting(shelf: Shelf, scope: Scope) -> int:
    return await rows(shelf, "word_changes", scope)


async def rows(shelf: Shelf, table: str, scope: Scope) -> int:
    def count(session: Session, scope: Scope) -> int:
        found = session.connection().exec_driver_sql(f"SELECT count(*) FROM {table}")  # its own: there is a wall
        return int(found.scalar_one())

    return await shelf.database.read(count, scope)


async def plan(shelf: Shelf, scope: Scope) -> dict[str, bool]:
    space = await shelf.database.read(vectors.space, scope, "hash-64/fp32", 64)
    assert space is not None
    return {"graph": space.graph}


async def test_the_wall_between_tenants_keeps_no_search_from_the_words_index(here: Shelf, scope: Scope) -> None:
    def explained(session: Session, scope: Scope) -> str:
        session.connection().exec_driver_sql("SET LOCAL enable_seqscan = off")
        rows = session.connection().exec_driver_sql("EXPLAIN SELECT number FROM chunk_words WHERE words && '{1}'")
        return "\n".join(rows.scalars())

    assert "ix_chunk_words_words" in await here.database.read(explained, scope)
