"""Words as FTS5 cuts and stems them, so that both databases know the same words and weigh them alike.

The tokenizer is SQLite's own, in an empty table in memory: no other would agree with it to the last accent. Asking it
costs far more than counting, and most of what a text says was said before. So texts are first cut where it always cuts,
and what it made of a piece is remembered: a text's words are those of its pieces.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from terrace.knowledge.index.fulltext import TOKENIZER

TIMES = {"title": 4, "headings": 3, "text": 2}  # halves, as FTS5's weights are 2, 1.5 and 1
MADE = (
    f"CREATE VIRTUAL TABLE pieces USING fts5(piece, content='', tokenize='{TOKENIZER}')",
    "CREATE VIRTUAL TABLE words USING fts5vocab(pieces, 'instance')",
)
CUTS = {code: " " for code in range(128) if not chr(code).isalnum()}  # within ASCII; as white space is beyond
REMEMBERED = 100_000  # pieces; all are forgotten when there would be more
LONGEST = 64  # characters of a piece that is remembered

Words = tuple[str, ...]

_local = threading.local()
_remembered: dict[str, Words] = {}


@dataclass(slots=True)
class Bag:
    """The words of one passage. `times`: how often it has each, in halves, title and headings weighing more."""

    length: int  # in tokens, unweighted
    times: dict[str, int]


def bags(passages: Sequence[tuple[str, str, str]]) -> list[Bag]:
    """Of (title, headings, text) each."""
    cut = [[column.translate(CUTS).split() for column in passage] for passage in passages]
    known = _known({piece for columns in cut for pieces in columns for piece in pieces})
    return [_bag(columns, known) for columns in cut]


def stems(words: Sequence[str]) -> Counter[str]:
    """How often each stem is asked for: two words may have one."""
    bag = bags([("", "", " ".join(words))])[0]
    return Counter({word: times // TIMES["text"] for word, times in bag.times.items()})


def _bag(columns: Sequence[Sequence[str]], known: dict[str, Words]) -> Bag:
    length, times = 0, dict[str, int]()
    for pieces, weight in zip(columns, TIMES.values(), strict=True):
        for piece in pieces:
            for word in known[piece]:
                length += 1
                times[word] = times.get(word, 0) + weight
    return Bag(length, times)


def _known(pieces: Iterable[str]) -> dict[str, Words]:
    found = {piece: _remembered.get(piece) for piece in pieces}
    known = {piece: words for piece, words in found.items() if words is not None}
    if len(known) < len(found):
        told = _told([piece for piece, words in found.items() if words is None])
        known |= told
        _remember({piece: words for piece, words in told.items() if len(piece) <= LONGEST})
    return known


def _remember(told: dict[str, Words]) -> None:
    """Works of several threads may do so at once: they remember the same."""
    if len(_remembered) + len(told) > REMEMBERED:
        _remembered.clear()
    if len(told) <= REMEMBERED:
        _remembered.update(told)


def _told(pieces: Sequence[str]) -> dict[str, Words]:
    """What the tokenizer makes of each."""
    connection = _connection()
    found: list[list[str]] = [[] for _ in pieces]
    connection.execute("BEGIN")
    try:
        connection.executemany("INSERT INTO pieces(rowid, piece) VALUES (?, ?)", enumerate(pieces))
        for place, word in connection.execute("SELECT doc, term FROM words"):
            found[place].append(word)
    finally:
        connection.execute("ROLLBACK")
    return {piece: tuple(words) for piece, words in zip(pieces, found, strict=True)}


def _connection() -> sqlite3.Connection:
    """This thread's own; a work of the database runs in one thread."""
    connection: sqlite3.Connection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in MADE:
            connection.execute(statement)
    return connection
