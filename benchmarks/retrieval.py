"""Search times against plain scans: `python -m benchmarks.retrieval [--million]`.

Vectors are mixtures of real sentence embeddings (random ones say nothing about recall). Every time is of the whole
call, SQL included, with nothing else running; the reference is a float32 matrix product over all vectors in the same
run. On a busy machine trust the CPU column and the ratio to the scan. Ends with 1 when a budget is missed.
"""

import argparse
import asyncio
import functools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlmodel import Session

from benchmarks.quality import SAMPLES
from terrace.knowledge.base import Chunk, Filter, IndexedChunk, Span
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.index import SQLiteIndex
from terrace.knowledge.search import Search
from terrace.knowledge.sentences import sentence_spans
from terrace.settings import Embedding
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

SCOPE = Scope()
K = 10
PIECE = 10_000
ROUNDS = 5
SEED = 11


class Table:
    """Prints rows as they come and remembers whether a budget was missed."""

    def __init__(self) -> None:
        self.missed = False
        print(f"{'':<44}{'p50':>10}{'p95':>10}{'CPU':>10}{'budget p50 / p95':>22}")

    def times(self, name: str, seconds: list[float], cpu: float, p50: float = 0, p95: float = 0) -> None:
        """Budgets in milliseconds; 0 for none."""
        ordered = sorted(1000 * each for each in seconds)
        middle, high = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
        bound = f"{p50:g} / {p95:g} ms" if p95 else f"{p50:g} ms" if p50 else ""
        fine = (not p50 or middle <= p50) and (not p95 or high <= p95)
        self._row(f"{name:<44}{middle:>7.2f} ms{high:>7.2f} ms{1000 * cpu:>7.2f} ms{bound:>22}", fine)

    def share(self, name: str, value: float, least: float) -> None:
        self._row(f"{name:<44}{value:>10.4f}{'':>20}{f'>= {least:g}':>22}", value >= least)

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


async def opened(folder: Path, name: str) -> SQLiteDatabase:
    database = SQLiteDatabase(folder / f"{name}.db", durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    await database.write(_shelf)
    return database


def _shelf(session: Session) -> None:
    run = session.connection().exec_driver_sql
    run(
        "INSERT INTO collections (id, tenant_id, name, name_key, created_at) VALUES ('c', ?, 'c', 'c', 0)",
        (SCOPE.tenant,),
    )
    run(
        "INSERT INTO documents (id, tenant_id, collection_id, name, name_key, title, media_type, bytes, sha256, state,"
        " searchable, chunk_count, characters, warnings, blob, created_at, updated_at)"
        " VALUES ('d', ?, 'c', 'd', 'd', '', 'text/plain', 1, 's', 'ready', 'meaning', 1, 1, '[]', 'b', 0, 0)",
        (SCOPE.tenant,),
    )


def _chunks(session: Session, index: SQLiteIndex, first: int, passages: list[str], *, words: bool) -> list[str]:
    ids = [f"chk_{first + place}" for place in range(len(passages))]
    session.connection().exec_driver_sql(
        "INSERT INTO chunks (id, tenant_id, document_id, ordinal, start_char, end_char, headings, title, text,"
        " text_sha256) VALUES (?, ?, 'd', ?, 0, 1, '[]', '', ?, ?)",
        [(id, SCOPE.tenant, first, text, id) for id, text in zip(ids, passages, strict=True)],
    )
    if words:
        chunks = [
            IndexedChunk(id, "d", "c", "", Chunk(0, Span(0, 1), text, None))
            for id, text in zip(ids, passages, strict=True)
        ]
        index.add_text(session, SCOPE, chunks)
    return ids


async def timed(calls: Sequence[Callable[[], Awaitable[Any]]]) -> tuple[list[float], float]:
    """Seconds of each call by the clock, and of processor time for one (the embedding process not counted)."""
    for call in calls[:3]:
        await call()
    took, began = [], time.process_time()
    for call in [*calls] * ROUNDS:
        started = time.perf_counter()
        await call()
        took.append(time.perf_counter() - started)
    return took, (time.process_time() - began) / len(took)


async def vectors(table: Table, folder: Path, real: Any, asked: Any, rows: int, budget: tuple[float, float]) -> None:
    rng = np.random.default_rng(SEED)
    database = await opened(folder, f"vectors{rows}")
    index = SQLiteIndex(database)
    stored = np.empty((rows, real.shape[1]), np.float32)
    for first in range(0, rows, PIECE):
        piece = stored[first : first + PIECE] = mixtures(real, min(PIECE, rows - first), rng)

        def write(session: Session, first: int = first, piece: Any = piece) -> None:
            ids = _chunks(session, index, first, [""] * len(piece), words=False)
            index.add_vectors(session, SCOPE, "real/int8", ids, piece)

        await database.write(write)

    def call(vector: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: index.search(SCOPE, "", vector, model="real/int8", k=K, filter=Filter())

    started = time.perf_counter()
    await call(asked[0])()
    loaded = time.perf_counter() - started
    ours = await timed([call(vector) for vector in asked])
    found = [{int(each.chunk_id[4:]) for each in await call(vector)()} for vector in asked]
    scans, right, began = [], 0, time.process_time()
    for vector, mine in zip(asked, found, strict=True):
        started = time.perf_counter()
        scores = stored @ vector
        best = np.argpartition(scores, -K)[-K:]
        scans.append(time.perf_counter() - started)
        right += len(mine & set(best.tolist()))
    table.times(f"{rows:,} vectors: float scan (reference)", scans, (time.process_time() - began) / len(asked))
    table.times(f"{rows:,} vectors: sign bits + exact rerank", *ours, budget[0])
    table.share(f"{rows:,} vectors: recall@10 against the scan", right / (K * len(asked)), budget[1])
    print(f"    first search after a start, reading all sign bits: {loaded:.2f} s")
    await database.close()


async def fulltext(table: Table, folder: Path, rows: int) -> None:
    database = await opened(folder, "text")
    index = SQLiteIndex(database)
    passages = texts(rows)
    for first in range(0, rows, PIECE):
        piece = passages[first : first + PIECE]
        await database.write(_chunks, index, first, piece, words=True)
    ask = functools.partial(index.search, SCOPE, vector=None, model=None, k=K, filter=Filter())
    table.times(f"full text, {rows:,} chunks", *await timed([functools.partial(ask, asked) for asked in questions()]))
    await database.close()


async def whole(table: Table, folder: Path, embedder: Any, rows: int) -> None:
    database = await opened(folder, "whole")
    index = SQLiteIndex(database)
    passages = texts(rows)
    embedded = await embedder.embed(passages)

    def write(session: Session) -> None:
        ids = _chunks(session, index, 0, passages, words=True)
        index.add_vectors(session, SCOPE, embedder.name, ids, embedded)

    await database.write(write)
    search = Search(database, index, embedder)
    calls = [functools.partial(search.search, SCOPE, asked, k=K) for asked in questions()]
    table.times(f"search with its embedding, {rows:,} chunks", *await timed(calls), 10, 20)
    await database.close()


async def run(million: bool) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedder = open_embedder(Embedding(), folder)
        real, asked = await embedder.embed(sentences()), await embedder.embed(questions())
        table = Table()
        await whole(table, folder, embedder, 2_000)
        await embedder.close()
        await fulltext(table, folder, 20_000)
        await vectors(table, folder, real, asked, 100_000, (7, 0.99))
        if million:
            await vectors(table, folder, real, asked, 1_000_000, (60, 0.98))
        return table.missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--million", action="store_true", help="also a million vectors (3 GB of memory, minutes)")
    sys.exit(asyncio.run(run(parser.parse_args().million)))


if __name__ == "__main__":
    main()
