"""Markdown, its source kept as it is: a passage quoted from it is what its author wrote."""

import re
from collections.abc import Iterator
from pathlib import Path

from terrace.knowledge.base import Block, Parsed, Span
from terrace.knowledge.media import MARKDOWN, decode
from terrace.knowledge.parsers.base import Kind, ParseLimits, Progress, bounded, normalise, read_bytes, too_long

_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]+|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+\S")
_ROW = re.compile(r"[ \t]*\|")
_FRONT = re.compile(r"---\n(.*?\n)?---[ \t]*(?:\n|\Z)", re.S)
_FRONT_TITLE = re.compile(r"^title:[ \t]*[\"']?(.*?)[\"']?[ \t]*$", re.M)
_DECORATION = re.compile(r"[*_`]|\[([^\]]*)\]\([^)]*\)|[ \t]+#+[ \t]*$")


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One Markdown file; front matter gives the title, else the first heading."""
    text = normalise(decode(read_bytes(path, limits)))
    if len(text) > limits.max_text_chars:
        raise too_long(limits)
    front = _FRONT.match(text)
    blocks = bounded(_blocks(text), limits)
    title = ""
    if front is not None and (named := _FRONT_TITLE.search(front.group())):
        title = named.group(1)
    if not title:
        heading = next((text[slice(*block.span)] for block in blocks[:5] if block.kind == "heading"), "")
        title = _plain(heading)
    return Parsed(text, MARKDOWN, title=title[:300], blocks=blocks)


def _plain(heading: str) -> str:
    return _DECORATION.sub(r"\1", heading.lstrip("# \t").partition("\n")[0]).strip()


def _blocks(text: str) -> Iterator[Block]:
    """Blocks by line; what belongs together goes on until an empty line, a heading or a fence."""
    start = end = -1  # of the open block
    kind: Kind = "paragraph"
    fence = ""
    front = _FRONT.match(text)
    at = 0
    if front is not None:
        yield Block("code", Span(0, len(front.group().rstrip())))
        at = front.end()
    while at < len(text):
        stop = text.find("\n", at)
        stop = len(text) if stop < 0 else stop
        line = text[at : min(stop, at + 400)]  # enough to see what it is
        tail = at + len(text[at:stop].rstrip())
        if fence:
            end = tail if tail > at else end
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                yield Block("code", Span(start, end))
                start, fence = -1, ""
        elif not line or line.isspace():
            if start >= 0:
                yield Block(kind, Span(start, end))
                start = -1
        elif (
            start >= 0
            and kind == "paragraph"
            and (under := _SETEXT.fullmatch(line))
            and text.find("\n", start) == at - 1
        ):
            yield Block("heading", Span(start, tail), 1 if under.group(1)[0] == "=" else 2)
            start = -1
        else:
            opening, now = _FENCE.match(line), _kind(line)
            heading = _HEADING.match(line)
            if start >= 0 and (
                opening or heading or (now != kind and "table" in (now, kind)) or (now == "list" != kind)
            ):
                yield Block(kind, Span(start, end))
                start = -1
            if heading:
                yield Block("heading", Span(at, tail), len(heading.group(1)))
            else:
                if start < 0:
                    start, kind = at, "code" if opening else now
                fence = opening.group(1) if opening else ""
                end = tail
        at = stop + 1
    if start >= 0:
        yield Block(kind, Span(start, end))


def _kind(line: str) -> Kind:
    if _ROW.match(line):
        return "table"
    return "list" if _ITEM.match(line) else "paragraph"
