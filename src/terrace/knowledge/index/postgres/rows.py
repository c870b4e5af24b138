"""Rows of `chunk_words` as COPY takes them, of many passages at once and in arrays: one after the other they would take
three times as long.

A key of a word is made of its passage, its number's rank and how often it stands there; so one sort of integers puts
the words of each passage in order.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import pairwise
from struct import Struct
from typing import Any, NamedTuple

from terrace.knowledge.index.postgres.tokens import TIMES, Tokens, tokens_of

K1, B = 1.2, 0.75  # as in FTS5
CHAMPION = 0.7  # of the most that a word can weigh in a chunk
USUAL_LENGTH = 150  # tokens, for telling champions: the real average changes all the time
MOST_TIMES = 255  # in halves
PLACES = 2**29  # of words in `impacts`: what their numbers leave, divided by so many

COLUMNS = "number, tenant, document_id, length, words, times, impacts"
HEAD, END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"  # what COPY takes in binary stands between
BIGINT = 20  # PostgreSQL's number of the type

_NUMBER = Struct(">hiq")  # how many columns; the first of them
_LENGTH = Struct(">ii")
_ARRAY = Struct(">iiiiii")
_SPARSE = Struct(">iiii")


class Rows(NamedTuple):
    copied: bytes  # between HEAD and END
    tokens: int
    holding: dict[int, int]  # number of a word -> how many of the passages hold it


class _Lists(NamedTuple):
    """What each passage has, one passage after the other; `ends` where one ends and the next begins, from 0."""

    numbers: Any
    times: Any  # in halves; 0 for a list that the passage is a champion in
    ends: Any


@lru_cache(maxsize=50_000)
def number_of(tenant: str, word: str, *, champion: bool = False) -> int:
    """Of a tenant's word, or of its list of champions: 64 bits."""
    told = f"{tenant}\0{word}\0" if champion else f"{tenant}\0{word}"
    return int.from_bytes(blake2b(told.encode(), digest_size=8).digest(), "big", signed=True)


def rows_of(tenant: str, places: Sequence[tuple[int, str]], passages: Sequence[tuple[str, str, str]]) -> Rows:
    """`places`: (chunk number, document) of each; `passages`: (title, headings, text)."""
    import numpy as np

    tokens = tokens_of(passages)
    lengths = np.bincount(tokens.passages, minlength=len(passages))
    lists = _lists(tenant, tokens, lengths)
    numbers, holding = np.unique(lists.numbers, return_counts=True)
    rows = _written(tenant, places, lengths.tolist(), lists)
    return Rows(b"".join(rows), int(lengths.sum()), dict(zip(numbers.tolist(), holding.tolist(), strict=True)))


def _lists(tenant: str, tokens: Tokens, lengths: Any) -> _Lists:
    """By ascending numbers within a passage."""
    import numpy as np

    known, steps = len(tokens.vocabulary), max(TIMES.values()) + 1
    key = np.sort((tokens.passages * known + tokens.words) * steps + tokens.weights)
    said, weights = np.divmod(key, steps)
    first = np.flatnonzero(np.diff(said, prepend=-1))
    times = np.add.reduceat(weights, first)
    passage, word = np.divmod(said[first], max(1, known))  # each word of a passage once

    weighty = times >= _least_of_champions(lengths)[passage]
    champions = np.unique(word[weighty])
    numbers = np.array(
        [number_of(tenant, each) for each in tokens.vocabulary]
        + [number_of(tenant, tokens.vocabulary[each], champion=True) for each in champions],
        np.int64,
    )
    order = np.argsort(numbers)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    own = passage * len(order) + rank[word]
    champion = passage[weighty] * len(order) + rank[known + np.searchsorted(champions, word[weighty])]
    key = np.sort(np.concatenate((own << 8 | np.minimum(times, MOST_TIMES), champion << 8)))
    passage, place = np.divmod(key >> 8, max(1, len(order)))
    return _Lists(numbers[order][place], key & 255, np.searchsorted(passage, np.arange(len(lengths) + 1)))


def _least_of_champions(lengths: Any) -> Any:
    """How often, in halves, a word must stand in chunks of so many tokens."""
    norms = K1 * (1 - B + B * lengths / USUAL_LENGTH)
    return TIMES["text"] * norms * CHAMPION / (1 - CHAMPION)


def _impacts(lists: _Lists) -> tuple[bytes, bytes, list[int]]:
    """(places, values) of pgvector's sparse vectors and where those of each passage end: exact for a word that stands
    once in the text. Of two words in one place, which hardly ever are, the greater counts."""
    import numpy as np

    passage = np.repeat(np.arange(len(lists.ends) - 1), np.diff(lists.ends))
    key = np.sort((passage * PLACES + lists.numbers % PLACES << 8 | lists.times)[lists.times > 0])
    key = key[np.append(np.diff(key >> 8) != 0, True)[: len(key)]]
    halves = np.arange(MOST_TIMES + 1)
    values = halves * (K1 + 1) / (halves + TIMES["text"] * K1)
    passage, place = np.divmod(key >> 8, PLACES)
    ends = np.searchsorted(passage, np.arange(len(lists.ends)))
    return place.astype(">i4").tobytes(), values[key & 255].astype(">f4").tobytes(), ends.tolist()


def _written(tenant: str, places: Sequence[tuple[int, str]], lengths: Sequence[int], lists: _Lists) -> Iterator[bytes]:
    import numpy as np

    words = np.empty(len(lists.numbers), [("size", ">i4"), ("number", ">i8")])
    words["size"], words["number"] = 8, lists.numbers
    told, times = words.tobytes(), lists.times.astype(np.uint8).tobytes()
    where, values, impacts = _impacts(lists)
    whose = _field(tenant.encode())
    for (number, document), length, (begin, end), (left, right) in zip(
        places, lengths, pairwise(lists.ends.tolist()), pairwise(impacts), strict=True
    ):
        yield _NUMBER.pack(COLUMNS.count(",") + 1, 8, number)
        yield whose
        yield _field(document.encode())
        yield _LENGTH.pack(4, length)
        yield _ARRAY.pack(20 + 12 * (end - begin), 1, 0, BIGINT, end - begin, 1)
        yield told[12 * begin : 12 * end]
        yield _field(times[begin:end])
        yield _SPARSE.pack(12 + 8 * (right - left), PLACES, right - left, 0)
        yield where[4 * left : 4 * right]
        yield values[4 * left : 4 * right]


def _field(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
