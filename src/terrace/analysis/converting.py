"""From a stored file to pages a model can be given: pictures, and where nobody looks at them, their text."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlmodel import Session

from terrace.analysis import ocr, store
from terrace.analysis.base import Drawn
from terrace.analysis.plain import kept
from terrace.analysis.reading import Reader
from terrace.analysis.tables import AnalysisRow, PageRow
from terrace.errors import Invalid, TerraceError
from terrace.jobs.base import Context
from terrace.storage import Blobs

PAGES = 4  # drawn in one call of a subprocess
SUFFIXES = {"image/png": "png", "image/jpeg": "jpg"}
UNREAD = f"This page is a picture, and nothing here reads pictures. {ocr.ADVICE}"
BLANK = "No text was found on this page."


class Converting:
    """One attempt at one file. What an earlier attempt has drawn is not drawn again."""

    def __init__(self, context: Context, blobs: Blobs, reader: Reader, row: AnalysisRow, program: str) -> None:
        self._context = context
        self._blobs = blobs
        self._reader = reader
        self._row = row
        self._program = program  # as analysis.ocr has it

    async def survey(self) -> list[PageRow]:
        """The parts of the file, found out once."""
        row = self._row
        async with self._blobs.local(row.blob) as path:
            found = await self._reader.survey(path, row.name, row.media_type)

        def keep(session: Session) -> list[PageRow]:
            mine = store.fenced(session, self._context.scope, row.id, self._context.job_id)
            if not store.pages(session, row.id):
                store.add_pages(session, mine, found.parts)
                mine.pages, mine.warnings = len(found.parts), list(found.warnings)
            return store.pages(session, row.id)

        pages: list[PageRow] = await self._context.write(keep)
        return pages

    async def convert(self, pages: Sequence[PageRow], *, with_text: bool) -> None:
        """Draw what waits; `with_text` reads it, too: by itself where it holds text, else by OCR."""
        waiting = [page for page in pages if page.state == "waiting"]
        if not waiting:
            return
        program = await asyncio.to_thread(ocr.available, self._program) if with_text else None
        done = len(pages) - len(waiting)
        async with self._blobs.local(self._row.blob) as path:
            for start in range(0, len(waiting), PAGES):
                some = waiting[start : start + PAGES]
                self._context.progress(done + start, len(pages), f"{done + start} of {len(pages)} pages drawn")
                for drawn in await self._draw(path, [(page.number, page.source) for page in some], with_text):
                    await self._keep(drawn, with_text, program)

    async def _draw(self, path: Path, wanted: list[tuple[int, str]], with_text: bool) -> list[Drawn]:
        """A page that can't be drawn at all (it crashes, takes too long or too much) is found by drawing each alone."""
        try:
            return await self._reader.draw(path, self._row.media_type, wanted, with_text=with_text)
        except Invalid as error:
            if not error.code.startswith("parse_"):
                raise
            if len(wanted) == 1:
                return [Drawn(wanted[0][0], error=f"This page could not be drawn. {error.message}")]
        return [drawn for each in wanted for drawn in await self._draw(path, [each], with_text)]

    async def _keep(self, drawn: Drawn, with_text: bool, program: ocr.Program | None) -> None:
        read: dict[str, Any] = {"text": kept(drawn.text), "note": drawn.note, "error": drawn.error or None}
        if with_text and drawn.image and not drawn.text.strip():
            read |= await self._read(drawn, program)
        if drawn.image:
            key = f"{self._row.tenant_id}/analyses/{self._row.id}/pages/{drawn.number}.{SUFFIXES[drawn.media_type]}"
            await self._blobs.put(key, drawn.image)
            read |= {"blob": key, "media_type": drawn.media_type, "width": drawn.width, "height": drawn.height}

        def keep(session: Session) -> None:
            store.fenced(session, self._context.scope, self._row.id, self._context.job_id)
            store.keep_page(session, self._row.id, drawn.number, read)

        await self._context.write(keep)

    async def _read(self, drawn: Drawn, program: ocr.Program | None) -> dict[str, Any]:
        if program is None:
            return {"error": UNREAD}
        try:
            text = kept(await self._reader.read(program, drawn.image))
        except TerraceError as error:
            return {"error": error.message}
        note = " ".join(filter(None, (drawn.note, "" if text else BLANK)))
        return {"text": text, "read_by": program, "note": note}
