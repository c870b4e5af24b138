"""What runs in a subprocess for one file: tell its type, parse it, cut it into chunks. The server only names it."""

import importlib
import traceback
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from terrace.errors import Invalid, TerraceError
from terrace.knowledge import media
from terrace.knowledge.base import Chunk, Parsed, Span
from terrace.knowledge.chunking import chunk
from terrace.knowledge.parsers.base import ParseLimits, Parser, Progress, damaged, empty

# Modules of this folder, imported when a file of their type comes.
PARSERS = {
    media.PDF: "pdf",
    media.DOCX: "docx",
    media.PPTX: "pptx",
    media.XLSX: "xlsx",
    media.EPUB: "epub",
    media.HTML: "html",
    media.MARKDOWN: "markdown",
    media.CSV: "csv",
    media.TSV: "csv",
    media.EML: "eml",
    media.TEXT: "text",
}


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What comes back from the subprocess: a text and numbers, so that decoding even a very long one holds up nobody.

    `chunks` are rows of four 64-bit integers: start, end, page (or -1), index into `headings`.
    """

    parsed: Parsed  # without its blocks, which nobody needs once the text is cut
    chunks: bytes
    headings: tuple[tuple[str, ...], ...]

    @classmethod
    def pack(cls, parsed: Parsed, chunks: tuple[Chunk, ...]) -> "ParsedFile":
        paths: dict[tuple[str, ...], int] = {}
        places = array("q")
        for each in chunks:
            page = -1 if each.page is None else each.page
            places.extend((*each.span, page, paths.setdefault(each.headings, len(paths))))
        return cls(replace(parsed, blocks=()), places.tobytes(), tuple(paths))

    def unpack(self) -> tuple[Parsed, tuple[Chunk, ...]]:
        """The parsed file and its chunks, whose texts are slices of its text."""
        text, headings = self.parsed.text, self.headings
        chunks = tuple(
            Chunk(ordinal, Span(start, end), text[start:end], None if page < 0 else page, headings[path])
            for ordinal, (start, end, page, path) in enumerate(_rows(self.chunks))
        )
        return self.parsed, chunks


def _rows(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    numbers = iter(array("q", data))
    return zip(numbers, numbers, numbers, numbers, strict=True)


def read_file(
    path: Path, name: str, limits: ParseLimits, chunk_tokens: int, overlap: int, *, progress: Progress
) -> ParsedFile:
    """Parse and cut one file. Raises Invalid with what is wrong with it."""
    parsed = parse_file(path, name, limits, progress)
    return ParsedFile.pack(parsed, chunk(parsed, chunk_tokens, overlap))


def parse_file(path: Path, name: str, limits: ParseLimits, progress: Progress) -> Parsed:
    """The text of one file. A parser that stumbles over a file is the file's fault, as far as anyone can tell."""
    kind = media.detect(path, name)
    parser = cast(Parser, importlib.import_module(f"terrace.knowledge.parsers.{PARSERS[kind]}").parse)
    try:
        parsed = parser(path, limits, progress)
    except (TerraceError, MemoryError):
        raise
    except RecursionError as error:
        raise Invalid("This file is nested too deeply to be read.", code="document_too_complex") from error
    except Exception as error:
        broken = damaged("This file is damaged or not quite what it claims to be.")
        broken.extra = {"reason": f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}"}
        raise broken from error
    if not parsed.text or parsed.text.isspace():
        raise empty()
    return parsed
