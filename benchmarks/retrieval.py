"""Search times against plain scans, on SQLite and, asked to, on a private PostgreSQL beside it.

    python -m benchmarks.retrieval --postgresql                       100,000 mixtures of real sentence embeddings
    python -m benchmarks.retrieval --postgresql --texts passages.txt  real ones, and their words; one passage a line
    python -m benchmarks.retrieval --postgresql --rows 1000000
    python -m benchmarks.retrieval --postgresql-alone ...             nothing of SQLite

Random vectors would say nothing about recall, and mixtures are harder to find than real ones: on PostgreSQL recall has
a budget with `--texts` only. Every time is of the whole call, SQL included, with nothing else
running; the reference is a float32 matrix product over all vectors in the same run. On a busy machine trust the CPU
column (PostgreSQL's own is in it) and the ratio to the scan. Ends with 1 when a budget is missed.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlmodel import Session

from benchmarks import retrieval_corpus
from benchmarks.retrieval_corpus import PIECE, SCOPE, Corpus, narrowings, places, put, questions, recall
from benchmarks.start import cpu_seconds, tree
from terrace.knowledge.base import Filter
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.index import open_index
from terrace.knowledge.search import Search
from terrace.settings import Embedding
from terrace.storage import Database, SQLiteDatabase
from terrace.storage.database import as_owner, own_locks
from terrace.storage.migrate import migrate
from terrace.storage.postgresql import PostgreSQLDatabase

SERVER = "TERRACE_BENCH_POSTGRESQL_PID"
K = 10
ROUNDS = 2
LARGE = 100_000  # rows; with more, the budgets are others
AS_ASKED = 9  # words of a question, stop words among them
LENGTHS = {AS_ASKED: "both", 1000: "both, long questions"}  # and whole sentences
SEARCH = (0.0, 20.0)  # of a search by words and by meaning on PostgreSQL, p50 and p95


class Table:
    """Prints rows as they come and remembers whether a budget was missed."""

    def __init__(self) -> None:
        self.missed = False
        print(f"{'':<64}{'p50':>10}{'p95':>10}{'CPU':>10}{'budget p50 / p95':>22}")

    def times(self, name: str, seconds: list[float], cpu: float, p50: float = 0, p95: float = 0) -> None:
        """Budgets in milliseconds; 0 for none."""
        ordered = sorted(1000 * each for each in seconds)
        middle, high = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
        bound = f"{p50:g} ms" if p50 and not p95 else f"{f'{p50:g}' if p50 else '-'} / {p95:g} ms" if p95 else ""
        fine = (not p50 or middle <= p50) and (not p95 or high <= p95)
        self._row(f"{name:<64}{middle:>7.2f} ms{high:>7.2f} ms{1000 * cpu:>7.2f} ms{bound:>22}", fine)

    def share(self, name: str, value: float, least: float) -> None:
        self._row(f"{name:<64}{value:>10.4f}{'':>20}{f'>= {least:g}' if least else '':>22}", value >= least)

    def _row(self, line: str, fine: bool) -> None:
        self.missed |= not fine
        print(line + ("" if fine else "   MISSED"), flush=True)


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


async def filled(database: Database, model: str, corpus: Corpus) -> InspectedIndex:
    index, rows = open_index(database), len(corpus.stored)
    add = _adder(database, index)
    started, began = time.perf_counter(), spent()
    for first in range(0, rows, PIECE):
        piece = corpus.stored[first : first + PIECE]
        passages = corpus.passages[first : first + PIECE] or [""] * len(piece)

        def write(session: Session, first: int = first, piece: Any = piece, passages: Any = passages) -> None:
            ids = put(session, index, first, passages, rows)
            add(session, SCOPE, model, ids, piece)

        await database.write(write)
        _tell(f"{first + len(piece):,} of {rows:,} written on {database.dialect}", started)
    print(f"    {1000 * (spent() - began) / rows:.2f} ms of processor time each")
    await tended(database)
    return index


def _adder(database: Database, index: InspectedIndex) -> Callable[..., None]:
    """On PostgreSQL, past what would make a graph of the first: made of all it takes a third of the time."""
    if database.dialect == "postgresql":
        from terrace.knowledge.index.postgres import vectors

        return vectors.add
    return index.add_vectors


def _tell(what: str, started: float) -> None:
    print(f"    {what}, {time.perf_counter() - started:.0f} s", flush=True)


async def searches(
    table: Table, url: str, embedder: StatefulEmbedder, corpus: Corpus, budgets: dict[str, float]
) -> None:
    """By meaning alone, of all and of some documents, against a plain scan; where there are passages hybrid ones, and
    all that whoever asks waits for."""
    async with opened(url) as database:
        index, rows, model = await filled(database, embedder.name, corpus), len(corpus.stored), embedder.name
        known = await database.read(places)
        name = f"{rows:,} on {database.dialect}"
        started = time.perf_counter()
        await index.search(SCOPE, "", corpus.asked[0], model=model, k=K, filter=Filter())
        print(f"    first search after a start: {time.perf_counter() - started:.2f} s")
        for each in (every := narrowings(rows // retrieval_corpus.PER_DOCUMENT)):
            ask = functools.partial(index.search, SCOPE, "", model=model, k=K, filter=each.filter)
            calls = [functools.partial(ask, vector) for vector in corpus.asked]
            found = [{known[scored.number] for scored in await call()} for call in calls]
            what = ", ".join(filter(None, (name, "meaning", each.name)))
            table.times(what, *await timed(calls), *((0, budgets["filtered"]) if each.name else (budgets["p50"], 0)))
            table.share(f"{what}: recall@{K}", recall(corpus, found, each, K), budgets["recall"])
        for length, each in [(length, each) for length in LENGTHS for each in every] if corpus.passages else ():
            ask = functools.partial(index.search, SCOPE, model=model, k=K, filter=each.filter)
            asked = [" ".join(question.split()[:length]) for question in corpus.questions]
            calls = [functools.partial(ask, q, v) for q, v in zip(asked, corpus.asked, strict=True)]
            what = ", ".join(filter(None, (name, LENGTHS[length], each.name)))
            table.times(what, *await timed(calls), *(SEARCH if url else ()))
        search = Search(database, index, embedder)
        for each in every if corpus.passages else ():
            find = functools.partial(search.search, SCOPE, k=K, filter=each.filter)
            finding = [functools.partial(find, " ".join(asked.split()[:AS_ASKED])) for asked in corpus.questions]
            what = ", ".join(filter(None, (name, "all that is waited for", each.name)))
            table.times(what, *await timed(finding))
        await index.close()


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
        index, passages, started = open_index(database), retrieval_corpus.texts(rows), time.perf_counter()
        for first in range(0, rows, PIECE):
            await database.write(put, index, first, passages[first : first + PIECE], rows)
            _tell(f"{first + PIECE:,} of {rows:,} written on {database.dialect}", started)
        await tended(database)
        ask = functools.partial(index.search, SCOPE, vector=None, model=None, k=K, filter=Filter())
        calls = [functools.partial(ask, asked) for asked in questions()]
        table.times(f"full text, {rows:,} chunks on {database.dialect}", *await timed(calls))
        await index.close()


async def whole(table: Table, url: str, embedder: StatefulEmbedder, rows: int) -> None:
    async with opened(url) as database:
        index, passages = open_index(database), retrieval_corpus.texts(rows)
        embedded = await embedder.embed(passages)

        def write(session: Session) -> None:
            ids = put(session, index, 0, passages, rows)
            index.add_vectors(session, SCOPE, embedder.name, ids, embedded)

        await database.write(write)
        await tended(database)
        search = Search(database, index, embedder)
        calls = [functools.partial(search.search, SCOPE, asked, k=K) for asked in questions()]
        table.times(f"search with its embedding, {rows:,} on {database.dialect}", *await timed(calls), 10, 20)
        await index.close()


async def run(options: argparse.Namespace, address: Callable[[], str]) -> bool:
    table = Table()
    sqlite = [] if options.postgresql_alone else [lambda: ""]
    urls = [*sqlite, address] if options.postgresql or options.postgresql_alone else sqlite
    with tempfile.TemporaryDirectory() as name:
        embedder = open_embedder(Embedding(), Path(name))
        if options.texts:
            corpus = await retrieval_corpus.embedded(embedder, options.texts, options.rows)
        else:
            real = await embedder.embed(retrieval_corpus.sentences()), await embedder.embed(questions())
            corpus = retrieval_corpus.mixed(*real, options.rows)
        for url in urls:
            await whole(table, url(), embedder, 2_000)
        for url in urls:
            await fulltext(table, url(), 20_000)
        scan(table, corpus)
        large = options.rows > LARGE
        for url in urls:
            p50 = (15 if large else 5) if url is address else (60 if large else 7)
            least = (0.98 if options.texts else 0) if url is address else (0.98 if large else 0.99)
            budgets = {"p50": p50, "recall": least, "filtered": 0 if large else 20}
            await searches(table, url(), embedder, corpus, budgets)
        await embedder.close()
    return table.missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgresql", action="store_true", help="also on a private PostgreSQL")
    parser.add_argument("--postgresql-alone", action="store_true", help="on a private PostgreSQL, not on SQLite")
    parser.add_argument("--rows", type=int, default=100_000, help="a million takes 6 GB of memory and an hour")
    parser.add_argument("--texts", type=Path, help="a file of passages, one a line, instead of mixed embeddings")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        address = functools.cache(lambda: stack.enter_context(private_postgresql(options.rows > LARGE)))
        sys.exit(asyncio.run(run(options, lambda: address().create())))


@contextlib.contextmanager
def private_postgresql(large: bool = False) -> Iterator[Any]:
    """With as much memory as the documentation asks for; what it writes need not outlive a power cut here."""
    from tests.postgres import OPTIONS, running

    OPTIONS.update(shared_buffers="4GB" if large else "1GB", autovacuum="on", max_wal_size="4GB")
    with running() as server:
        os.environ[SERVER] = str(server.pid)
        yield server


if __name__ == "__main__":
    main()
