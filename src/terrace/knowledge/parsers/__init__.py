"""Reading files: a parser for each format, all of them run in bounded subprocesses.

`FileParser` is the door. The parsers and their libraries are imported in the subprocess only.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from terrace.knowledge.base import Chunk, Page, Parsed
from terrace.knowledge.pages import PageMarks, page_image, page_marks
from terrace.knowledge.parsers.base import ParseLimits
from terrace.knowledge.parsers.child import read_file

if TYPE_CHECKING:  # the subprocess imports this module too and needs neither
    from terrace.jobs.processes import OnProgress, Processes
    from terrace.settings import Knowledge

__all__ = ["FileParser"]

LEAST_UNPACKED = 64 * 1024**2  # bytes a zip-based format may always unpack to
SMALL = 64 * 1024  # bytes of places, some 2,000 of them: unpacked at once; more of them in a thread
IMAGE_SECONDS = 20.0  # for one page's image or marks


class FileParser:
    """Parses files and pictures PDF pages within the limits of the settings.

    Any method raises Invalid with a sentence about what is wrong with the file; cancelling it stops the work at once.
    """

    def __init__(self, settings: Knowledge, processes: Processes) -> None:
        self._settings = settings
        self._processes = processes
        self._limits = ParseLimits(
            max_pages=settings.max_pages,
            max_text_chars=settings.max_text_chars,
            max_unpacked=max(LEAST_UNPACKED, 2 * settings.max_file_bytes),
        )

    async def parse(
        self, path: Path, name: str, progress: OnProgress | None = None
    ) -> tuple[Parsed, tuple[Chunk, ...]]:
        """The text of a file with its pages, and the passages it is cut into along its blocks (which stay behind).

        `name` is what the sender called it; it decides only between kinds of text. `progress(done, total, note)` is
        called while it is read. Raises Invalid with one of the codes `document_empty`, `document_encrypted`,
        `document_unsupported`, `document_damaged`, `document_hostile`, `document_too_*`, `parse_timeout`,
        `parse_memory`, `parse_crashed`.
        """
        settings = self._settings
        read = await self._processes.run(
            read_file,
            *(path, name, self._limits, settings.chunk_tokens, settings.chunk_overlap),
            timeout=settings.parse_timeout,
            memory=settings.parse_memory,
            progress=progress or _unheard,
        )
        if len(read.chunks) < SMALL:
            return read.unpack()
        return await asyncio.to_thread(read.unpack)

    async def page_image(self, path: Path, page: Page, start: int = 0, end: int = 0, width: int = 1000) -> bytes:
        """A PNG of a PDF page, as `Parsed.pages` has it, with the characters [start, end) of the text marked."""
        memory = self._settings.parse_memory
        return await self._processes.run(
            page_image, path, page, start, end, width, timeout=IMAGE_SECONDS, memory=memory
        )

    async def page_marks(self, path: Path, page: Page, start: int, end: int) -> PageMarks:
        """The boxes of the characters [start, end) of the text on a PDF page, one a line."""
        memory = self._settings.parse_memory
        return await self._processes.run(page_marks, path, page, start, end, timeout=IMAGE_SECONDS, memory=memory)


def _unheard(done: float, total: float, note: str = "") -> None:
    """Where nobody wants to hear of progress."""
