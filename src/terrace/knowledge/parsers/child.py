"""What runs in a subprocess for one file: tell its type, parse it, cut it into chunks. The server only names it."""

import importlib
import traceback
from dataclasses import dataclass
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
class ChunkPlace:
    """A chunk without its text, which the parsed text has already."""

    start: int
    end: int
    page: int | None
    headings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """What comes back from the subprocess."""

    parsed: Parsed
    chunks: tuple[ChunkPlace, ...]

    def whole_chunks(self) -> tuple[Chunk, ...]:
        text = self.parsed.text
        return tuple(
            Chunk(ordinal, Span(each.start, each.end), text[each.start : each.end], each.page, each.headings)
            for ordinal, each in enumerate(self.chunks)
        )


def read_file(
    path: Path, name: str, limits: ParseLimits, chunk_tokens: int, overlap: int, *, progress: Progress
) -> ParsedFile:
    """Parse and cut one file. Raises Invalid with what is wrong with it."""
    parsed = parse_file(path, name, limits, progress)
    chunks = chunk(parsed, chunk_tokens, overlap)
    places = tuple(ChunkPlace(each.span.start, each.span.end, each.page, each.headings) for each in chunks)
    return ParsedFile(parsed, places)


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
