"""How many chunks a tenant has, how long they are, and how many hold each word: what BM25 weighs words by.

A write appends to `word_changes`, so that writers never wait for each other; `fold` adds up what waits there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.knowledge.index.postgres.asking import array, ask
from terrace.storage.database import own_locks
from terrace.types import Scope

FOLD_AT = 24  # changes that wait: each search looks through them

TOTALS = """SELECT coalesce(sum(chunks), 0)::bigint, coalesce(sum(tokens), 0)::bigint FROM (
    SELECT chunks, tokens FROM word_totals WHERE tenant_id = %s
    UNION ALL SELECT chunks, tokens FROM word_changes WHERE tenant_id = %s) t"""
_OF = f"""SELECT NULL, * FROM ({TOTALS}) totals
    UNION ALL SELECT word, chunks, 0 FROM word_counts WHERE tenant_id = %s AND word = ANY(%s::bigint[])
    UNION ALL SELECT word, count, 0 FROM word_changes, unnest(words, counts) AS each(word, count)
    WHERE tenant_id = %s AND word = ANY(%s::bigint[])"""
_FOLD = """WITH
    gone AS (DELETE FROM word_changes WHERE tenant_id = %s RETURNING tenant_id, chunks, tokens, words, counts),
    totals AS (
        INSERT INTO word_totals (tenant_id, chunks, tokens)
        SELECT tenant_id, sum(chunks), sum(tokens) FROM gone GROUP BY tenant_id
        ON CONFLICT (tenant_id) DO UPDATE SET
            chunks = word_totals.chunks + excluded.chunks, tokens = word_totals.tokens + excluded.tokens)
    INSERT INTO word_counts (tenant_id, word, chunks)
    SELECT tenant_id, word, sum(count) FROM gone, unnest(words, counts) AS each(word, count)
    GROUP BY tenant_id, word HAVING sum(count) <> 0 ORDER BY word
    ON CONFLICT (tenant_id, word) DO UPDATE SET chunks = word_counts.chunks + excluded.chunks"""


class Counts(NamedTuple):
    chunks: int
    tokens: int
    holding: dict[int, int]  # number of a word -> chunks that hold it


def change(session: Session, scope: Scope, chunks: int, tokens: int, holding: Mapping[int, int]) -> None:
    """So many more (or fewer) chunks, tokens, and chunks that hold each word."""
    session.connection().exec_driver_sql(
        "INSERT INTO word_changes (tenant_id, chunks, tokens, words, counts) "
        "VALUES (%s, %s, %s, %s::bigint[], %s::bigint[])",
        (scope.tenant, chunks, tokens, array(holding), array(holding.values())),
    )


def of(session: Session, scope: Scope, words: Sequence[int]) -> Counts:
    return read(words, ask(session, *asking(scope, words)))


def asking(scope: Scope, words: Sequence[int]) -> tuple[str, tuple[str, ...]]:
    """What has to be asked, for `read` to have the rows of."""
    tenant, asked = scope.tenant, array(words)
    return _OF, (tenant, tenant, tenant, asked, tenant, asked)


def read(words: Sequence[int], rows: Sequence[tuple[Any, ...]]) -> Counts:
    [(chunks, tokens)] = [row[1:] for row in rows if row[0] is None]
    holding = dict.fromkeys(words, 0)
    for word, holds, _ in rows:
        if word is not None:
            holding[word] += holds
    return Counts(chunks, tokens, holding)


@own_locks
def fold(session: Session, scope: Scope) -> None:
    """Add up the tenant's changes, unless another process is at it. A tenant that has no chunk left has no words."""
    run = session.connection().exec_driver_sql
    if not run("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 18))", (f"fold {scope.tenant}",)).scalar_one():
        return
    run(_FOLD, (scope.tenant,))
    run(
        "DELETE FROM word_counts WHERE tenant_id = %s AND NOT EXISTS "
        "(SELECT FROM word_totals WHERE tenant_id = %s AND chunks > 0)",
        (scope.tenant, scope.tenant),
    )
