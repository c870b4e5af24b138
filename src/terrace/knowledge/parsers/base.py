"""What every parser shares: its form, its limits, how text is normalised, and the draft it writes its result on."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

from terrace.errors import Invalid
from terrace.knowledge.base import Block, Page, Parsed, Span

Kind = Literal["heading", "paragraph", "list", "table", "code"]


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one file may cost before it is refused."""

    max_pages: int = 5000
    max_text_chars: int = 20_000_000
    max_blocks: int = 500_000  # headings, paragraphs, lists and tables; each costs time and memory however short
    max_unpacked: int = 400 * 1024**2  # bytes of a zip-based format, unpacked
    max_members: int = 20_000  # files inside a zip-based format
    max_ratio: int = 300  # unpacked to packed; more is a zip bomb


class Progress(Protocol):
    """`progress(done, total)` while a parser works; called often, cheap."""

    def __call__(self, done: float, total: float, note: str = "") -> None: ...


class Parser(Protocol):
    """A format's module has one function of this form, called `parse`.

    It reads a file of its format and nothing else. It raises Invalid with a sentence for the person who sent the
    file; any other exception is taken for a damaged file.
    """

    def __call__(self, path: Path, limits: ParseLimits, progress: Progress) -> Parsed: ...


_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls, soft hyphens, zero-width spaces, bidi embeddings and overrides, marks of byte order, lone surrogates:
# nothing a reader sees, much that hides or reorders what they see.
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_SPACES = re.compile(r"[^\S\n]+")
_TRAILING = re.compile(r"[^\S\n]+(?=\n)")
_BLANKS = re.compile(r"\n{3,}")


def normalise(text: str) -> str:
    """Lines end with \\n, what can't be seen is gone, the rest is NFKC (ligatures and widths resolved)."""
    if text.isascii() and text.isprintable():
        return text
    return unicodedata.normalize("NFKC", _UNSEEN.sub("", _LINE_ENDS.sub("\n", text)))


def one_line(text: str) -> str:
    """Normalised, with every run of white space as one blank."""
    return " ".join(normalise(text).split())


def lines(text: str) -> str:
    """Normalised, each line tidy, no two empty lines in a row."""
    return _BLANKS.sub("\n\n", _TRAILING.sub("", _SPACES.sub(" ", normalise(text)))).strip()


@dataclass(slots=True)
class Draft:
    """Text being put together block by block, two line ends apart, so that every span slices it exactly."""

    limits: ParseLimits
    blocks: list[Block] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _length: int = 0
    _page: int = 0  # number of the open page; 0: none yet
    _page_start: int | None = None  # of its first block

    def add(self, kind: Kind, text: str, level: int = 0) -> None:
        """Append a block of text that is normalised already; an empty one is left out."""
        if not text or text.isspace():
            return
        if self._parts:
            self._parts.append("\n\n")
            self._length += 2
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        if self._length > self.limits.max_text_chars:
            raise too_long(self.limits)
        if self._page_start is None:
            self._page_start = start
        self.blocks.append(Block(kind, Span(start, self._length), level))
        if len(self.blocks) > self.limits.max_blocks:
            raise too_many_blocks(self.limits)

    def page(self) -> None:
        """Begin the next page."""
        self._end_page()
        self._page += 1
        self._page_start = None
        if self._page > self.limits.max_pages:
            raise too_many_pages(self._page, self.limits)

    def parsed(self, media_type: str, title: str = "", metadata: dict[str, str] | None = None) -> Parsed:
        """The result. Without a title, the first heading near the start is it."""
        self._end_page()
        text = "".join(self._parts)
        if not title:
            title = next((text[b.span.start : b.span.end] for b in self.blocks[:5] if b.kind == "heading"), "")
        return Parsed(
            text=text,
            media_type=media_type,
            title=one_line(title)[:300],
            pages=tuple(self.pages),
            blocks=tuple(self.blocks),
            warnings=tuple(self.warnings),
            metadata=metadata or {},
        )

    def _end_page(self) -> None:
        if self._page:
            start = self._length if self._page_start is None else self._page_start
            self.pages.append(Page(self._page, Span(start, self._length)))


def too_long(limits: ParseLimits) -> Invalid:
    return Invalid(
        f"This file holds more than {limits.max_text_chars:,} characters of text. "
        "Split it, or raise knowledge.max_text_chars.",
        code="document_too_long",
        status=413,
    )


def too_many_blocks(limits: ParseLimits) -> Invalid:
    return Invalid(
        f"This file has more than {limits.max_blocks:,} paragraphs or headings. Split it.",
        code="document_too_complex",
        status=413,
    )


def bounded(blocks: Iterable[Block], limits: ParseLimits) -> tuple[Block, ...]:
    """All of them, unless there are too many."""
    taken = tuple(islice(blocks, limits.max_blocks + 1))
    if len(taken) > limits.max_blocks:
        raise too_many_blocks(limits)
    return taken


def too_many_pages(pages: int, limits: ParseLimits) -> Invalid:
    return Invalid(
        f"This file has {pages:,} pages or more; up to {limits.max_pages:,} are read. "
        "Split it, or raise knowledge.max_pages.",
        code="document_too_many_pages",
        status=413,
    )


def damaged(what: str) -> Invalid:
    return Invalid(
        f"{what} Open it in the program it comes from, save it again and upload that.", code="document_damaged"
    )


def empty(why: str = "It holds no text.") -> Invalid:
    return Invalid(f"There is nothing to read in this file. {why}", code="document_empty")


def read_bytes(path: Path, limits: ParseLimits) -> bytes:
    """The whole of a text file; refused before reading when it must hold more characters than allowed."""
    if path.stat().st_size > 4 * limits.max_text_chars + 4:  # no encoding takes more bytes a character
        raise too_long(limits)
    return path.read_bytes()
