"""Search as doors call it: bounds, modes, and what a hit tells."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from sqlmodel import Session

from terrace.errors import Invalid, Missing, Unavailable
from terrace.knowledge.base import Chunk, Filter, Hit, Index, IndexedChunk, Scored, Span
from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.base import EmbeddingAbsent
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.hits import document_url, hits_of
from terrace.knowledge.index import open_index
from terrace.knowledge.index.fusion import fuse
from terrace.knowledge.index.words import content_words, match_expression
from terrace.knowledge.search import Search
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow
from terrace.storage import Database
from terrace.storage.database import driver_of
from terrace.types import Scope

EMBEDDER = HashEmbedder()
LEAVE = "Every parent may take 26 weeks of leave at full pay."

Put = Callable[[str], Awaitable[None]]


@pytest.fixture
async def index(database: Database, scope: Scope) -> Index:
    """Holds one document of one chunk, in the collection Handbook."""
    index = open_index(database)
    vectors = await EMBEDDER.embed([LEAVE])

    def write(session: Session) -> None:
        session.add(
            CollectionRow(id="col_1", tenant_id=scope.tenant, name="Handbook", name_key="handbook", created_at=0)
        )
        session.flush()
        session.add(
            DocumentRow(
                id="doc_1", tenant_id=scope.tenant, collection_id="col_1", name="leave.pdf", name_key="leave.pdf",
                title="Parental leave", media_type="application/pdf", bytes=1, sha256="0", blob="b", created_at=0,
                updated_at=0,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            ChunkRow(
                id="chk_1", tenant_id=scope.tenant, document_id="doc_1", ordinal=0, start_char=100, end_char=152,
                page=3, headings=["Benefits", "Families"], title="Parental leave", text=LEAVE, text_sha256="1",
            )
        )  # fmt: skip
        chunk = Chunk(0, Span(100, 152), LEAVE, 3, ("Benefits", "Families"))
        index.add_text(session, scope, [IndexedChunk("chk_1", "doc_1", "col_1", "Parental leave", chunk)])
        index.add_vectors(session, scope, EMBEDDER.name, ["chk_1"], vectors)

    await database.write(write)
    return index


@pytest.fixture
def search(database: Database, index: Index) -> Search:
    return Search(database, index, EMBEDDER)


@pytest.mark.both
async def test_a_hit_tells_where_it_stands(search: Search, scope: Scope) -> None:
    result = await search.search(scope, "parental leave")
    assert (result.mode, result.embedding) == ("hybrid", "hash-64/fp32")
    assert result.took_ms > 0
    (hit,) = result.hits
    assert (hit.document_name, hit.title, hit.collection) == ("leave.pdf", "Parental leave", "Handbook")
    assert (hit.text, hit.page, hit.start, hit.end) == (LEAVE, 3, 100, 152)
    assert hit.headings == ("Benefits", "Families")
    assert hit.url == "/documents/doc_1?page=3&start=100&end=152"
    assert hit.score == pytest.approx(1)
    assert hit.text_score is not None
    assert hit.vector_score is not None


async def test_headings_are_searched_too(search: Search, scope: Scope) -> None:
    assert [hit.chunk_id for hit in (await search.search(scope, "benefits", mode="text")).hits] == ["chk_1"]


async def test_modes(search: Search, scope: Scope) -> None:
    text = await search.search(scope, "parental", mode="text")
    assert (text.mode, text.embedding, text.hits[0].vector_score) == ("text", None, None)
    vector = await search.search(scope, "parental", mode="vector")
    assert (vector.mode, vector.hits[0].text_score) == ("vector", None)
    assert (await search.search(scope, "zzz", mode="text")).hits == []


@pytest.mark.both
async def test_another_tenant_finds_nothing(search: Search, database: Database, scope: Scope, other: Scope) -> None:
    assert (await search.search(other, "parental leave")).hits == []
    assert [len(await database.read(hits_of, whose, [Scored(1, 1.0)])) for whose in (scope, other)] == [1, 0]


async def test_passages_are_read_by_their_numbers(search: Search, database: Database, scope: Scope) -> None:
    """And not all that the tenant has, of which SQLite knows nothing yet: nobody ran ANALYZE."""
    more = """
        INSERT INTO chunks
            (id, tenant_id, document_id, ordinal, start_char, end_char, headings, title, text, text_sha256)
        SELECT 'chk_more_' || value, tenant_id, document_id, value, 0, 1, headings, title, '.', value
        FROM chunks, json_each(?)
    """

    def write(session: Session) -> None:
        session.connection().exec_driver_sql(more, (json.dumps([*range(1, 2000)]),))

    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    def read(session: Session) -> list[Hit]:
        driver_of(session).set_progress_handler(step, 1)
        found = hits_of(session, scope, [Scored(1, 1.0)])
        driver_of(session).set_progress_handler(None, 1)
        return found

    await database.write(write)
    assert [hit.chunk_id for hit in await database.read(read)] == ["chk_1"]
    assert 0 < steps < 2000


@pytest.mark.parametrize("query", ["", "  \n", "\0"])
async def test_an_empty_query_is_refused(search: Search, scope: Scope, query: str) -> None:
    with pytest.raises(Invalid, match="empty"):
        await search.search(scope, query)


@pytest.mark.parametrize("k", [0, -1, 101])
async def test_k_is_bounded(search: Search, scope: Scope, k: int) -> None:
    with pytest.raises(Invalid, match="between"):
        await search.search(scope, "leave", k=k)


async def test_a_very_long_query_is_cut(search: Search, scope: Scope) -> None:
    result = await search.search(scope, "parental leave " + "x" * 100_000)
    assert len(result.hits) == 1


@pytest.mark.both
async def test_an_unknown_collection_is_named(search: Search, scope: Scope, other: Scope) -> None:
    assert len((await search.search(scope, "leave", filter=Filter(collections=("HANDBOOK ",)))).hits) == 1
    assert len((await search.search(scope, "leave", filter=Filter(collections=("col_1",)))).hits) == 1
    with pytest.raises(Missing, match="nowhere"):
        await search.search(scope, "leave", filter=Filter(collections=("nowhere",)))
    with pytest.raises(Missing):
        await search.search(other, "leave", filter=Filter(collections=("col_1",)))


async def test_without_an_embedding_words_do(database: Database, index: Index, scope: Scope) -> None:
    search = Search(database, index, AbsentEmbedder("none", "Switched off."))
    result = await search.search(scope, "parental leave")
    assert (result.mode, result.embedding, len(result.hits)) == ("text", None, 1)
    with pytest.raises(EmbeddingAbsent, match="Switched off"):
        await search.search(scope, "parental leave", mode="vector")


async def test_an_embedding_that_fails_does_not_fail_a_search(
    database: Database, index: Index, scope: Scope, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(HashEmbedder):
        async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Any = None) -> Any:
            raise Unavailable("It broke.")

    assert (await Search(database, index, Broken()).search(scope, "leave")).mode == "text"
    assert "It broke." in caplog.text


@pytest.mark.both
async def test_who_is_refused_or_leaves_waits_for_no_embedding(database: Database, index: Index, scope: Scope) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(HashEmbedder):
        async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Any = None) -> Any:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    search = Search(database, index, Slow())
    async with asyncio.timeout(4):
        with pytest.raises(Missing, match="nowhere"):
            await search.search(scope, "leave", filter=Filter(collections=("nowhere",)))
        await ended.wait()
        begun.clear()
        ended.clear()
        leaving = asyncio.create_task(search.search(scope, "leave"))
        await begun.wait()
        leaving.cancel()
        await ended.wait()
        with pytest.raises(asyncio.CancelledError):
            await leaving


async def test_searches_at_once_agree(search: Search, scope: Scope) -> None:
    results = await asyncio.gather(*(search.search(scope, "parental leave") for _ in range(20)))
    assert {result.hits[0].chunk_id for result in results} == {"chk_1"}


def test_a_link_survives_any_id() -> None:
    assert document_url("a/b?c", 1, 2) == "/documents/a%2Fb%3Fc?start=1&end=2"


# -- fusion


def test_the_ranking_that_stands_out_decides() -> None:
    sure, unsure = {1: 9.0, 2: 1.0, 3: 0.9}, {1: 0.50, 2: 0.52, 3: 0.0}
    assert fuse(sure, unsure, 3)[0].number == 1
    vague, clear = {1: 5.1, 2: 5.0, 3: 4.9}, {1: 0.1, 2: 0.9, 3: 0.1}
    assert fuse(vague, clear, 3)[0].number == 2


def test_a_rare_word_that_two_passages_share_alike_still_counts() -> None:
    meaning = {number: 0.5 - 0.01 * number for number in range(1, 30)}
    best = [each.number for each in fuse({20: 4.0, 21: 4.0}, meaning, 2)]
    assert best == [20, 21]


def test_scores_stay_within_0_and_1() -> None:
    fused = fuse({1: 3.0, 2: 2.0}, {2: 0.4, 3: -0.2}, 10)
    assert [each.number for each in fused] == sorted((1, 2, 3), key=lambda n: -{e.number: e.score for e in fused}[n])
    assert all(0 <= each.score <= 1 for each in fused)
    assert fuse({}, {}, 10) == []
    assert fuse({}, {5: 0.3}, 10)[0].score == 1


# -- words


def test_stop_words_are_dropped_unless_there_is_nothing_else() -> None:
    assert content_words("What is the height of the tower?") == ["height", "tower"]
    assert content_words("to be or not to be") == ["to", "be", "or", "not"]


def test_a_query_is_plain_words() -> None:
    assert match_expression('NEAR("x" w*) AND -title:z^2') == '"near" OR "x" OR "w" OR "title" OR "z" OR "2"'
    assert match_expression("ﬁne Ⅷ") == '"fine" OR "viii"'
    assert match_expression("?!") == ""
    assert match_expression("word " * 5 + " ".join(f"w{n}" for n in range(500))).count("OR") == 47
