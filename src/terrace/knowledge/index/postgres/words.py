"""Full text on PostgreSQL: BM25 as FTS5 computes it, over candidates that a GIN index finds.

A row of `chunk_words` holds one chunk's words as ascending numbers (hashes of tenant and stem, so that each tenant has
lists of its own in the shared index) and how often it has each. How many chunks hold a word is kept by `counts`.

The table has no wall of row security: behind one PostgreSQL would not use the GIN index, as it doesn't know `&&` to
keep secrets. There is nothing to read in it but hashes; the passages come from `chunks`, which has its wall.

Thousands of rows are first told apart by `impacts`: what each word adds to a score but for the chunk's length (a tenth
of the time that it takes to look up each word), and as many as are wanted then scored.

A word also has a second, shorter list of the chunks it weighs most in (a champion list: Manning, Raghavan & Schütze,
2008, "Introduction to Information Retrieval", 7.1.3). Where the full lists of a question would be too long, its
commonest words bring in their champions only. All words count in the scores.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from sqlmodel import Session

from terrace.errors import Internal
from terrace.knowledge.base import IndexedChunk
from terrace.knowledge.index.postgres import counts
from terrace.knowledge.index.postgres.allowing import Allowed
from terrace.knowledge.index.postgres.asking import array, ask
from terrace.knowledge.index.postgres.counts import Counts
from terrace.knowledge.index.postgres.rows import COLUMNS, END, HEAD, K1, PLACES, B, number_of, rows_of
from terrace.knowledge.index.postgres.tokens import stems
from terrace.knowledge.index.postgres.vectors import text_of
from terrace.knowledge.index.words import MAX_TERMS, content_words
from terrace.storage.database import driver_of
from terrace.types import Scope

RARE = 1e-6  # what a word weighs that half of all chunks hold, or more
AT_ONCE = 1000  # passages whose words are in memory; a document may have a hundred times as many
MOST_ROWS = 2500  # fetched for one question
MOST_LISTED = 6000  # where a filter leaves a third of them or less

# Of one word, where the row has it: its idf and k1 + 1, then the byte at its place, which is its frequency in halves.
# The numbers of a row ascend, so that the place is found by halving; `array_position` would walk through all of them.
_WEIGHT = (
    "CASE words[width_bucket('{word}'::bigint, words)] WHEN '{word}' "
    "THEN '{weight}'::float8 / (1 + 2 * norm / get_byte(times, width_bucket('{word}'::bigint, words) - 1)) ELSE 0 END"
)

_NO_CHUNK = "NOT EXISTS (SELECT FROM chunks c WHERE c.number = chunk_words.number)"
_NO_TEXT = "NOT EXISTS (SELECT FROM chunk_words w WHERE w.number = chunks.number)"


class Found(NamedTuple):
    number: int  # of the chunk
    score: float
    cosine: float | None  # where one was asked for, and it has a vector


class Asked(NamedTuple):
    word: int
    champion: int
    times: int


def add(session: Session, scope: Scope, chunks: Sequence[IndexedChunk]) -> None:
    found = session.connection().exec_driver_sql(
        "SELECT id, number, document_id FROM chunks WHERE tenant_id = %s AND id = ANY(%s)",
        (scope.tenant, [chunk.id for chunk in chunks]),
    )
    places = {id: (number, document_id) for id, number, document_id in found}
    if len(places) != len(chunks):
        raise Internal(f"{len(chunks)} chunks were to be indexed, but only {len(places)} of them are stored.")
    passages = [(chunk.title, " ".join(chunk.chunk.headings), chunk.chunk.text) for chunk in chunks]
    put(session, scope, [places[chunk.id] for chunk in chunks], passages)


def put(
    session: Session, scope: Scope, places: Sequence[tuple[int, str]], passages: Sequence[tuple[str, str, str]]
) -> None:
    """`places`: (chunk number, document) of each; `passages`: (title, headings, text)."""
    if not places:
        return
    holding: Counter[int] = Counter()
    tokens = 0
    with driver_of(session).cursor() as cursor, cursor.copy(f"COPY chunk_words ({COLUMNS}) FROM STDIN BINARY") as copy:
        copy.write(HEAD)
        for at in range(0, len(places), AT_ONCE):
            rows = rows_of(scope.tenant, places[at : at + AT_ONCE], passages[at : at + AT_ONCE])
            copy.write(rows.copied)
            holding.update(rows.holding)
            tokens += rows.tokens
        copy.write(END)
    counts.change(session, scope, len(places), tokens, holding)


def remove(session: Session, scope: Scope, document_id: str) -> None:
    take(session, scope, "document_id = %s", document_id)


def take(session: Session, scope: Scope, condition: str, *parameters: Any) -> None:
    gone = session.connection().exec_driver_sql(
        f"DELETE FROM chunk_words WHERE tenant = %s AND {condition} RETURNING length, words",
        (scope.tenant, *parameters),
    ).all()  # fmt: skip
    holding: Counter[int] = Counter()
    for _, words in gone:
        holding.subtract(words)
    if gone:
        counts.change(session, scope, -len(gone), -sum(length for length, _ in gone), holding)


def asked_for(scope: Scope, query: str) -> list[Asked]:
    return [
        Asked(number_of(scope.tenant, word), number_of(scope.tenant, word, champion=True), times)
        for word, times in stems(content_words(query)[:MAX_TERMS]).items()
    ]


def numbers_of(asked: Sequence[Asked]) -> list[int]:
    """Of the lists whose lengths a search has to know."""
    return [number for each in asked for number in each[:2]]


def search(
    session: Session,
    scope: Scope,
    query: str,
    k: int,
    among: Allowed | None = None,
    meaning: tuple[str, Any] | None = None,
    *,
    exact: bool = False,
) -> list[Found]:
    """The k best by BM25, best first; with their cosines where `meaning` names a model and the query's vector.

    `exact`: every chunk that has a word of the query is scored, however many there are.
    """
    asked = asked_for(scope, query)
    known = counts.of(session, scope, numbers_of(asked))
    return best(session, scope, asked, known, k, among, meaning, exact=exact)


def best(
    session: Session,
    scope: Scope,
    asked: Sequence[Asked],
    known: Counts,
    k: int,
    among: Allowed | None,
    meaning: tuple[str, Any] | None,
    *,
    exact: bool = False,
) -> list[Found]:
    """As `search`, where it is known how many chunks hold what is asked for."""
    asked = [each for each in asked if known.holding[each.word] > 0]
    if not asked:
        return []
    condition, passes, parameters = _candidates(asked, known, k, among, exact)
    weights = {each.word: each.times * _idf(known, each.word) * (K1 + 1) for each in asked}
    score = " + ".join(_WEIGHT.format(word=word, weight=weight) for word, weight in weights.items())
    # What an older version wrote, and nobody can tell yet, comes first.
    rough = f"ORDER BY (impacts <#> '{_sparse(weights)}') / (1 + norm) NULLS FIRST LIMIT {k}"
    first = "" if exact else rough
    scored = (
        f"SELECT number, score FROM (SELECT number, {score} AS score FROM (SELECT number, words, times, norm FROM ("
        "SELECT number, document_id, words, times, impacts, %s + %s * length AS norm FROM chunk_words "
        f"WHERE tenant = %s AND {condition} OFFSET 0) c WHERE {passes} {first} OFFSET 0) r OFFSET 0) s "
        f"WHERE score > 0 ORDER BY score DESC, number LIMIT {k}"
    )
    norm = K1 * (1 - B), K1 * B * known.chunks / max(1, known.tokens)
    cosine, vectors, asks = ("NULL", "", ()) if meaning is None else _cosines(scope, *meaning)
    rows = ask(
        session,
        f"SELECT best.number, score, {cosine} FROM ({scored}) best {vectors} ORDER BY score DESC, best.number",
        (*asks[:1], *norm, scope.tenant, *parameters, *asks[1:]),
    )
    return list(map(Found._make, rows))


def _cosines(scope: Scope, model: str, vector: Any) -> tuple[str, str, tuple[str, ...]]:
    """An expression, what it needs joined, and what both take: where a chunk has a vector of the query's width."""
    return (
        "-(v.vector <#> %s::halfvec)",
        "LEFT JOIN chunk_vectors v ON v.tenant_id = %s AND v.model = %s AND v.number = best.number "
        f"AND vector_dims(v.vector) = {len(vector)}",
        (text_of(vector), scope.tenant, model),
    )


def count(session: Session, scope: Scope) -> int:
    found = session.connection().exec_driver_sql("SELECT count(*) FROM chunk_words WHERE tenant = %s", (scope.tenant,))
    return int(found.scalar_one())


def strays(session: Session, scope: Scope) -> tuple[int, int]:
    """(texts without a chunk, chunks without a text)."""
    run = session.connection().exec_driver_sql
    extra = run(f"SELECT count(*) FROM chunk_words WHERE tenant = %s AND {_NO_CHUNK}", (scope.tenant,))
    missing = run(f"SELECT count(*) FROM chunks WHERE tenant_id = %s AND {_NO_TEXT}", (scope.tenant,))
    return int(extra.scalar_one()), int(missing.scalar_one())


def mend(session: Session, scope: Scope, limit: int, after: int) -> int:
    if not after:
        take(session, scope, _NO_CHUNK)
    rows = session.connection().exec_driver_sql(
        "SELECT number, document_id, title, headings, text FROM chunks "
        f"WHERE tenant_id = %s AND number > %s AND {_NO_TEXT} ORDER BY number LIMIT %s",
        (scope.tenant, after, limit),
    ).all()  # fmt: skip
    put(session, scope, [row[:2] for row in rows], [(row[2], " ".join(row[3]), row[4]) for row in rows])
    return rows[-1][0] if rows else 0


def _candidates(
    asked: Sequence[Asked], known: Counts, k: int, among: Allowed | None, exact: bool
) -> tuple[str, str, list[Any]]:
    """Which rows are fetched, which of them are scored, and what both take.

    All of a few documents, else those in the chosen lists. Where most documents pass, an index of theirs would take
    longer to go through than it takes to fetch what does not pass.
    """
    if among is not None and among.passages <= MOST_ROWS:
        return among.within[0], "true", [*among.within[1]]
    few = among is not None and 3 * among.passages <= known.chunks
    most = MOST_LISTED if few else MOST_ROWS
    lists = [each.word for each in asked] if exact else _lists(asked, known.holding, k, most)
    # In a query of its own the planner doesn't look into it, and always takes it for short enough to be of use.
    listed = "words && (SELECT %s::bigint[])"
    if among is None:
        return listed, "true", [array(lists)]
    if few:
        return f"{listed} AND {among.within[0]}", "true", [array(lists), *among.within[1]]
    return listed, among.passes[0], [array(lists), *among.passes[1]]


def _lists(asked: Sequence[Asked], holding: dict[int, int], k: int, most: int) -> list[int]:
    """Full lists of the rarest words, champions of those that would be more than `most` chunks; at least k, if there
    are."""
    chosen, left, rows = [], [], 0
    for each in sorted(asked, key=lambda each: holding[each.word]):
        number = each.word if rows + holding[each.word] <= most else each.champion
        if number == each.champion:
            left.append(each.word)
        if rows + holding[number] <= most:
            chosen.append(number)
            rows += holding[number]
    return chosen if rows >= k else [*chosen, *left[:1]]


def _idf(known: Counts, word: int) -> float:
    holding = known.holding[word]
    return max(RARE, log(max(RARE, known.chunks - holding + 0.5) / (holding + 0.5)))


def _sparse(values: Mapping[int, float]) -> str:
    """As pgvector reads a sparse vector. Of two words in one place, which hardly ever are, the greater counts."""
    placed: dict[int, float] = {}
    for word, value in values.items():
        place = word % PLACES + 1
        placed[place] = max(value, placed.get(place, 0.0))
    return "{" + ",".join([f"{place}:{value:.4g}" for place, value in placed.items()]) + f"}}/{PLACES}"
