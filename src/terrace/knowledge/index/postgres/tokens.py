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
from itertools import chain
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Tokens:
    """The words of passages, one passage after the other. The arrays are int64 and as long as there are words."""

    vocabulary: list[str]
    passages: Any  # whose each is
    words: Any  # places in the vocabulary
    weights: Any  # in halves: title and headings weigh more


def tokens_of(passages: Sequence[tuple[str, str, str]]) -> Tokens:
    """Of (title, headings, text) each."""
    import numpy as np

    columns = [_cut(column) for passage in passages for column in passage]
    flat = list(chain.from_iterable(columns))
    places = {piece: place for place, piece in enumerate(dict.fromkeys(flat))}
    known = _known(places)
    vocabulary: dict[str, int] = {}
    meant = [[vocabulary.setdefault(word, len(vocabulary)) for word in known[piece]] for piece in places]
    sizes = np.array([len(each) for each in meant], np.int64)
    pieces = np.fromiter(map(places.__getitem__, flat), np.int64, len(flat))
    many = sizes[pieces]  # words of each piece: nearly always one
    first = (np.cumsum(sizes) - sizes)[pieces]
    further = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    words = np.fromiter(chain.from_iterable(meant), np.int64)[np.repeat(first, many) + further]
    column = np.repeat(np.repeat(np.arange(len(columns)), [len(each) for each in columns]), many)
    passage, kind = np.divmod(column, len(TIMES))
    return Tokens(list(vocabulary), passage, words, np.array([*TIMES.values()])[kind])


def stems(words: Sequence[str]) -> Counter[str]:
    """How often each stem is asked for: two words may have one."""
    pieces = _cut(" ".join(words))
    known = _known(dict.fromkeys(pieces))
    return Counter(word for piece in pieces for word in known[piece])


def _cut(text: str) -> list[str]:
    return text.translate(CUTS).split()


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
