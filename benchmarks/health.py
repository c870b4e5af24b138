"""What a check of a tenant's corpus costs, and what counting retrievals adds to a search.

    python benchmarks/health.py [--chunks 100000] [--documents 10000]

The reference in the same run is reading every vector and passage once, which no check of all of them can do without.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
from sqlmodel import Session

from terrace.knowledge.doctor import Doctor
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.health.retrievals import Retrievals
from terrace.knowledge.health.service import Health
from terrace.knowledge.index import SQLiteIndex, fulltext
from terrace.knowledge.search import Search
from terrace.settings import Jobs as JobOptions
from terrace.storage import SQLiteDatabase
from terrace.storage.blobs import MemoryBlobs
from terrace.storage.migrate import migrate
from terrace.types import Scope

from terrace.jobs.engines.local import LocalJobs  # isort: skip

SCOPE = Scope("acme")
DIMENSIONS = 384


def fill(session: Session, model: str, documents: int, chunks: int) -> None:
    """Documents of random words and vectors."""
    random = np.random.default_rng(1)
    connection = session.connection()
    connection.exec_driver_sql(
        "INSERT INTO collections (id, tenant_id, name, name_key, created_at) VALUES (?, ?, ?, ?, ?)",
        ("col_1", "acme", "default", "default", 0),
    )
    names = [f"doc_{number:06}" for number in range(documents)]
    each = chunks // documents
    connection.exec_driver_sql(
        "INSERT INTO documents (id, tenant_id, collection_id, name, name_key, title, media_type, bytes, sha256, state, "
        "searchable, embedding, chunk_count, characters, warnings, blob, created_at, updated_at) "
        "VALUES (?, 'acme', 'col_1', ?, ?, '', 'text/plain', 1000, ?, 'ready', 'meaning', ?, ?, ?, '[]', ?, 0, 0)",
        [(name, name, name, name, model, each, 1000 * each + place % 977, f"acme/documents/{name}/original")
         for place, name in enumerate(names)],
    )  # fmt: skip
    words = np.array([f"word{number}" for number in range(20_000)])
    for start in range(0, chunks, 5000):
        count = min(5000, chunks - start)
        numbers = range(start, start + count)
        texts = [" ".join(row) for row in words[random.integers(0, len(words), (count, 60))]]
        connection.exec_driver_sql(
            "INSERT INTO chunks (number, id, tenant_id, document_id, ordinal, start_char, end_char, headings, title, "
            "text, text_sha256) VALUES (?, ?, 'acme', ?, ?, 0, 0, '[]', '', ?, ?)",
            [
                (n + 1, f"chk_{n}", names[n // each], n % each, text, f"{n:064}")
                for n, text in zip(numbers, texts, strict=True)
            ],
        )
        vectors = random.normal(size=(count, DIMENSIONS)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        connection.exec_driver_sql(
            "INSERT INTO chunk_vectors (tenant_id, model, number, document_id, vector) VALUES ('acme', ?, ?, ?, ?)",
            [
                (model, n + 1, names[n // each], row.astype("<f2").tobytes())
                for n, row in zip(numbers, vectors, strict=True)
            ],
        )
    fulltext.mend(session, SCOPE, chunks, 0)


async def timed(work: Callable[[], Awaitable[Any]]) -> tuple[float, float, float, Any]:
    """(CPU seconds, seconds, the longest the event loop stood still in ms, the result)"""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began - 0.001)

    watching = asyncio.create_task(watch())
    cpu, wall = time.process_time(), time.perf_counter()
    result = await work()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    watching.cancel()
    return *spent, longest * 1000, result


def read_all(session: Session) -> int:
    connection = session.connection()
    size = connection.exec_driver_sql("SELECT sum(length(hex(vector))) FROM chunk_vectors").scalar_one()
    return int(size + connection.exec_driver_sql("SELECT sum(length(text)) FROM chunks").scalar_one())


async def main(documents: int, chunks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(Path(folder) / "terrace.db", durability="off")
        await database.write(lambda session: migrate(session.connection()))
        embedder: Any = HashEmbedder()
        await database.write(fill, embedder.name, documents, chunks)
        index, jobs = SQLiteIndex(database), LocalJobs(database, JobOptions())
        blobs = MemoryBlobs()
        for number in range(documents):
            await blobs.put(f"acme/documents/doc_{number:06}/original", b"x")
        doctor = Doctor(database, blobs, jobs, index, embedder)

        async def remove(scope: Scope, document: str) -> None:
            raise AssertionError

        health = Health(database, jobs, index, embedder, doctor, remove)
        print(f"{documents:,} documents, {chunks:,} chunks of {DIMENSIONS} dimensions\n")
        print(f"{'':34} {'CPU s':>8} {'s':>8} {'loop ms':>8}")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for name, work in (
            ("reading everything once", lambda: database.read(read_all)),
            ("a check", lambda: health.check(SCOPE)),
            ("a check where nothing has changed", lambda: health.check(SCOPE, anyway=False)),
        ):
            cpu, wall, loop, result = await timed(work)
            print(f"{name:34} {cpu:8.2f} {wall:8.2f} {loop:8.1f}")
            if name == "a check":
                print("   found:", {each.kind: each.count for each in result.findings}, *result.notes)
        print(f"   memory: +{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024:.0f} MB at the most")
        await searches(database, index, embedder)
        await jobs.close()
        await database.close()


async def searches(database: SQLiteDatabase, index: SQLiteIndex, embedder: Any) -> None:
    """The same searches with and without counting, in turns."""
    retrievals = Retrievals(database)
    ways = {"without": Search(database, index, embedder), "with": Search(database, index, embedder, retrievals.count)}
    spent = dict.fromkeys(ways, 0.0)
    for turn in range(200):
        for name, search in ways.items():
            began = time.process_time()
            await search.search(SCOPE, f"word{turn} word{turn + 1}", mode="text")
            spent[name] += time.process_time() - began
    began = time.process_time()
    for _ in range(10_000):
        retrievals.count(SCOPE, {f"doc_{number:06}" for number in range(10)})
    alone = (time.process_time() - began) / 10_000
    print(f"\na search, CPU ms: {spent['without'] * 5:.3f} without counting, {spent['with'] * 5:.3f} with; "
          f"counting ten documents alone {alone * 1e6:.1f} us")  # fmt: skip
    await retrievals.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=100_000)
    given = parser.parse_args()
    asyncio.run(main(given.documents, given.chunks))
