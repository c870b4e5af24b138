"""CSV and its relatives: in which encoding, cut by what, and row by row, each with its line."""

import codecs
import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from terrace.campaigns.contacts.reading.base import MAX_CELL, Plan, Problem, Row
from terrace.campaigns.contacts.reading.mapping import headings
from terrace.errors import Invalid

PIECE = 1024 * 1024  # bytes read at a time
SAMPLE_CHARS = 65_536
MAX_LINE = 4_000_000  # characters
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SPOKEN = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|", "bar": "|"}
ENCODINGS = (
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1", "iso-8859-15", "cp1250", "cp1251", "cp1253",
    "cp1254", "cp1257", "iso-8859-2", "koi8-r", "mac-roman", "cp437", "cp850", "shift_jis", "cp932", "euc-jp",
    "gb18030", "big5", "euc-kr",
)  # fmt: skip
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED = re.compile(r'"?sep=(.)"?\s*', re.I)


class TextTable:
    """Raises Invalid at once when the first row is none, and from iterating when quotes never close."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.notes: list[str] = []
        self._path = path
        self._encoding = _encoding(path, plan.encoding, self.notes)
        with self._open() as file:
            sample = file.read(SAMPLE_CHARS)
        declared = _DECLARED.fullmatch(sample.partition("\n")[0])
        self._skip = declared is not None
        self._delimiter = _delimiter(plan.delimiter, declared[1] if declared else "", sample, self.notes)
        first = next((row for row in self._rows() if isinstance(row, Problem) or not row.empty), None)
        if first is None:
            raise Invalid("There is nothing in this file.", code="table_empty")
        if isinstance(first, Problem):
            raise Invalid(f"The first row cannot be read: {first.message}", code="bad_quotes")
        self._first = first.line
        self.header = headings(first.cells)

    def __iter__(self) -> Iterator[Row | Problem]:
        return (row for row in self._rows() if row.line > self._first)

    def _rows(self) -> Iterator[Row | Problem]:
        csv.field_size_limit(MAX_CELL)
        with self._open() as file:
            reader = csv.reader(_lines(file), delimiter=self._delimiter, strict=True)
            if self._skip:
                next(reader, None)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _unbalanced(str(error), line, reader.line_num)
                else:
                    yield Row(line, cells)

    def _open(self) -> TextIO:
        return self._path.open(encoding=self._encoding, newline="")


def _lines(file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        if len(line) == MAX_LINE and line[-1] not in "\r\n":
            raise Invalid(
                f"Line {number} is longer than {MAX_LINE:,} characters. Is this a table, and in this encoding?",
                code="line_too_long",
            )
        yield line


def _unbalanced(complaint: str, line: int, until: int) -> Problem:
    """Raises Invalid where all that follows is lost."""
    if "unexpected end" in complaint or "field limit" in complaint:
        raise Invalid(
            f"A quote that opens in the row of line {line} is never closed, so that what follows it cannot be told "
            "apart. Close it, or write a quote within a cell twice.",
            code="bad_quotes",
            line=line,
        )
    lines = f"line {line}" if until <= line else f"lines {line} to {until}"
    return Problem(
        line,
        f"The quotes in {lines} do not balance. Put quotes around the whole cell, and write a quote within it twice.",
    )


def _encoding(path: Path, wanted: str, notes: list[str]) -> str:
    if wanted:
        return _wanted(path, wanted, notes)
    with path.open("rb") as file:
        head = file.read(4096)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            _check(path, encoding)
            notes.append(f"Read as {'UTF-8' if encoding == 'utf-8-sig' else 'UTF-16'}, as its first bytes say.")
            return encoding
    if (wide := _utf16(head)) is not None:
        _check(path, wide)
        notes.append("Read as UTF-16, since every other byte is zero.")
        return wide
    if (line := _undecodable(path, "utf-8")) is None:
        notes.append("Read as UTF-8.")
        return "utf-8"
    found, called = ("cp1252", "Windows-1252") if _undecodable(path, "cp1252") is None else ("latin-1", "Latin-1")
    notes.append(
        f"Read as {called}, since line {line} is not UTF-8. If letters look wrong in the sample, say the encoding."
    )
    return found


def _wanted(path: Path, wanted: str, notes: list[str]) -> str:
    name = wanted.strip().lower().replace("_", "-").replace("windows-", "cp").replace("shift-jis", "shift_jis")
    name = {"utf8": "utf-8", "utf16": "utf-16", "latin1": "latin-1", "iso-8859-1": "latin-1"}.get(name, name)
    if name not in ENCODINGS:
        raise Invalid(
            f"{wanted[:40]!r} is no encoding known here. Known are: {', '.join(ENCODINGS)}.", code="bad_encoding"
        )
    name = "utf-8-sig" if name == "utf-8" else name
    _check(path, name)
    notes.append(f"Read as {wanted.strip()}, as you said.")
    return name


def _check(path: Path, encoding: str) -> None:
    if (line := _undecodable(path, encoding)) is not None:
        raise Invalid(
            f"Line {line} is not {encoding.removesuffix('-sig')}. Save the file as UTF-8, or say its encoding.",
            code="bad_encoding",
            line=line,
        )


def _undecodable(path: Path, encoding: str) -> int | None:
    """The first line that is not of this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE)
            try:
                line += decoder.decode(piece, final=not piece).count("\n")
            except UnicodeDecodeError as error:
                return line + error.object[: error.start].count(b"\n")
            if not piece:
                return None


def _utf16(head: bytes) -> str | None:
    """UTF-16 without a mark: of mostly Latin text every other byte is zero."""
    pairs = len(head) // 2
    even, odd = head[0 : 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if pairs and odd > 0.4 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    if pairs and even > 0.4 * pairs and odd < 0.05 * pairs:
        return "utf-16-be"
    return None


def _delimiter(wanted: str, declared: str, sample: str, notes: list[str]) -> str:
    if wanted:
        chosen = SPOKEN.get(wanted.strip().lower(), wanted)
        if len(chosen) != 1 or chosen in '"\r\n\0' or chosen.isalnum():
            raise Invalid("A delimiter is one sign, such as , or ; or tab.", code="bad_delimiter")
        return chosen
    chosen = declared if declared in DELIMITERS else _sniffed(sample)
    notes.append(f"Columns are taken to be separated by {DELIMITERS[chosen]}.")
    return chosen


def _sniffed(sample: str) -> str:
    """The one that cuts the first rows into the same number of cells, the more the better."""
    lines = [line for line in sample.splitlines(keepends=True)[:50] if line.strip()]
    best, score = ",", 0.0
    for candidate in DELIMITERS:
        try:
            counts = [len(row) for row in csv.reader(lines, delimiter=candidate)]
        except csv.Error:
            continue
        usual = max(set(counts), key=counts.count, default=1)
        if usual > 1 and (now := counts.count(usual) / len(counts) * (1 + usual / 1000)) > score:
            best, score = candidate, now
    return best
