"""Words as FTS5 cuts and stems them, so that both databases know the same words and weigh them alike.

The tokenizer is SQLite's own, in an empty table in memory: no other would agree with it to the last accent.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from terrace.knowledge.index.fulltext import TOKENIZER

TIMES = {"title": 4, "headings": 3, "text": 2}  # halves, as FTS5's weights are 2, 1.5 and 1
MADE = (
    f"CREATE VIRTUAL TABLE bag USING fts5({', '.join(TIMES)}, content='', tokenize='{TOKENIZER}')",
    "CREATE VIRTUAL TABLE words USING fts5vocab(bag, 'instance')",
)

_local = threading.local()


@dataclass(slots=True)
class Bag:
    """The words of one passage. `times`: how often it has each, in halves, title and headings weighing more."""

    length: int = 0  # in tokens, unweighted
    times: Counter[str] = field(default_factory=Counter)


def bags(passages: Sequence[tuple[str, str, str]]) -> list[Bag]:
    """Of (title, headings, text) each."""
    connection = _connection()
    found = [Bag() for _ in passages]
    connection.execute("BEGIN")
    try:
        connection.executemany(
            "INSERT INTO bag(rowid, title, headings, text) VALUES (?, ?, ?, ?)",
            [(place, *passage) for place, passage in enumerate(passages)],
        )
        for place, word, column in connection.execute("SELECT doc, term, col FROM words"):
            found[place].length += 1
            found[place].times[word] += TIMES[column]
    finally:
        connection.execute("ROLLBACK")
    return found


def stems(words: Sequence[str]) -> Counter[str]:
    """How often each stem is asked for: two words may have one."""
    bag = bags([("", "", " ".join(words))])[0]
    return Counter({word: times // TIMES["text"] for word, times in bag.times.items()})


def _connection() -> sqlite3.Connection:
    """This thread's own; a work of the database runs in one thread."""
    connection: sqlite3.Connection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in MADE:
            connection.execute(statement)
    return connection
