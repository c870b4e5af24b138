"""CSV and TSV: each row as `header: value` pairs on a line of its own, so that a chunk of rows stands alone."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from terrace.knowledge.base import Parsed
from terrace.knowledge.media import CSV, TSV, decode
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, one_line, read_bytes, too_long

MAX_FIELD = 100_000  # characters; a longer field is an unbalanced quote
MAX_COLUMNS = 5_000
ROWS_PER_BLOCK = 1_000

_NUMBER = re.compile(r"[-+]?[\d.,  ]*\d%?")


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One file of rows."""
    text = decode(read_bytes(path, limits)).replace("\0", "")
    delimiter = _delimiter(text[:65_536])
    try:
        rows = _rows(text, delimiter, csv.QUOTE_MINIMAL)
        return _parsed(rows, delimiter, limits)
    except csv.Error:  # quotes don't balance: take them as they are
        rows = _rows(text, delimiter, csv.QUOTE_NONE)
        return _parsed(rows, delimiter, limits)


def table_lines(rows: Iterable[list[str]]) -> Iterator[str]:
    """A line of text for each row that isn't empty; `header: value` where the first row is a header."""
    rows = iter(rows)
    top = list(islice(rows, 3))
    header = _header(top)
    if header is None:
        yield from (line for row in chain(top, rows) if (line := " | ".join(filter(None, row))))
        return
    if len(top) == 1:
        yield " | ".join(filter(None, header))
    names = [f"{name}: " if name else "" for name in header]
    for row in chain(top[1:], rows):
        extra = len(row) - len(names)
        pairs = zip(names + [""] * extra if extra > 0 else names, row, strict=False)
        if line := "; ".join(name + value for name, value in pairs if value):
            yield line


def _parsed(rows: Iterator[list[str]], delimiter: str, limits: ParseLimits) -> Parsed:
    draft = Draft(limits)
    block: list[str] = []
    size = 0
    for line in table_lines(rows):
        block.append(line)
        size += len(line) + 1
        if size > limits.max_text_chars:
            raise too_long(limits)
        if len(block) == ROWS_PER_BLOCK:
            draft.add("table", "\n".join(block))
            block = []
    draft.add("table", "\n".join(block))
    return draft.parsed(TSV if delimiter == "\t" else CSV)


def _rows(text: str, delimiter: str, quoting: Literal[0, 3]) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_FIELD if quoting == csv.QUOTE_MINIMAL else 2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting)
    for row in reader:
        yield [one_line(value) for value in row[:MAX_COLUMNS]]


def _delimiter(sample: str) -> str:
    """The one that cuts the first lines into the same number of columns, the more the better."""
    heads = [line for line in sample.splitlines()[:20] if line.strip()]
    best, score = ",", 0.0
    for candidate in ",;\t|":
        counts = [len(row) for row in csv.reader(heads, delimiter=candidate)] or [1]
        usual = max(set(counts), key=counts.count)
        if usual > 1 and (now := counts.count(usual) / len(counts) * (1 + usual / 1000)) > score:
            best, score = candidate, now
    return best


def _header(top: list[list[str]]) -> list[str] | None:
    """The first row if it names columns: no numbers, nothing twice, and mostly filled."""
    if not top or len(top[0]) < 2:
        return None
    names = [name for name in top[0] if name]
    if len(names) * 2 < len(top[0]) or len(set(names)) < len(names):
        return None
    if any(_NUMBER.fullmatch(name) or len(name) > 100 for name in names):
        return None
    return top[0]
