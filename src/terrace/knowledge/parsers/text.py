"""Plain text of any encoding: paragraphs as the blank lines say, headings only where they are hard to mistake."""

import re
from collections.abc import Iterator
from pathlib import Path

from terrace.knowledge.base import Block, Parsed, Span
from terrace.knowledge.media import TEXT, decode
from terrace.knowledge.parsers.base import ParseLimits, Progress, bounded, normalise, read_bytes, too_long

LONGEST_HEADING = 80

_PARAGRAPH = re.compile(r"\S.*(?:\n[^\S\n]*\S.*)*")  # lines up to an empty one
_UNDERLINE = re.compile(r"(=|-|~|\*)\1{2,}")
_NUMBERED = re.compile(
    r"(?:(?:chapter|part|section|appendix|book)\s+)?(?:\d+(?:\.\d+)*|[IVXLC]+)[.:)]?(?:\s+\S.*)?", re.I
)
_BULLET = re.compile(r"(?:[-*•‣▪]|\d{1,3}[.)])\s+\S")


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One text file, its text kept as it is but for normalisation."""
    text = normalise(decode(read_bytes(path, limits)))
    if len(text) > limits.max_text_chars:
        raise too_long(limits)
    blocks = bounded(_blocks(text), limits)
    first = blocks[0] if blocks and blocks[0].kind == "heading" else None
    return Parsed(text, TEXT, title=text[slice(*first.span)].partition("\n")[0] if first else "", blocks=blocks)


def _blocks(text: str) -> Iterator[Block]:
    for match in _PARAGRAPH.finditer(text):
        span = Span(*match.span())
        rows = match.group().split("\n", 3)
        if (level := _heading_level(rows)) > 0:
            yield Block("heading", span, level)
        elif len(rows) > 1 and _BULLET.match(rows[0].lstrip()) and _BULLET.match(rows[1].lstrip()):
            yield Block("list", span)
        else:
            yield Block("paragraph", span)


def _heading_level(rows: list[str]) -> int:
    """1 or 2 for a heading, else 0: a short line of its own that is underlined, in capitals or numbered."""
    title = rows[0].strip()
    if len(title) > LONGEST_HEADING or not any(letter.isalpha() for letter in title):
        return 0
    if len(rows) == 2 and (line := _UNDERLINE.fullmatch(rows[1].strip())):
        return 1 if line.group(1) in "=*" else 2
    if len(rows) > 1 or title[-1] in ".,;:!?":
        return 0
    if title.isupper() and sum(letter.isalpha() for letter in title) >= 4:
        return 1
    words = title.split()
    if _NUMBERED.fullmatch(title) and 1 < len(words) <= 10 and (words[1][0].isupper() or words[1][0].isdigit()):
        return 2
    return 0
