"""Full text on SQLite: one FTS5 table a tenant, over the chunk rows.

A tenant has its own table because BM25 weighs a word by how many rows hold it: in a shared table one tenant's
text would shape (and slow, and so reveal itself in) another's results. The table keeps only the word lists;
the text stays in `chunks` alone, so a row must be taken out while its chunk is still there.
"""

import json
from collections.abc import Collection, Sequence
from hashlib import sha256

from sqlalchemy import Connection
from sqlmodel import Session

from terrace.errors import Internal
from terrace.knowledge.index.words import match_expression
from terrace.types import Scope

PREFIX = "chunk_text_"
COLUMNS = "title, headings, text"
WEIGHTS = "2.0, 1.5, 1.0"  # of the columns
TOKENIZER = "porter unicode61 remove_diacritics 2"


def table_of(scope: Scope) -> str:
    """A name SQL takes unquoted, whatever a tenant's id holds."""
    return PREFIX + sha256(scope.tenant.encode()).hexdigest()[:20]


def add(session: Session, scope: Scope, chunk_ids: Sequence[str]) -> None:
    connection = session.connection()
    table = _made(connection, scope)
    added = connection.exec_driver_sql(
        f"INSERT INTO {table}(rowid, {COLUMNS}) SELECT number, {COLUMNS} FROM chunks "
        "WHERE +tenant_id = ? AND id IN (SELECT value FROM json_each(?))",
        (scope.tenant, json.dumps(list(chunk_ids))),
    ).rowcount
    if added != len(chunk_ids):
        raise Internal(f"{len(chunk_ids)} chunks were to be indexed, but only {added} of them are stored.")


def remove(session: Session, scope: Scope, document_id: str) -> None:
    connection = session.connection()
    table = table_of(scope)
    if _exists(connection, table):
        connection.exec_driver_sql(
            f"INSERT INTO {table}({table}, rowid, {COLUMNS}) SELECT 'delete', number, {COLUMNS} FROM chunks "
            f"WHERE tenant_id = ? AND document_id = ? AND number IN (SELECT id FROM {table}_docsize)",
            (scope.tenant, document_id),
        )


def search(
    session: Session, scope: Scope, query: str, k: int, documents: Collection[str] | None = None
) -> dict[int, float]:
    """The k best chunk numbers and their BM25, higher being better; best first."""
    connection = session.connection()
    table, expression = table_of(scope), match_expression(query)
    if not expression or not _exists(connection, table):
        return {}
    # Without the first plus SQLite would look for the words in each passage by itself, which takes seconds, or minutes;
    # without the second FTS5 would sort, and rank what a filter leaves out too.
    allowed, parameters = "", [expression]
    if documents is not None:
        allowed = (
            "AND +rowid IN (SELECT number FROM chunks "
            "WHERE tenant_id = ? AND document_id IN (SELECT value FROM json_each(?)))"
        )
        parameters += [scope.tenant, json.dumps(sorted(documents))]
    rows = connection.exec_driver_sql(
        f"SELECT rowid, -rank FROM {table} WHERE {table} MATCH ? {allowed} ORDER BY +rank LIMIT {int(k)}",
        tuple(parameters),
    )
    return {row[0]: row[1] for row in rows}


def count(session: Session, scope: Scope) -> int:
    connection = session.connection()
    table = table_of(scope)
    if not _exists(connection, table):
        return 0
    return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}_docsize").scalar_one())


def strays(session: Session, scope: Scope) -> tuple[int, int]:
    """(texts without a chunk, chunks without a text)."""
    connection = session.connection()
    table = table_of(scope)
    if not _exists(connection, table):
        kept = connection.exec_driver_sql("SELECT count(*) FROM chunks WHERE tenant_id = ?", (scope.tenant,))
        return 0, int(kept.scalar_one())
    extra = connection.exec_driver_sql(
        f"SELECT count(*) FROM {table}_docsize d WHERE NOT EXISTS "
        "(SELECT 1 FROM chunks c WHERE c.number = d.id AND c.tenant_id = ?)",
        (scope.tenant,),
    )
    missing = connection.exec_driver_sql(
        f"SELECT count(*) FROM chunks c WHERE c.tenant_id = ? AND c.number NOT IN (SELECT id FROM {table}_docsize)",
        (scope.tenant,),
    )
    return int(extra.scalar_one()), int(missing.scalar_one())


def mend(session: Session, scope: Scope, limit: int, after: int) -> int:
    """All anew where there are texts without a chunk, as the words of one that is gone cannot be taken out."""
    connection = session.connection()
    if not after and strays(session, scope)[0]:
        connection.exec_driver_sql(f"DROP TABLE {table_of(scope)}")
    table = _made(connection, scope)
    numbers = connection.exec_driver_sql(
        f"SELECT number FROM chunks c WHERE c.tenant_id = ? AND number > ? "
        f"AND NOT EXISTS (SELECT 1 FROM {table}_docsize d WHERE d.id = c.number) ORDER BY number LIMIT ?",
        (scope.tenant, after, limit),
    ).scalars().all()  # fmt: skip
    connection.exec_driver_sql(
        f"INSERT INTO {table}(rowid, {COLUMNS}) SELECT number, {COLUMNS} FROM chunks "
        "WHERE number IN (SELECT value FROM json_each(?))",
        (json.dumps(list(numbers)),),
    )
    return numbers[-1] if numbers else 0


def _made(connection: Connection, scope: Scope) -> str:
    table = table_of(scope)
    if not _exists(connection, table):
        connection.exec_driver_sql(
            f"CREATE VIRTUAL TABLE {table} USING fts5({COLUMNS}, content='chunks', content_rowid='number', "
            f"tokenize='{TOKENIZER}')"
        )
        connection.exec_driver_sql(f"INSERT INTO {table}({table}, rank) VALUES ('rank', 'bm25({WEIGHTS})')")
    return table


def _exists(connection: Connection, table: str) -> bool:
    found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,))
    return found.first() is not None
