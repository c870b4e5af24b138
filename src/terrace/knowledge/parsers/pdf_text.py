"""The text of PDF pages, and where on the page each character of it is.

Both come from one composition: a page's text is a row of slices of what pdfium reads, each normalised, with separators
between them. `PdfText.page` composes; `PageText.sources` follows the same slices back to pdfium's characters. What a
page's text is depends on that page and the two before and after it (running headers), so any page can be composed
alone, years later, with the same result.
"""

import ctypes
import re
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import pypdfium2.raw as pdfium

from terrace.knowledge.parsers.base import normalise

NEIGHBOURS = 2  # pages looked at on either side for running headers and footers
KEPT_PAGES = 2 * NEIGHBOURS + 2
MARGIN_LINES = 2  # at the top and at the bottom that may be running ones
MARGIN = 0.1  # of the page's height, within which they are
SAME_PLACE = 4.0  # points a running line may move between pages
MAX_CHARS = 2_000_000  # on one page; pdfium itself gets slow beyond

_HYPHENS = ("\ufffe", "\x02", "\u00ad")  # at the end of a line; the first is pdfium's, which then ends no line
_WIDE = re.compile("[\U00010000-\U0010ffff]")
_ROW = re.compile("[^\n\ufffe]+[\n\ufffe]?")
_LETTER = re.compile(r"\w")
_WORD = re.compile(r"\S+")
_DIGITS = re.compile(r"\d+")
_BULLET = re.compile(r"(?:[•‣▪◦●○■–—*-]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+\S")
_LAST_WORD = re.compile(r"\w+$")
_FIRST_WORD = re.compile(r"\w+")
_SENTENCE_END = (".", "!", "?", ":", ";", ".”", '."', ".)", "。")


class Line(NamedTuple):
    """A line as pdfium reads it: its slice of the raw text and its box in points, y upwards."""

    start: int
    end: int
    left: float
    right: float
    bottom: float
    top: float
    height: float  # of its first letter (a bullet may be of another font)
    tail: float  # height of its last one


class Slice(NamedTuple):
    """A slice of the raw text and what follows it in the page's text."""

    start: int
    end: int
    after: str


@dataclass(slots=True)
class Paragraph:
    """A block of a page: its span in the page's text, the height of its first line, how it begins."""

    start: int
    end: int
    height: float
    lines: int
    bullet: bool


@dataclass(slots=True)
class PageText:
    """The text of one page and what it was composed of."""

    text: str
    raw: str
    slices: list[Slice]
    paragraphs: list[Paragraph] = field(default_factory=list)

    def sources(self, start: int, end: int) -> list[int]:
        """Offsets in `raw` of the characters [start, end) of `text`, separators left out."""
        offsets: list[int] = []
        for each in self.slices:
            _, part = fold(self.raw[each.start : each.end])
            offsets.extend(-1 if offset < 0 else each.start + offset for offset in part)
            offsets.extend([-1] * len(each.after))
            if len(offsets) >= end:
                break
        return sorted({offset for offset in offsets[start:end] if offset >= 0})


@dataclass(slots=True)
class _RawPage:
    text: str
    lines: list[Line]
    margins: dict[int, tuple[str, float]]  # line -> (its words with digits as #, its height on the page)


class PdfText:
    """Composes the texts of the pages of an open document (a `pypdfium2.PdfDocument`); numbers are from 0."""

    def __init__(self, document: Any) -> None:
        self._document = document
        self._pages = len(document)
        self._raw: OrderedDict[int, _RawPage] = OrderedDict()

    def page(self, number: int) -> PageText:
        raw = self._read(number)
        running = self._running_lines(number, raw)
        return _compose(raw, [line for at, line in enumerate(raw.lines) if at not in running])

    def _running_lines(self, number: int, raw: _RawPage) -> set[int]:
        """Lines at the margin that at least two of the neighbouring pages have in the same place.

        The first page keeps its own, so that what they say is in the text once.
        """
        if number == 0 or self._pages < 3 or len(raw.lines) < 4:
            return set()
        first, last = max(0, number - NEIGHBOURS), min(self._pages, number + NEIGHBOURS + 1)
        others = [self._read(each).margins.values() for each in range(first, last) if each != number]
        return {
            at
            for at, (words, place) in raw.margins.items()
            if sum(any(words == w and abs(place - p) < SAME_PLACE for w, p in margins) for margins in others) >= 2
        }

    def _read(self, number: int) -> _RawPage:
        if number in self._raw:
            return self._raw[number]
        page = self._document[number]
        try:
            textpage = page.get_textpage()
            try:
                raw = _read_page(textpage.raw, page.get_bbox())
            finally:
                textpage.close()
        finally:
            page.close()
        self._raw[number] = raw
        while len(self._raw) > KEPT_PAGES:
            self._raw.popitem(last=False)
        return raw


def raw_text(textpage: Any) -> str:
    """All that pdfium reads on a page, lines ended by \\r\\n."""
    count = min(pdfium.FPDFText_CountChars(textpage), MAX_CHARS)
    if count <= 0:
        return ""
    buffer = ctypes.create_string_buffer(2 * (count + 1) * 2)
    units = pdfium.FPDFText_GetText(textpage, 0, count, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)))
    return buffer.raw[: max(0, units - 1) * 2].decode("utf-16-le", "surrogatepass")


def character_indices(textpage: Any, raw: str, offsets: Iterable[int]) -> Iterator[int]:
    """pdfium's indices of the characters at these offsets of the raw text; it counts in UTF-16 units."""
    units = _units(raw)
    for offset in offsets:
        index = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, units(offset))
        if index >= 0:
            yield index


def _units(raw: str) -> Callable[[int], int]:
    """How many UTF-16 units are before an offset."""
    wide = [at for at, character in enumerate(raw) if character > "\uffff"] if _WIDE.search(raw) else []
    return (lambda at: at + bisect_left(wide, at)) if wide else (lambda at: at)


def fold(piece: str) -> tuple[str, list[int]]:
    """A slice normalised on one line, and for each character of that the offset it came from (-1: a blank)."""
    words: list[str] = []
    offsets: list[int] = []
    for match in _WORD.finditer(piece):
        word = match.group()
        made = folded_word(word)
        if not made:
            continue
        if words:
            offsets.append(-1)
        words.append(made)
        offsets.extend(match.start() + offset for offset in _origins(word, made))
    return " ".join(words), offsets


def folded_word(word: str) -> str:
    return " ".join(normalise(word).split())


def _origins(word: str, made: str) -> list[int]:
    if len(made) == len(word):
        return list(range(len(word)))
    parts = [folded_word(character) for character in word]
    if "".join(parts) == made:
        return [at for at, part in enumerate(parts) for _ in part]
    return [min(at * len(word) // len(made), len(word) - 1) for at in range(len(made))]


def _folded(piece: str) -> str:
    """`fold(piece)[0]`, quicker."""
    if piece.isascii() and piece.isprintable():
        return " ".join(piece.split())
    return " ".join(filter(None, map(folded_word, piece.split())))


def _read_page(textpage: Any, box: tuple[float, float, float, float]) -> _RawPage:
    text = raw_text(textpage)
    units = _units(text)
    lines = []
    for row in _ROW.finditer(text):
        bare = row.group().strip()
        if bare and bare not in _HYPHENS:
            start = row.start() + row.group().index(bare[0])
            lines.append(_line(textpage, text, start, start + len(bare), units))
    return _RawPage(text, lines, _margins(text, lines, box[1], box[3]))


def _line(textpage: Any, text: str, start: int, end: int, units: Callable[[int], int]) -> Line:
    """The line [start, end) with its box, taken from its first and last characters."""
    first, last = _box(textpage, units(start)), _box(textpage, units(end - 1))
    letter = _LETTER.search(text, start, end)
    head = first if letter is None or letter.start() == start else _box(textpage, units(letter.start()))
    return Line(
        start,
        end,
        min(first.left, last.left),
        max(first.right, last.right),
        min(first.bottom, last.bottom),
        max(first.top, last.top),
        head.top - head.bottom,
        last.top - last.bottom,
    )


def _box(textpage: Any, at: int) -> Any:
    box = pdfium.FS_RECTF()
    index = pdfium.FPDFText_GetCharIndexFromTextIndex(textpage, at)
    pdfium.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(box))
    return box


def _margins(text: str, lines: list[Line], bottom: float, top: float) -> dict[int, tuple[str, float]]:
    """The outermost lines at the top and bottom of a page that reaches from `bottom` to `top`."""
    band = MARGIN * (top - bottom)
    order = sorted(range(len(lines)), key=lambda at: -lines[at].top)
    outer = {at for at in order[:MARGIN_LINES] if lines[at].bottom > top - band}
    outer |= {at for at in order[-MARGIN_LINES:] if lines[at].top < bottom + band}
    return {at: (_DIGITS.sub("#", text[lines[at].start : lines[at].end]), lines[at].bottom) for at in outer}


def _compose(raw: _RawPage, lines: list[Line]) -> PageText:
    """Lines put together: words cut by a hyphen joined, lines of a paragraph joined, paragraphs two line ends apart."""
    text = raw.text
    page = PageText("", text, [])
    gaps = [before.bottom - after.bottom for before, after in pairwise(lines)]
    leading = median([gap for gap in gaps if gap > 1] or [12.0])
    edges = _right_edges(lines)
    parts: list[str] = []
    length = 0
    for at, line in enumerate(lines):
        end, after = line.end, ""
        if at + 1 < len(lines):
            end, after = _join(text, line, lines[at + 1], leading, edges[at])
        made = _folded(text[line.start : end])
        if not made:
            continue
        if not page.paragraphs or page.slices[-1].after == "\n\n":
            bullet = _BULLET.match(made) is not None
            page.paragraphs.append(Paragraph(length, length + len(made), line.height, 1, bullet))
        else:
            page.paragraphs[-1].end = length + len(made)
            page.paragraphs[-1].lines += 1
        page.slices.append(Slice(line.start, end, after))
        parts += (made, after)
        length += len(made) + len(after)
    if page.slices:
        last = page.slices.pop()
        page.slices.append(last._replace(after=""))
        parts[-1] = ""
    page.text = "".join(parts)
    return page


def _right_edges(lines: list[Line]) -> list[float]:
    """For each line the right edge of its column: how far lines reach that begin about where it does."""
    width = max((line.right for line in lines), default=0.0) - min((line.left for line in lines), default=0.0)
    step = max(1.0, width / 12)
    furthest: dict[int, float] = {}
    for line in lines:
        column = int(line.left // step)
        for near in (column - 1, column, column + 1):
            furthest[near] = max(furthest.get(near, line.right), line.right)
    return [furthest[int(line.left // step)] for line in lines]


def _like(line: Line, after: Line) -> bool:
    """Whether two lines may be of one paragraph by their heights; words in another font may begin or end either."""
    bound = 0.12 * max(line.height, after.height)
    return any(abs(a - b) <= bound for a in (line.height, line.tail) for b in (after.height, after.tail))


def _join(text: str, line: Line, after: Line, leading: float, edge: float) -> tuple[int, str]:
    """Where a line ends in the raw text (before a hyphen that only cuts a word), and what joins it to the next."""
    ending = text[line.start : line.end]
    next_text = text[after.start : after.start + 80]
    marked = ending.endswith(_HYPHENS) and len(ending) > 1
    if marked or (ending.endswith("-") and next_text[:1].islower() and ending[-2:-1].isalpha()):
        return line.end - 1, "-" if _keeps_hyphen(text, ending[:-1], next_text) else ""
    return line.end, _separator(ending, next_text, line, after, leading, edge)


def _keeps_hyphen(text: str, ending: str, next_text: str) -> bool:
    """Whether the page has the compound with its hyphen elsewhere and never without."""
    first, second = _LAST_WORD.search(ending), _FIRST_WORD.match(next_text)
    if first is None or second is None:
        return False
    return f"{first.group()}-{second.group()}" in text and first.group() + second.group() not in text


def _separator(ending: str, next_text: str, line: Line, after: Line, leading: float, edge: float) -> str:
    gap = line.bottom - after.bottom
    height = max(line.height, after.height, 1.0)
    ended = ending.endswith(_SENTENCE_END)
    if abs(gap) < 0.3 * height:  # further to the right on the same line
        return " "
    if gap < 0:  # the next column
        return " " if not ended and next_text[:1].islower() else "\n\n"
    goes_on = next_text[:1].islower() and not ended
    if gap > max(1.35 * leading, 1.3 * height) or not (goes_on or _like(line, after)):
        return "\n\n"
    if _BULLET.match(next_text):
        return "\n"
    short = line.right < edge - 0.25 * max(1.0, edge - line.left)
    if ended and (short or after.left > line.left + 0.8 * height):
        return "\n\n"
    return "\n" if short and not next_text[:1].islower() else " "


def character_box(textpage: Any, index: int) -> tuple[float, float, float, float]:
    """(left, bottom, right, top) in points of the character at pdfium's index, as high as its line."""
    box = pdfium.FS_RECTF()
    pdfium.FPDFText_GetLooseCharBox(textpage, index, ctypes.byref(box))
    return box.left, box.bottom, box.right, box.top


def to_device(page: Any, size: int, x: float, y: float) -> tuple[int, int]:
    """A point of the page on a square device of `size` steps from the top left, as the page is shown."""
    across, down = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, size, size, 0, x, y, ctypes.byref(across), ctypes.byref(down))
    return across.value, down.value
