"""Cutting a parsed text into passages that stand for themselves: along its structure, never through a sentence,
a table row or a line of code unless that alone is too long.

Every chunk is a span of the text. Chunks are in order and together cover everything that isn't white space.
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from terrace.knowledge.base import Block, Chunk, Parsed, Span

CountTokens = Callable[[str], int]

WHOLE = 1.15  # a paragraph this much over the target still stays whole
HEADED = 1.25  # the same with the heading above it
SMALL = 1 / 3  # of the target: what is smaller looks for company
LETTERS_PER_TOKEN = 4.5  # of English prose in word pieces, blanks included
DEEPEST = 9
MAX_HEADING = 200  # characters of a heading kept in a chunk's path

_LETTERS = bytes(range(65, 91)) + bytes(range(97, 123)) + b" \n\t"
_DIGITS = b"0123456789"
# Letters that a vocabulary made for Latin ones takes one by one, of scripts with words (Cyrillic) or without (Han).
_FOREIGN = re.compile("[\u0370-\u1fff\u2e80-\U0003ffff]+")
_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"'”’)\]»]*\s+(?=[\"'“‘(\[«¿¡]*[^\W_a-z])"  # a full stop, then no small letter
    r"|(?<=[。！？])(?=\S)"
    r"|\n+"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|al|Fig|fig|Eq|No|no|pp|vol|ed|approx|Inc|Ltd|Co)\.$"
)
_LINE = re.compile(r"\n+")
_EDGE = re.compile(r"\S(?:.*\S)?", re.S)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A piece that is kept whole: a paragraph, a sentence of a long one, a row, a line."""

    start: int
    end: int
    tokens: int
    section: int  # pieces of different sections never share a chunk
    headings: tuple[str, ...]
    part: bool = False  # of something longer that had to be cut
    heading: bool = False


def chunk(
    parsed: Parsed, target_tokens: int, overlap: int = 0, count_tokens: CountTokens | None = None
) -> tuple[Chunk, ...]:
    """Passages of about `target_tokens`, at most 1.25 times that (and the overlap).

    A heading begins a chunk; small paragraphs under the same heading are put together, longer ones stay apart. With
    `overlap`, a chunk that continues a cut paragraph repeats up to that many tokens of whole sentences before it.
    `count_tokens` counts those of a text; without it they are estimated.
    """
    count = count_tokens or estimate_tokens
    groups = _groups(_units(parsed, target_tokens, count), target_tokens)
    starts = [page.span.start for page in parsed.pages]
    chunks: list[Chunk] = []
    before: list[_Unit] = []
    for group in groups:
        first = _overlapping(parsed.text, before, group, overlap, count)
        span = Span(first, group[-1].end)
        page = parsed.pages[max(0, bisect_right(starts, first) - 1)].number if starts else None
        chunks.append(Chunk(len(chunks), span, parsed.text[first : span.end], page, group[0].headings))
        before = group
    return tuple(chunks)


def estimate_tokens(text: str) -> int:
    """About how many word pieces a text has: Latin letters by fours and a half, digits by twos, other signs one each.

    Meant to err upwards: an embedding model cuts off what it can't hold.
    """
    if text.isascii():
        return _ascii_tokens(text.encode())
    ascii_part = text.encode("ascii", "ignore")
    foreign = len(text) - len(_FOREIGN.sub("", text))
    other = len(text) - len(ascii_part) - foreign
    return _ascii_tokens(ascii_part) + foreign + (other + 1) // 2


def _ascii_tokens(data: bytes) -> int:
    rest = data.translate(None, _LETTERS)
    signs = len(rest.translate(None, _DIGITS))
    digits = len(rest) - signs
    return int((len(data) - len(rest)) / LETTERS_PER_TOKEN + digits / 2 + signs + 0.99)


def _units(parsed: Parsed, target: int, count: CountTokens) -> Iterator[_Unit]:
    text = parsed.text
    path: list[tuple[int, str]] = []  # open headings with their levels
    section = 0
    for block in _covering(parsed):
        match = _EDGE.search(text, block.span.start, block.span.end)
        if match is None:
            continue
        start, end = match.span()
        if block.kind == "heading":
            level = min(max(block.level, 1), DEEPEST)
            while path and path[-1][0] >= level:
                path.pop()
            path.append((level, " ".join(text[start : min(end, start + MAX_HEADING)].split()).lstrip("# ")))
            section += 1
        headings = tuple(title for _, title in path)
        tokens = count(text[start:end])
        if tokens <= target * WHOLE:
            yield _Unit(start, end, tokens, section, headings, heading=block.kind == "heading")
        else:
            for span, size in _cut(text, Span(start, end), tokens, block.kind, target, count):
                yield _Unit(span.start, span.end, size, section, headings, part=True)


def _covering(parsed: Parsed) -> Iterator[Block]:
    """The blocks, and a paragraph for whatever lies between them."""
    at = 0
    for block in parsed.blocks:
        if block.span.start > at:
            yield Block("paragraph", Span(at, block.span.start))
        yield block
        at = max(at, block.span.end)
    if at < len(parsed.text):
        yield Block("paragraph", Span(at, len(parsed.text)))


def _cut(text: str, span: Span, tokens: int, kind: str, target: int, count: CountTokens) -> Iterator[tuple[Span, int]]:
    """A long block in parts of about equal size, at most the target each."""
    atoms = list(_atoms(text, span, kind, target, count))
    total = sum(size for _, size in atoms)
    parts = max(1, -(-total // target))
    share = total / parts
    start, size = -1, 0
    for index, (atom, atom_size) in enumerate(atoms):
        if start >= 0 and (size + atom_size > target or size + atom_size / 2 > share):
            yield Span(start, atoms[index - 1][0].end), size
            start, size = -1, 0
        if start < 0:
            start = atom.start
        size += atom_size
    if start >= 0:
        yield Span(start, atoms[-1][0].end), size


def _atoms(text: str, span: Span, kind: str, target: int, count: CountTokens) -> Iterator[tuple[Span, int]]:
    """Sentences of a paragraph, lines of anything else; what is still too long by words, then anywhere."""
    pieces = sentences(text, span) if kind in ("paragraph", "heading") else _split(text, span, _LINE)
    for piece in pieces:
        size = count(text[piece.start : piece.end])
        if size <= target:
            yield piece, size
        elif kind in ("paragraph", "heading"):
            yield from _forced(text, piece, size, target, count)
        else:
            for sentence in sentences(text, piece):
                part = count(text[sentence.start : sentence.end])
                if part <= target:
                    yield sentence, part
                else:
                    yield from _forced(text, sentence, part, target, count)


def sentences(text: str, span: Span) -> Iterator[Span]:
    """The sentences of a stretch of text, without the white space between them."""
    start = span.start
    for match in _SENTENCE.finditer(text, span.start, span.end):
        if "\n" not in match.group() and _ABBREVIATION.search(text, max(start, match.start() - 12), match.start()):
            continue
        yield from _trimmed(text, start, match.start() + len(match.group().rstrip()))
        start = match.end()
    yield from _trimmed(text, start, span.end)


def _split(text: str, span: Span, between: re.Pattern[str]) -> Iterator[Span]:
    start = span.start
    for match in between.finditer(text, span.start, span.end):
        yield from _trimmed(text, start, match.start())
        start = match.end()
    yield from _trimmed(text, start, span.end)


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield Span(start, end)


def _forced(text: str, span: Span, tokens: int, target: int, count: CountTokens) -> Iterator[tuple[Span, int]]:
    """Cut between words, or within one that is too long itself (but not before an accent that belongs to a letter)."""
    step = max(1, int((span.end - span.start) * target / tokens))
    start = span.start
    while start < span.end:
        end = min(span.end, start + step)
        size = count(text[start:end])
        while size > target and end - start > 1:
            end = start + max(1, (end - start) * target // (size + 1))
            size = count(text[start:end])
        if end < span.end:
            end = _before_word(text, start, end)
            size = count(text[start:end])
        for piece in _trimmed(text, start, end):
            yield piece, size
        start = end


def _before_word(text: str, start: int, end: int) -> int:
    if text[end].isspace():
        return end
    for at in range(end - 1, start + (end - start) // 2, -1):
        if text[at].isspace():
            return at
    at = end
    while at > start + 1 and end - at < 8 and unicodedata.combining(text[at]):
        at -= 1
    return at


def _groups(units: Iterable[_Unit], target: int) -> Iterator[list[_Unit]]:
    """Units put together: a heading with what follows it, small ones of a section with their neighbours."""
    group: list[_Unit] = []
    size = 0
    for unit in units:
        if group and not _belongs(group, size, unit, target):
            yield group
            group, size = [], 0
        group.append(unit)
        size += unit.tokens
    if group:
        yield group


def _belongs(group: Sequence[_Unit], size: int, unit: _Unit, target: int) -> bool:
    last = group[-1]
    if all(each.heading for each in group):  # only headings so far: take what they head, or their subheading
        deeper = unit.section == last.section or len(unit.headings) > len(last.headings)
        return deeper and size + unit.tokens <= target * HEADED
    if unit.section != last.section or size + unit.tokens > target:
        return False
    if unit.part and last.part:
        return False  # cut apart on purpose
    return size < target * SMALL or unit.tokens < target * SMALL


def _overlapping(text: str, before: Sequence[_Unit], group: Sequence[_Unit], overlap: int, count: CountTokens) -> int:
    """Where a chunk starts: at its first unit, or up to `overlap` tokens of sentences earlier in the same section."""
    start = group[0].start
    if not overlap or not before or before[-1].section != group[0].section or before[-1].heading:
        return start
    last = before[-1]
    for sentence in reversed(list(sentences(text, Span(last.start, last.end)))):
        if sentence.start <= last.start or count(text[sentence.start : last.end]) > overlap:
            break
        start = sentence.start
    return start
