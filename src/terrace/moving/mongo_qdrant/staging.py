"""What was read from the source, beside Terrace: a SQLite file of the import, so that a killed one need not read again,
passages meet their documents and vectors whatever the order they come in, and what came can be compared with it."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from terrace.errors import Unavailable
from terrace.moving.mongo_qdrant.base import Counts

SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (name TEXT PRIMARY KEY, records INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, title TEXT, name TEXT, text TEXT, url TEXT, created REAL, collection TEXT, tags TEXT,
    metadata TEXT
);
CREATE TABLE IF NOT EXISTS chunks (
    id TEXT PRIMARY KEY, document TEXT NOT NULL, place REAL, page INTEGER, headings TEXT, text TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS chunks_document ON chunks (document, place);
CREATE TABLE IF NOT EXISTS vectors (chunk TEXT PRIMARY KEY, dimensions INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS problems (code TEXT, subject TEXT, PRIMARY KEY (code, subject)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class StagedDocument:
    id: str
    title: str = ""
    name: str = ""
    text: str = ""
    url: str = ""
    created: float | None = None
    collection: str = ""
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StagedChunk:
    id: str
    document: str
    text: str
    place: float | None = None
    page: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Whole:
    """A document, its passages in their order, and their vectors (little-endian float32; None where there is none)."""

    document: StagedDocument
    chunks: tuple[StagedChunk, ...]
    vectors: tuple[bytes | None, ...]


class Staging:
    """Synchronous: callers run it in a thread, one at a time."""

    def __init__(self, path: Path | None = None) -> None:
        """In memory without a path."""
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path or ":memory:", check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(f"Nothing can be staged at {path}: {error}.", code="staging_unwritable") from error

    def close(self) -> None:
        self._db.close()

    # -- filling

    def finished(self, stream: str) -> bool:
        """Whether this collection of the source has been read to its end."""
        return self._one("SELECT 1 FROM streams WHERE name = ?", stream) is not None

    def finish(self, stream: str, records: int) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO streams VALUES (?, ?)", (stream, records))

    def streams(self) -> dict[str, int]:
        """Records read, by stream."""
        return dict(self._db.execute("SELECT name, records FROM streams"))

    def clear(self, *tables: str) -> None:
        """Before a stream is read (again) from its beginning."""
        with self._db:
            for table in tables:
                self._db.execute(f"DELETE FROM {table}")

    def add(
        self,
        documents: Sequence[StagedDocument] = (),
        chunks: Sequence[StagedChunk] = (),
        vectors: Sequence[tuple[str, int, bytes]] = (),
        problems: Iterable[tuple[str, str]] = (),
    ) -> None:
        """The first of an id is kept; another one is written down as a problem (`document_twice` and so on)."""
        with self._kept():
            self._insert("documents", "id", [_document_row(each) for each in documents], "document_twice")
            self._insert("chunks", "id", [_chunk_row(each) for each in chunks], "chunk_twice")
            self._insert("vectors", "chunk", vectors, "vector_twice")
            self._db.executemany("INSERT OR IGNORE INTO problems VALUES (?, ?)", problems)

    def add_unknown(self, documents: Sequence[StagedDocument]) -> None:
        """What passages say of their documents: the first one counts."""
        with self._kept():
            self._insert("documents", "id", [_document_row(each) for each in documents], "")

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            raise Unavailable(f"What was read cannot be kept: {error}.", code="staging_unwritable") from error

    def _insert(self, table: str, key: str, rows: Sequence[tuple[Any, ...]], twice: str) -> None:
        if not rows:
            return
        ids = [row[0] for row in rows]
        if twice:
            query = f"SELECT {key} FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))"
            known = {row[0] for row in self._db.execute(query, (json.dumps(ids),))}
            again = [id for place, id in enumerate(ids) if id in known or id in ids[:place]] if (
                known or len(set(ids)) < len(ids)
            ) else []  # fmt: skip
            self._db.executemany("INSERT OR IGNORE INTO problems VALUES (?, ?)", [(twice, id) for id in again])
        places = ", ".join("?" * len(rows[0]))
        self._db.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)

    # -- putting in order

    def note(self, code: str, query: str) -> None:
        """Write down a problem of each id that a query finds."""
        with self._kept():
            self._db.execute(f"INSERT OR IGNORE INTO problems SELECT '{code}', id FROM ({query})")

    def drop(self, code: str, table: str, key: str, where: str) -> None:
        """Remove rows, each written down as a problem."""
        self.note(code, f"SELECT {key} AS id FROM {table} WHERE {where}")
        with self._kept():
            self._db.execute(f"DELETE FROM {table} WHERE {where}")

    def drop_document(self, code: str, id: str) -> None:
        """With its passages and their vectors."""
        with self._kept():
            self._db.execute("INSERT OR IGNORE INTO problems VALUES (?, ?)", (code, id))
            mine = "SELECT id FROM chunks WHERE document = ?"
            self._db.execute(f"DELETE FROM vectors WHERE chunk IN ({mine})", (id,))
            self._db.execute("DELETE FROM chunks WHERE document = ?", (id,))
            self._db.execute("DELETE FROM documents WHERE id = ?", (id,))

    def adopt(self, collection: str) -> None:
        """Give passages whose document is gone one that is called after its id."""
        with self._kept():
            self._db.execute(
                "INSERT INTO documents SELECT DISTINCT document, document, '', '', '', NULL, ?, '[]', '{}' "
                "FROM chunks WHERE document NOT IN (SELECT id FROM documents)",
                (collection,),
            )

    # -- looking

    def counts(self) -> Counts:
        return Counts(*(self._count(f"SELECT count(*) FROM {table}") for table in ("documents", "chunks", "vectors")))

    def problem(self, code: str, most: int = 5) -> tuple[int, tuple[str, ...]]:
        """How many of a kind, and the first of them."""
        rows = self._db.execute("SELECT subject FROM problems WHERE code = ? LIMIT ?", (code, most))
        return self._count("SELECT count(*) FROM problems WHERE code = ?", code), tuple(row[0] for row in rows)

    def dimensions(self) -> list[tuple[int, int]]:
        """(dimensions, vectors), the most frequent first."""
        query = "SELECT dimensions, count(*) FROM vectors GROUP BY dimensions ORDER BY count(*) DESC, dimensions"
        return [(int(width), int(count)) for width, count in self._db.execute(query)]

    def collections(self) -> dict[str, int]:
        query = "SELECT coalesce(collection, ''), count(*) FROM documents GROUP BY 1 ORDER BY 1"
        return dict(self._db.execute(query))

    def unread(self) -> int:
        """Documents without passages."""
        return self._count("SELECT count(*) FROM documents WHERE id NOT IN (SELECT document FROM chunks)")

    def document_ids(self, after: str, limit: int) -> list[tuple[str, int]]:
        """(id, passages) in the order of ids."""
        query = (
            "SELECT id, (SELECT count(*) FROM chunks WHERE document = documents.id) FROM documents "
            "WHERE id > ? ORDER BY id LIMIT ?"
        )
        return [(str(id), int(count)) for id, count in self._db.execute(query, (after, limit))]

    def whole(self, document_id: str) -> Whole:
        row = self._one("SELECT * FROM documents WHERE id = ?", document_id)
        rows = self._db.execute(
            "SELECT c.*, v.vector FROM chunks c LEFT JOIN vectors v ON v.chunk = c.id WHERE c.document = ? "
            "ORDER BY c.place IS NULL, c.place, c.rowid",
            (document_id,),
        ).fetchall()
        return Whole(_document(row), tuple(_chunk(each[:6]) for each in rows), tuple(each[6] for each in rows))

    def places(self, chunks: Sequence[str]) -> dict[str, tuple[str, int]]:
        """(document, place from 0) of these passages, as `whole` orders them."""
        query = "SELECT DISTINCT document FROM chunks WHERE id IN (SELECT value FROM json_each(?))"
        wanted, found = set(chunks), {}
        for (document,) in self._db.execute(query, (json.dumps(list(chunks)),)).fetchall():
            for place, chunk in enumerate(self.whole(document).chunks):
                if chunk.id in wanted:
                    found[chunk.id] = (document, place)
        return found

    def sample(self, count: int) -> list[tuple[str, str, bytes]]:
        """(chunk, text, vector) spread over all that have one."""
        total = self._count("SELECT count(*) FROM vectors")
        step = max(1, total // max(count, 1))
        query = (
            "SELECT c.id, c.text, v.vector FROM vectors v JOIN chunks c ON c.id = v.chunk "
            "WHERE v.rowid % ? = 0 ORDER BY v.rowid LIMIT ?"
        )
        return self._db.execute(query, (step, count)).fetchall()

    def all_vectors(self, piece: int) -> Iterator[Sequence[tuple[str, bytes]]]:
        """(chunk, vector) of chunks that are staged, a piece at a time."""
        after = 0
        while rows := self._db.execute(
            "SELECT v.rowid, v.chunk, v.vector FROM vectors v JOIN chunks c ON c.id = v.chunk "
            "WHERE v.rowid > ? ORDER BY v.rowid LIMIT ?",
            (after, piece),
        ).fetchall():
            after = rows[-1][0]
            yield [(chunk, vector) for _, chunk, vector in rows]

    def _one(self, query: str, *values: Any) -> Any:
        return self._db.execute(query, values).fetchone()

    def _count(self, query: str, *values: Any) -> int:
        return int(self._one(query, *values)[0])


def _document_row(each: StagedDocument) -> tuple[Any, ...]:
    return (
        each.id, each.title, each.name, each.text, each.url, each.created, each.collection,
        json.dumps(each.tags), json.dumps(each.metadata),
    )  # fmt: skip


def _document(row: Any) -> StagedDocument:
    id, title, name, text, url, created, collection, tags, metadata = row
    return StagedDocument(
        id, title, name, text, url, created, collection, tuple(json.loads(tags)), json.loads(metadata)
    )


def _chunk_row(each: StagedChunk) -> tuple[Any, ...]:
    return each.id, each.document, each.place, each.page, json.dumps(each.headings), each.text


def _chunk(row: Any) -> StagedChunk:
    id, document, place, page, headings, text = row
    return StagedChunk(id, document, text, place, page, tuple(json.loads(headings)))
