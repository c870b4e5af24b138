"""Files read and drawn in processes of their own: what they hold may be hostile, and takes time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from terrace.analysis import ocr, schema
from terrace.analysis.base import Drawn, Survey
from terrace.analysis.drawing import draw
from terrace.analysis.survey import survey
from terrace.jobs.processes import Processes
from terrace.knowledge import archives
from terrace.knowledge.parsers import LEAST_UNPACKED
from terrace.knowledge.parsers.base import ParseLimits
from terrace.settings import Analysis, Knowledge

PAGE_SECONDS = 30.0  # for one page to be drawn
OCR_SECONDS = 90.0  # for one page to be read
SCHEMA_SECONDS = 10.0
SCHEMA_MEMORY = 512 * 1024**2
OCR_MEMORY = 2 * 1024**3


class Reader:
    """Any method raises Invalid with a sentence about what is wrong; cancelling it stops the work at once."""

    def __init__(self, processes: Processes, options: Analysis, knowledge: Knowledge) -> None:
        self._processes = processes
        self._options = options
        self._seconds = knowledge.parse_timeout
        self._memory = knowledge.parse_memory
        self._limits = ParseLimits(
            max_pages=knowledge.max_pages,
            max_text_chars=knowledge.max_text_chars,
            max_unpacked=max(LEAST_UNPACKED, 2 * options.max_file_bytes),
        )

    async def archive_type(self, path: Path, name: str) -> str:
        """What a zip-based file is."""
        return await self._processes.run(
            archives.media_type, str(path), name, timeout=self._seconds, memory=SCHEMA_MEMORY
        )

    async def survey(self, path: Path, name: str, media_type: str) -> Survey:
        most = self._options.max_pages
        return await self._processes.run(
            survey, path, name, media_type, most, self._limits, timeout=self._seconds, memory=self._memory
        )

    async def draw(
        self, path: Path, media_type: str, wanted: Sequence[tuple[int, str]], *, with_text: bool
    ) -> list[Drawn]:
        """Each of `wanted` (number, source); see `drawing.draw`."""
        options = self._options
        return await self._processes.run(
            draw,
            *(path, media_type, list(wanted), options.dpi, options.max_pixels, with_text, self._limits),
            timeout=PAGE_SECONDS * len(wanted),
            memory=self._memory,
        )

    async def read(self, program: ocr.Program, image: bytes) -> str:
        """The text in a picture."""
        languages = self._options.ocr_languages
        return await self._processes.run(
            ocr.read, program, image, languages, OCR_SECONDS, timeout=OCR_SECONDS + 5, memory=OCR_MEMORY
        )

    async def check_schema(self, given: Any) -> dict[str, Any]:
        """A caller's JSON schema."""
        measured = schema.measured(given)
        await self._processes.run(schema.check, measured, timeout=SCHEMA_SECONDS, memory=SCHEMA_MEMORY)
        return measured

    async def violations(self, value: Any, wanted: dict[str, Any]) -> list[str]:
        """What is wrong with fields that shall fit a schema."""
        return await self._processes.run(schema.violations, value, wanted, timeout=SCHEMA_SECONDS, memory=SCHEMA_MEMORY)
