"""Excel (XLSX): a sheet is a page; each row as `header: value` pairs, formulas as the values last computed."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from openpyxl import load_workbook

from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.media import XLSX
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, one_line, too_long
from terrace.knowledge.parsers.csv import ROWS_PER_BLOCK, table_lines
from terrace.knowledge.parsers.docx import core_properties

MAX_CELLS = 5_000_000
MAX_ROWS = 1_048_576


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One workbook."""
    with Archive(path, limits) as archive:  # holds it to the limits before openpyxl opens it
        metadata = core_properties(archive)
        archive.refuse_entities()
    draft = Draft(limits)
    with path.open("rb") as file, warnings.catch_warnings():  # by name it would insist on its ending
        warnings.simplefilter("ignore")  # about styles and extensions it doesn't know
        book = load_workbook(file, read_only=True, data_only=True, keep_links=False)
        cells = _Count(MAX_CELLS)
        sheets = [sheet for sheet in book.worksheets if hasattr(sheet, "iter_rows")]
        for number, sheet in enumerate(sheets, 1):
            draft.page()
            if sheet.sheet_state == "visible":
                _add_sheet(sheet, draft, cells, limits)
            progress(number, len(sheets))
        book.close()
    title = metadata.pop("title", "")
    return replace(draft.parsed(XLSX, title, metadata), title=title)  # a sheet's name is no title


class _Count:
    """Cells that may still be read, over all sheets."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise Invalid(
                f"This workbook has more than {MAX_CELLS:,} cells. Split it.", code="document_too_long", status=413
            )


def _add_sheet(sheet: Any, draft: Draft, cells: _Count, limits: ParseLimits) -> None:
    draft.add("heading", one_line(sheet.title), 1)
    block: list[str] = []
    size = 0
    for line in table_lines(_rows(sheet, cells)):
        block.append(line)
        size += len(line) + 1
        if size > limits.max_text_chars:
            raise too_long(limits)
        if len(block) == ROWS_PER_BLOCK:
            draft.add("table", "\n".join(block))
            block = []
    draft.add("table", "\n".join(block))


def _rows(sheet: Any, cells: _Count) -> Iterator[list[str]]:
    sheet.reset_dimensions()  # what a file claims about its size is often wrong
    for row in sheet.iter_rows(values_only=True, max_row=MAX_ROWS):
        cells.take(len(row) + 1)
        values = [_value(cell) for cell in row]
        while values and not values[-1]:
            values.pop()
        if values:
            yield values


def _value(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, str):
        return one_line(cell)
    if isinstance(cell, datetime) and cell.time() == time():
        return cell.date().isoformat()
    if isinstance(cell, datetime | date | time):
        return cell.isoformat(" ") if isinstance(cell, datetime) else cell.isoformat()
    if isinstance(cell, float):
        return f"{cell:.12g}"
    return one_line(str(cell))
