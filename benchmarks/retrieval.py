"""Search times against plain scans, on SQLite and, asked to, on a private PostgreSQL beside it.

    python -m benchmarks.retrieval --postgresql                       100,000 mixtures of real sentence embeddings
    python -m benchmarks.retrieval --postgresql --texts passages.txt  real ones, and their words; one passage a line
    python -m benchmarks.retrieval --postgresql --rows 1000000

Random vectors would say nothing about recall. Every time is of the whole call, SQL included, with nothing else
running; the reference is a float32 matrix product over all vectors in the same run. On a busy machine trust the CPU
column (PostgreSQL's own is in it) and the ratio to the scan. Ends with 1 when a budget is missed.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert
from sqlmodel import Session

from benchmarks.quality import SAMPLES
from benchmarks.start import cpu_seconds, tree
from terrace.knowledge.base import Chunk, Filter, Index, IndexedChunk, Span
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.index import open_index
from terrace.knowledge.search import Search
from terrace.knowledge.sentences import sentence_spans
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow, TagRow
from terrace.settings import Embedding
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.database import as_owner, own_locks
from terrace.storage.migrate import migrate
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

SCOPE = Scope()
MODEL = "real/int8"
SERVER = "TERRACE_BENCH_POSTGRESQL_PID"
K = 10
ASKED = 200
PER_DOCUMENT = 20
TAGS = {"fiftieth": 50, "tenth": 10, "half": 2}
PIECE = 10_000
ROUNDS = 5
SEED = 11


class Table:
    """Prints rows as they come and remembers whether a budget was missed."""

    def __init__(self) -> None:
        self.missed = False
        print(f"{'':<56}{'p50':>10}{'p95':>10}{'CPU':>10}{'budget p50 / p95':>22}")

    def times(self, name: str, seconds: list[float], cpu: float, p50: float = 0, p95: float = 0) -> None:
        """Budgets in milliseconds; 0 for none."""
        ordered = sorted(1000 * each for each in seconds)
        middle, high = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
        bound = f"{p50:g} / {p95:g} ms" if p95 else f"{p50:g} ms" if p50 else ""
        fine = (not p50 or middle <= p50) and (not p95 or high <= p95)
        self._row(f"{name:<56}{middle:>7.2f} ms{high:>7.2f} ms{1000 * cpu:>7.2f} ms{bound:>22}", fine)

    def share(self, name: str, value: float, least: float) -> None:
        self._row(f"{name:<56}{value:>10.4f}{'':>20}{f'>= {least:g}':>22}", value >= least)

    def _row(self, line: str, fine: bool) -> None:
        self.missed |= not fine
        print(line + ("" if fine else "   MISSED"), flush=True)


def sentences() -> list[str]:
    texts = [path.read_text() for path in sorted((SAMPLES / "documents").iterdir())]
    return [text[start:end] for text in texts for start, end in sentence_spans(text)]


def questions() -> list[str]:
    return [json.loads(line)["question"] for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]


def mixtures(real: Any, rows: int, rng: Any) -> Any:
    """float32 (rows, width): each two real embeddings and some noise of their own spread, made unit."""
    share = rng.uniform(0.3, 1.0, (rows, 1)).astype(np.float32)
    pairs = rng.integers(len(real), size=(2, rows))
    noise = rng.normal(size=(rows, real.shape[1])).astype(np.float32) * real.std(0) * 0.7
    mixed = share * real[pairs[0]] + (1 - share) * real[pairs[1]] + noise
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def texts(rows: int) -> list[str]:
    """Passages of six sentences each, drawn at random."""
    rng, pool = random.Random(SEED), sentences()
    return [" ".join(rng.choices(pool, k=6)) for _ in range(rows)]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Empty: a file of its own, or the PostgreSQL database at `url`."""
    with tempfile.TemporaryDirectory() as folder:
        database: Database
        if url:
            database = PostgreSQLDatabase(url)
        else:
            database = SQLiteDatabase(Path(folder) / "bench.db", durability="normal")
            await database.write(lambda session: migrate(session.connection()))
        yield database
        await database.close()


def _documents(session: Session, first: int, chunks: int) -> None:
    """One for each twenty chunks; the fiftieth, tenth and second of them are tagged so."""
    if not first:
        session.execute(
            insert(CollectionRow), {"id": "c", "tenant_id": SCOPE.tenant, "name": "c", "name_key": "c", "created_at": 0}
        )
    numbers = range(first // PER_DOCUMENT, -(-(first + chunks) // PER_DOCUMENT))
    session.execute(
        insert(DocumentRow),
        [
            {
                "id": f"doc_{number}", "tenant_id": SCOPE.tenant, "collection_id": "c", "name": "d", "name_key": "d",
                "media_type": "text/plain", "bytes": 1, "sha256": str(number), "state": "ready",
                "searchable": "meaning", "chunk_count": PER_DOCUMENT, "warnings": [], "blob": "b",
                "created_at": 0, "updated_at": 0,
            }
            for number in numbers
        ],
    )  # fmt: skip
    tags = [(number, tag) for number in numbers for tag, each in TAGS.items() if number % each == 0]
    if tags:
        session.execute(
            insert(TagRow), [{"document_id": f"doc_{n}", "tag": tag, "tenant_id": SCOPE.tenant} for n, tag in tags]
        )


def _chunks(session: Session, index: Index, first: int, passages: Sequence[str], *, words: bool) -> list[str]:
    _documents(session, first, len(passages))
    places = range(first, first + len(passages))
    rows: list[dict[str, Any]] = [
        {
            "id": f"chk_{place}", "tenant_id": SCOPE.tenant, "document_id": f"doc_{place // PER_DOCUMENT}",
            "ordinal": place, "start_char": 0, "end_char": 1, "text": text, "headings": [], "text_sha256": str(place),
        }
        for place, text in zip(places, passages, strict=True)
    ]  # fmt: skip
    session.execute(insert(ChunkRow), rows)
    if words:
        chunks = [
            IndexedChunk(row["id"], row["document_id"], "c", "", Chunk(0, Span(0, 1), text, None))
            for row, text in zip(rows, passages, strict=True)
        ]
        index.add_text(session, SCOPE, chunks)
    return [row["id"] for row in rows]


async def tended(database: Database) -> None:
    """What goes on beside searches, now: counts folded, graphs made, statistics known."""
    if database.dialect == "postgresql":
        from terrace.knowledge.index.postgres import counts, graphs

        started = time.perf_counter()
        await database.write(counts.fold, SCOPE)
        await database.write(graphs.tend, SCOPE)
        await database.write(_analyse)
        print(f"    graph, counts and statistics: {time.perf_counter() - started:.1f} s")


@own_locks
@as_owner
def _analyse(session: Session) -> None:
    session.connection().exec_driver_sql("ANALYZE")


def spent() -> float:
    """Seconds of processor time of this process, and of PostgreSQL."""
    pid = os.environ.get(SERVER)
    return time.process_time() + (sum(cpu_seconds(each) for each in tree(int(pid))) if pid else 0.0)


async def timed(calls: Sequence[Callable[[], Awaitable[Any]]]) -> tuple[list[float], float]:
    """Seconds of each call by the clock, and of processor time for one (the embedding process not counted)."""
    for call in calls[:3]:
        await call()
    took, began = [], spent()
    for call in [*calls] * ROUNDS:
        started = time.perf_counter()
        await call()
        took.append(time.perf_counter() - started)
    return took, (spent() - began) / len(took)


class Corpus:
    """Vectors and the passages they are of. `real`: embeddings of real texts, as they are or to be mixed from."""

    def __init__(self, passages: Sequence[str], stored: Any, asked: Any, questions: Sequence[str]) -> None:
        self.passages, self.stored, self.asked, self.questions = passages, stored, asked, questions


async def filled(database: Database, corpus: Corpus) -> InspectedIndex:
    index, rows = open_index(database), len(corpus.stored)
    started, began = time.perf_counter(), spent()
    for first in range(0, rows, PIECE):
        piece = corpus.stored[first : first + PIECE]
        passages = corpus.passages[first : first + PIECE] or [""] * len(piece)

        def write(session: Session, first: int = first, piece: Any = piece, passages: Any = passages) -> None:
            ids = _chunks(session, index, first, passages, words=bool(corpus.passages))
            index.add_vectors(session, SCOPE, MODEL, ids, piece)

        await database.write(write)
        if first == 0:
            await tended(database)  # a graph is made early and grows with what comes
    took, each = time.perf_counter() - started, 1000 * (spent() - began) / rows
    print(f"    {rows:,} written on {database.dialect} in {took:.1f} s, {each:.2f} ms of processor time each")
    await tended(database)
    return index


async def vectors(table: Table, url: str, corpus: Corpus, budgets: dict[str, float]) -> None:
    """By meaning alone, of all and of some documents, against a plain scan; then hybrid where there are passages."""
    async with opened(url) as database:
        index, rows, asked = await filled(database, corpus), len(corpus.stored), corpus.asked
        name = f"{rows:,} on {database.dialect}"
        started = time.perf_counter()
        await index.search(SCOPE, "", asked[0], model=MODEL, k=K, filter=Filter())
        print(f"    first search after a start: {time.perf_counter() - started:.2f} s")
        for tag, every in {"": 1, **TAGS}.items():
            filter = Filter(tags=(tag,)) if tag else Filter()
            calls = [
                functools.partial(index.search, SCOPE, "", vector, model=MODEL, k=K, filter=filter) for vector in asked
            ]
            found = [{int(each.chunk_id[4:]) for each in await call()} for call in calls]
            what = f"{name}, one document in {every}" if tag else name
            limits = (0, budgets.get("filtered", 0)) if tag else (budgets["p50"], 0)
            table.times(what, *await timed(calls), *limits)
            table.share(f"{what}: recall@10", recall(corpus.stored, asked, found, every), budgets["recall"])
        if corpus.passages:
            for tag in ("", *TAGS):
                ask = functools.partial(
                    index.search, SCOPE, model=MODEL, k=K, filter=Filter(tags=(tag,) if tag else ())
                )
                calls = [functools.partial(ask, q, v) for q, v in zip(corpus.questions, asked, strict=True)]
                what = f"{name}, words and meaning" + (f", {tag}" if tag else "")
                table.times(what, *await timed(calls), 0, 20 if url else 0)
        await index.close()


def recall(stored: Any, asked: Any, found: list[set[int]], every: int) -> float:
    numbers = np.arange(len(stored))
    allowed = numbers[numbers // PER_DOCUMENT % every == 0]
    right = 0
    for vector, mine in zip(asked, found, strict=True):
        scores = stored[allowed] @ vector if every > 1 else stored @ vector
        right += len(mine & set(allowed[np.argpartition(scores, -K)[-K:]].tolist()))
    return right / (K * len(asked))


def scan(table: Table, corpus: Corpus) -> None:
    scans, began = [], time.process_time()
    for vector in corpus.asked:
        started = time.perf_counter()
        np.argpartition(corpus.stored @ vector, -K)
        scans.append(time.perf_counter() - started)
    spent = (time.process_time() - began) / len(corpus.asked)
    table.times(f"{len(corpus.stored):,} vectors: float scan (reference)", scans, spent)


async def fulltext(table: Table, url: str, rows: int) -> None:
    async with opened(url) as database:
        index, passages = open_index(database), texts(rows)
        for first in range(0, rows, PIECE):
            await database.write(_chunks, index, first, passages[first : first + PIECE], words=True)
        await tended(database)
        ask = functools.partial(index.search, SCOPE, vector=None, model=None, k=K, filter=Filter())
        calls = [functools.partial(ask, asked) for asked in questions()]
        table.times(f"full text, {rows:,} chunks on {database.dialect}", *await timed(calls))
        await index.close()


async def whole(table: Table, url: str, embedder: Any, rows: int) -> None:
    async with opened(url) as database:
        index, passages = open_index(database), texts(rows)
        embedded = await embedder.embed(passages)

        def write(session: Session) -> None:
            ids = _chunks(session, index, 0, passages, words=True)
            index.add_vectors(session, SCOPE, embedder.name, ids, embedded)

        await database.write(write)
        await tended(database)
        search = Search(database, index, embedder)
        calls = [functools.partial(search.search, SCOPE, asked, k=K) for asked in questions()]
        table.times(f"search with its embedding, {rows:,} on {database.dialect}", *await timed(calls), 10, 20)
        await index.close()


def mixed(real: Any, asked: Any, rows: int) -> Corpus:
    stored, rng = np.empty((rows, real.shape[1]), np.float32), np.random.default_rng(SEED)
    for first in range(0, rows, PIECE):
        stored[first : first + PIECE] = mixtures(real, min(PIECE, rows - first), rng)
    return Corpus([], stored, asked, [])


async def run(options: argparse.Namespace, address: Callable[[], str]) -> bool:
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        embedder = open_embedder(Embedding(), Path(name))
        if options.texts:
            corpus = await embedded(embedder, options.texts, options.rows)
        else:
            corpus = mixed(await embedder.embed(sentences()), await embedder.embed(questions()), options.rows)
        urls = [lambda: "", address] if options.postgresql else [lambda: ""]
        for url in urls:
            await whole(table, url(), embedder, 2_000)
        await embedder.close()
    for url in urls:
        await fulltext(table, url(), 20_000)
    scan(table, corpus)
    large = options.rows > 100_000
    for url, p50 in zip(urls, (60, 15) if large else (7, 5), strict=False):
        least = 0.98 if large or url is address else 0.99
        await vectors(table, url(), corpus, {"p50": p50, "recall": least, "filtered": 0 if large else 20})
    return table.missed


async def embedded(embedder: Any, path: Path, rows: int) -> Corpus:
    """The last lines are the questions. Embeddings are kept beside the texts: they take minutes to make."""
    lines = (await asyncio.to_thread(path.read_text)).splitlines()[: rows + ASKED]
    kept = path.with_suffix(".npy")
    if not await asyncio.to_thread(kept.exists):
        print(f"embedding {len(lines):,} lines of {path}", flush=True)
        pieces = [await embedder.embed(lines[first : first + PIECE]) for first in range(0, len(lines), PIECE)]
        np.save(kept, np.concatenate(pieces).astype(np.float16))
    made = np.load(kept)[: len(lines)].astype(np.float32)
    rows = len(lines) - ASKED
    return Corpus(lines[:rows], made[:rows], made[rows:], lines[rows:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="also on a private PostgreSQL")
    parser.add_argument("--rows", type=int, default=100_000, help="a million takes 6 GB of memory and an hour")
    parser.add_argument("--texts", type=Path, help="a file of passages, one a line, instead of mixed embeddings")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        address = functools.cache(lambda: stack.enter_context(private_postgresql()))
        sys.exit(asyncio.run(run(options, lambda: address().create())))


@contextlib.contextmanager
def private_postgresql() -> Iterator[Any]:
    """With as much memory as the documentation asks for; what it writes need not outlive a power cut here."""
    from tests.postgres import OPTIONS, running

    OPTIONS.update(shared_buffers="1GB", autovacuum="on", max_wal_size="4GB")
    with running() as server:
        os.environ[SERVER] = str(server.pid)
        yield server


if __name__ == "__main__":
    main()
