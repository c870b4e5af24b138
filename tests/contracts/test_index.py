"""One suite for every index: what goes in is found, what is taken out is gone, nobody sees another's."""

import asyncio
import functools
import itertools
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlmodel import Session, select

from terrace.knowledge import store
from terrace.knowledge.base import Chunk, Filter, Index, IndexedChunk, Scored, Span
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.index import MemoryIndex, SQLiteIndex, open_index, postgres, sqlite
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow, TagRow
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

MODEL = "hash-64/fp32"
EMBEDDER = HashEmbedder()

WHALES = "The blue whale is the largest animal that has ever lived."
BRIDGES = "A suspension bridge hangs its deck from cables between towers."
BREAD = "Sourdough bread rises slowly because wild yeast works slowly."


class Shelf:
    """Puts documents of one chunk each on a shelf: rows as ingestion writes them, words and vectors into the index."""

    def __init__(self, database: Database, index: Index) -> None:
        self.database = database
        self.index = index

    async def put(
        self, scope: Scope, name: str, texts: Sequence[str] | str, *, title: str = "", collection: str = "default",
        tags: Sequence[str] = (), vectors: bool = True,
    ) -> None:  # fmt: skip
        texts = [texts] if isinstance(texts, str) else list(texts)
        rows = np.asarray(await EMBEDDER.embed(texts)) if texts else np.zeros((0, 64))
        document = f"doc_{scope.tenant}_{name}"
        ids = [f"chk_{scope.tenant}_{name}_{ordinal}" for ordinal in range(len(texts))]

        def write(session: Session) -> None:
            collection_id = _collection(session, scope, collection)
            _document(session, scope, document, name, title, collection_id, len(texts))
            session.add_all(TagRow(document_id=document, tag=tag, tenant_id=scope.tenant) for tag in tags)
            session.add_all(_chunk(scope, document, id, at, title, text) for at, (id, text) in _numbered(ids, texts))
            session.flush()
            chunks = [
                IndexedChunk(id, document, collection_id, title, Chunk(at, Span(0, len(text)), text, None))
                for at, (id, text) in _numbered(ids, texts)
            ]
            self.index.add_text(session, scope, chunks)
            if vectors:
                self.index.add_vectors(session, scope, MODEL, ids, rows)
            store.changed(session, scope, collection_id)

        await self.database.write(write)

    async def take(self, scope: Scope, name: str) -> None:
        document = f"doc_{scope.tenant}_{name}"

        def write(session: Session) -> None:
            self.index.remove_document(session, scope, document)
            row = session.get_one(DocumentRow, document)
            store.changed(session, scope, row.collection_id)
            for table in (ChunkRow, TagRow):
                session.execute(table.__table__.delete().where(table.__table__.c.document_id == document))  # type: ignore[attr-defined]
            session.delete(row)

        await self.database.write(write)

    async def find(
        self, scope: Scope, query: str, *, k: int = 5, filter: Filter = Filter(), meaning: bool = True
    ) -> list[str]:
        return [id.split("_")[2] for id in await self.ids(await self.scored(scope, query, k, filter, meaning))]

    async def ids(self, found: Sequence[Scored]) -> list[str]:
        """Of the chunks that were found."""
        rows = await self.database.read(lambda session: session.exec(select(ChunkRow)).all())
        known = {row.number: row.id for row in rows}
        return [known[each.number] for each in found]

    async def scored(
        self, scope: Scope, query: str, k: int = 5, filter: Filter = Filter(), meaning: bool = True
    ) -> list[Scored]:
        vector = (await EMBEDDER.embed([query], query=True))[0] if meaning else None
        return await self.index.search(scope, query, vector, model=MODEL if meaning else None, k=k, filter=filter)

    async def counts(self, scope: Scope) -> dict[str, int]:
        return await self.database.read(self.index.counts, scope)


def _numbered(ids: Sequence[str], texts: Sequence[str]) -> Any:
    return enumerate(zip(ids, texts, strict=True))


def _collection(session: Session, scope: Scope, name: str) -> str:
    id = f"col_{scope.tenant}_{name}"
    if session.get(CollectionRow, id) is None:
        session.add(CollectionRow(id=id, tenant_id=scope.tenant, name=name, name_key=name.casefold(), created_at=0))
        session.flush()
    return id


def _document(session: Session, scope: Scope, id: str, name: str, title: str, collection_id: str, chunks: int) -> None:
    session.add(
        DocumentRow(
            id=id, tenant_id=scope.tenant, collection_id=collection_id, name=name, name_key=name, title=title,
            media_type="text/plain", bytes=1, sha256=sha256(id.encode()).hexdigest(), blob="blob", created_at=0,
            updated_at=0, chunk_count=chunks,
        )
    )  # fmt: skip
    session.flush()


def _chunk(scope: Scope, document: str, id: str, ordinal: int, title: str, text: str) -> ChunkRow:
    return ChunkRow(
        id=id, tenant_id=scope.tenant, document_id=document, ordinal=ordinal, start_char=0, end_char=len(text),
        title=title, text=text, text_sha256=sha256(text.encode()).hexdigest(),
    )  # fmt: skip


@asynccontextmanager
async def stored_on(request: pytest.FixtureRequest, kind: str) -> AsyncIterator[Shelf]:
    """An empty index in an empty database of this kind."""
    database: Database
    if kind == "postgresql":
        database = PostgreSQLDatabase(request.getfixturevalue("postgres_url"), connections=3)
    else:
        path = request.getfixturevalue("tmp_path") / "index.db"
        shutil.copy(request.getfixturevalue("migrated"), path)
        database = SQLiteDatabase(path, durability="normal")
    index = open_index(database)
    yield Shelf(database, index)
    await index.close()
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
async def shelf(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    """On each database, and in memory."""
    async with stored_on(request, "sqlite" if request.param == "memory" else request.param) as shelf:
        yield Shelf(shelf.database, MemoryIndex()) if request.param == "memory" else shelf


@pytest.fixture(params=["sqlite", "postgresql"])
async def stored(request: pytest.FixtureRequest) -> AsyncIterator[Shelf]:
    async with stored_on(request, request.param) as shelf:
        yield shelf


async def test_an_empty_index_finds_nothing(shelf: Shelf, scope: Scope) -> None:
    assert await shelf.find(scope, "whale") == []
    assert await shelf.counts(scope) == {"chunks": 0, "vectors": 0}


async def test_the_chunk_that_answers_comes_first(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "whales", WHALES)
    await shelf.put(scope, "bridges", BRIDGES)
    await shelf.put(scope, "bread", BREAD)
    assert (await shelf.find(scope, "the largest whale"))[0] == "whales"
    assert (await shelf.find(scope, "cables of a bridge"))[0] == "bridges"
    best = (await shelf.scored(scope, "sourdough yeast"))[0]
    assert 0.9 < best.score <= 1
    assert best.text_score is not None
    assert best.vector_score is not None


async def test_words_alone_when_there_is_no_vector(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "whales", WHALES, vectors=False)
    await shelf.put(scope, "bridges", BRIDGES, vectors=False)
    assert await shelf.find(scope, "whale", meaning=False) == ["whales"]
    assert await shelf.find(scope, "whale") == ["whales"]
    assert await shelf.find(scope, "zeppelin", meaning=False) == []
    assert await shelf.counts(scope) == {"chunks": 2, "vectors": 0}


async def _later(vector: Any, when: asyncio.Event | None = None) -> Any:
    async with asyncio.timeout(10):
        await (when.wait() if when else asyncio.sleep(0))
    return vector


async def test_a_vector_that_is_still_on_its_way_finds_the_same(shelf: Shelf, scope: Scope) -> None:
    for name, text in (("whales", WHALES), ("bridges", BRIDGES), ("bread", BREAD)):
        await shelf.put(scope, name, text)
    await shelf.put(scope, "unread", "A whale that is not embedded yet.", vectors=False)
    filters = Filter(), Filter(documents=("doc_acme_whales", "doc_acme_unread")), Filter(documents=("doc_acme_none",))
    for filter, query in itertools.product(filters, ("the largest whale", "whalish", "zzz", "")):
        vector = (await EMBEDDER.embed([query or "whale"], query=True))[0]
        ask = functools.partial(shelf.index.retrieve, scope, query, model=MODEL, k=5, filter=filter)
        at_hand = await shelf.index.search(scope, query, vector, model=MODEL, k=5, filter=filter)
        assert await shelf.database.read(await ask(_later(vector))) == at_hand
        by_words = await shelf.index.search(scope, query, None, model=None, k=5, filter=filter)
        assert await shelf.database.read(await ask(_later(None))) == by_words


async def test_what_words_alone_find_gets_its_cosines_late(
    stored: Shelf, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (postgres.vectors, sqlite.vectors):
        monkeypatch.setattr(module, "CANDIDATES", 1)  # nearest to the question, or two for each that is wanted
    for number in range(8):
        await stored.put(scope, f"bridges{number}", BRIDGES[: 60 - 5 * number])
    await stored.put(scope, "bread", BREAD)
    vector = (await EMBEDDER.embed([BRIDGES], query=True))[0]
    ask = functools.partial(stored.index.retrieve, scope, "yeast", model=MODEL, k=3, filter=Filter())
    found = await stored.database.read(await ask(_later(vector)))
    assert found == await stored.index.search(scope, "yeast", vector, model=MODEL, k=3, filter=Filter())
    near = await stored.index.search(scope, "", vector, model=MODEL, k=6, filter=Filter())
    bread = dict(zip(await stored.ids(found), found, strict=True))["chk_acme_bread_0"]
    assert bread.number not in {each.number for each in near}
    assert bread.vector_score is not None


async def test_words_are_looked_for_while_the_vector_is_on_its_way(
    stored: Shelf, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored.put(scope, "whales", WHALES)
    read, looked = stored.database.read, asyncio.Event()

    async def telling(work: Any, *args: Any) -> Any:
        found = await read(work, *args)
        if "words" in work.__name__:
            looked.set()
        return found

    monkeypatch.setattr(stored.database, "read", telling)
    vector = _later((await EMBEDDER.embed(["whale"]))[0], looked)
    ranking = await stored.index.retrieve(scope, "whale", vector, model=MODEL, k=5, filter=Filter())
    [found] = await read(ranking)
    assert found.text_score is not None
    assert found.vector_score is not None


async def test_no_signs_are_read_for_a_vector_that_does_not_come(
    stored: Shelf, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored.put(scope, "whales", WHALES)
    read, asked = stored.database.read, []

    async def telling(work: Any, *args: Any) -> Any:
        asked.append(work.__name__)
        return await read(work, *args)

    monkeypatch.setattr(stored.database, "read", telling)
    await stored.index.retrieve(scope, "whale", _later(None), model=MODEL, k=5, filter=Filter())
    assert asked == ["_by_words"]


async def test_meaning_alone_when_no_word_matches(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "whales", WHALES)
    await shelf.put(scope, "bread", BREAD)
    found = await shelf.scored(scope, "whalish")  # near in spelling, which is this embedder's idea of meaning
    assert (await shelf.ids(found))[0].endswith("whales_0")
    assert found[0].text_score is None


async def test_a_document_still_being_embedded_is_found_beside_finished_ones(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "bread", BREAD)
    await shelf.put(scope, "whales", WHALES, vectors=False)
    assert (await shelf.find(scope, "blue whale animal"))[0] == "whales"


async def test_a_title_counts_more_than_a_mention(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "mention", "This text mentions glaciers once, among other words of no import.")
    await shelf.put(
        scope, "titled", "These rivers of ice move slowly, year by year, down their valleys.", title="Glaciers"
    )
    assert (await shelf.find(scope, "glaciers", meaning=False))[0] == "titled"


async def test_k_limits(shelf: Shelf, scope: Scope) -> None:
    for number in range(8):
        await shelf.put(scope, f"w{number}", f"{WHALES} Note {number}.")
    assert len(await shelf.find(scope, "whale", k=3)) == 3


async def test_nobody_sees_another_tenants_text(shelf: Shelf, scope: Scope, other: Scope) -> None:
    await shelf.put(scope, "whales", WHALES)
    await shelf.put(other, "bridges", BRIDGES)
    assert await shelf.find(other, "blue whale") == ["bridges"]  # by meaning everything is somehow near
    assert await shelf.find(other, "blue whale", meaning=False) == []
    assert await shelf.find(other, "whale", filter=Filter(documents=("doc_acme_whales",))) == []
    assert await shelf.counts(other) == {"chunks": 1, "vectors": 1}
    await shelf.database.write(shelf.index.remove_document, other, "doc_acme_whales")
    assert await shelf.find(scope, "blue whale") == ["whales"]


async def test_what_is_removed_is_gone_by_words_and_by_meaning(shelf: Shelf, scope: Scope) -> None:
    await shelf.put(scope, "whales", [WHALES, "Whales sing."])
    await shelf.put(scope, "bridges", BRIDGES)
    assert "whales" in await shelf.find(scope, "whale")
    await shelf.take(scope, "whales")
    assert await shelf.find(scope, "blue whale", meaning=False) == []
    assert await shelf.find(scope, "blue whale") == ["bridges"]
    assert await shelf.counts(scope) == {"chunks": 1, "vectors": 1}
    await shelf.put(scope, "whales", "Whales came back.")
    assert (await shelf.find(scope, "whales back"))[0] == "whales"


async def test_filters_restrict_before_they_rank(shelf: Shelf, scope: Scope) -> None:
    for number in range(30):
        await shelf.put(scope, f"w{number}", f"{WHALES} Copy {number}.")
    await shelf.put(scope, "bread", BREAD, collection="kitchen")
    only = Filter(documents=("doc_acme_bread",))
    assert await shelf.find(scope, "the largest blue whale", filter=only) == ["bread"]
    assert await shelf.find(scope, "largest animal", filter=Filter(collections=("col_acme_kitchen",))) == ["bread"]
    assert await shelf.find(scope, "whale", filter=Filter(documents=("doc_nowhere",))) == []


@given(query=st.text(max_size=60))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_query_breaks_it(stored: Shelf, scope: Scope, query: str) -> None:
    if (await stored.counts(scope))["chunks"] == 0:
        await stored.put(scope, "whales", WHALES)
    await stored.find(scope, query)
    assert await stored.find(scope, f'"whale" AND title: NEAR({query}* ^whale') == ["whales"]


# -- what only the stored index promises


async def test_collections_by_name_and_tags(stored: Shelf, scope: Scope) -> None:
    await stored.put(scope, "whales", WHALES, tags=("sea", "big"))
    await stored.put(scope, "bread", BREAD, collection="Kitchen", tags=("food",))
    assert await stored.find(scope, "whale", filter=Filter(collections=("kitchen",))) == ["bread"]
    assert await stored.find(scope, "bread", filter=Filter(tags=("sea", "land"))) == ["whales"]
    assert await stored.find(scope, "whale", filter=Filter(collections=(" KITCHEN",))) == ["bread"]
    assert await stored.find(scope, "bread", filter=Filter(tags=(" SEA",))) == ["whales"]
    assert await stored.find(scope, "bread", filter=Filter(collections=("kitchen",), tags=("sea",))) == []


async def test_a_rolled_back_write_leaves_no_trace(stored: Shelf, scope: Scope) -> None:
    def broken(session: Session) -> None:
        stored.index.remove_document(session, scope, "doc_acme_whales")
        raise ValueError

    await stored.put(scope, "whales", WHALES)
    with pytest.raises(ValueError):
        await stored.database.write(broken)
    assert await stored.find(scope, "whale", meaning=False) == ["whales"]
    assert await stored.find(scope, "whalish") == ["whales"]


async def test_another_process_own_index_follows(stored: Shelf, scope: Scope) -> None:
    """Two indexes on one database stand for two processes: neither tells the other anything but through it."""
    mine, theirs = stored, Shelf(stored.database, open_index(stored.database))
    await mine.put(scope, "whales", WHALES)
    assert await theirs.find(scope, "whalish") == ["whales"]
    await mine.put(scope, "bread", BREAD)
    assert set(await theirs.find(scope, "breadly")) == {"bread", "whales"}
    await mine.take(scope, "whales")
    assert await theirs.find(scope, "whalish") == ["bread"]
    assert await mine.find(scope, "whalish") == ["bread"]


@pytest.mark.parametrize("stored", ["sqlite"], indirect=True)
async def test_idle_tenants_leave_memory_and_come_back(stored: Shelf, scope: Scope, other: Scope) -> None:
    index = SQLiteIndex(stored.database, idle_seconds=0, max_bytes=1)
    shelf = Shelf(stored.database, index)
    await shelf.put(scope, "whales", WHALES)
    await shelf.put(other, "bread", BREAD)
    for _ in range(2):
        assert await shelf.find(scope, "whalish") == ["whales"]
        assert await shelf.find(other, "breadly") == ["bread"]
        assert index.resident == 1


@pytest.mark.parametrize("stored", ["sqlite"], indirect=True)
async def test_words_are_looked_for_once_however_many_passages_a_filter_lets_through(
    stored: Shelf, scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []
    ask = Connection.exec_driver_sql

    def heard(self: Connection, statement: str, parameters: Any = None) -> Any:
        asked.append((statement, parameters))
        return ask(self, statement, parameters)

    await stored.put(scope, "whales", [WHALES, BREAD])
    monkeypatch.setattr(Connection, "exec_driver_sql", heard)
    assert await stored.find(scope, "whale", filter=Filter(documents=("doc_acme_whales",)), meaning=False) == ["whales"]
    [(statement, parameters)] = [each for each in asked if "MATCH" in each[0]]

    def plan(session: Session) -> list[str]:
        return [row[3] for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]

    [words] = [step for step in await stored.database.read(plan) if "chunk_text_" in step]
    how, by = words.split(" INDEX ")[1].split(":")
    assert "=" not in by, "once for each row"
    assert not int(how) & 32, "ranked and sorted before anything is left out"


async def test_unchanged_text_finds_its_vector_again(stored: Shelf, scope: Scope, other: Scope) -> None:
    await stored.put(scope, "whales", WHALES)
    known, unknown = (sha256(text.encode()).hexdigest() for text in (WHALES, BREAD))
    read, index = stored.database.read, stored.index
    found = await read(index.known_vectors, scope, MODEL, [known, unknown])
    assert set(found) == {known}
    assert np.allclose(found[known], (await EMBEDDER.embed([WHALES]))[0], atol=1e-3)
    assert await read(index.known_vectors, scope, "another/model", [known]) == {}
    assert await read(index.known_vectors, other, MODEL, [known]) == {}


async def test_a_vector_is_replaced_not_doubled(stored: Shelf, scope: Scope) -> None:
    await stored.put(scope, "whales", WHALES)
    assert await stored.find(scope, "whalish") == ["whales"]
    rows = await EMBEDDER.embed([BREAD])
    await stored.database.write(stored.index.add_vectors, scope, MODEL, ["chk_acme_whales_0"], rows)
    assert (await stored.counts(scope))["vectors"] == 1
    found = await stored.scored(scope, BREAD)
    assert found[0].vector_score == pytest.approx(1, abs=1e-3)


async def test_vectors_of_another_width_are_refused(stored: Shelf, scope: Scope) -> None:
    from terrace.errors import Invalid

    await stored.put(scope, "whales", WHALES)
    await stored.put(scope, "bread", BREAD, vectors=False)
    for wrong in (np.ones((1, 32)), np.ones((2, 64)), np.ones(64)):
        with pytest.raises(Invalid):
            await stored.database.write(stored.index.add_vectors, scope, MODEL, ["chk_acme_bread_0"], wrong)


async def test_a_question_of_another_width_goes_by_words(stored: Shelf, scope: Scope) -> None:
    """A provider may put another model behind the same name."""
    await stored.put(scope, "whales", WHALES)
    found = await stored.index.search(scope, "whales", np.ones(32), model=MODEL, k=5, filter=Filter())
    assert [each.vector_score for each in found] == [None]


async def test_two_models_never_meet(stored: Shelf, scope: Scope) -> None:
    await stored.put(scope, "whales", WHALES)
    vector = (await EMBEDDER.embed(["zzz"]))[0]
    assert await stored.index.search(scope, "zzz", vector, model="another/fp32", k=5, filter=Filter()) == []


async def test_words_of_others_do_not_weigh_on_my_scores(stored: Shelf, scope: Scope, other: Scope) -> None:
    await stored.put(scope, "whales", WHALES)
    await stored.put(scope, "bread", BREAD)
    before = await stored.scored(scope, "whale", meaning=False)
    for number in range(20):
        await stored.put(other, f"w{number}", WHALES)
    assert await stored.scored(scope, "whale", meaning=False) == before


async def test_chunks_that_are_not_stored_cannot_be_indexed(stored: Shelf, scope: Scope) -> None:
    from terrace.errors import Internal

    ghost = IndexedChunk("chk_ghost", "doc_ghost", "col", "", Chunk(0, Span(0, 1), "x", None))
    with pytest.raises(Internal):
        await stored.database.write(stored.index.add_text, scope, [ghost])
