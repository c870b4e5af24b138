"""XLSX, streamed: one sheet's rows as the text a person would have typed."""

import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxml import etree

from terrace.campaigns.contacts.reading.base import Plan, Problem, Row
from terrace.campaigns.contacts.reading.mapping import headings
from terrace.campaigns.contacts.values import short, written
from terrace.errors import Invalid, TerraceError
from terrace.knowledge.media import BROKEN_ZIP
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import ParseLimits

MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
CELL, VALUE, TEXT, INLINE = f"{MAIN}c", f"{MAIN}v", f"{MAIN}t", f"{MAIN}is"
RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
LIMITS = ParseLimits(max_unpacked=4 * 1024**3)
MAX_SHARED = 10_000_000  # texts that cells share
ERRORS = frozenset(("#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!"))
DAMAGED: tuple[type[Exception], ...] = (*BROKEN_ZIP, etree.XMLSyntaxError)
Number = Callable[[str], str]


class Sheet:
    """Raises Invalid for a workbook that is damaged, locked, hostile or has no such sheet."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.notes: list[str] = []
        try:
            with Archive(path, LIMITS) as archive:
                part, epoch = _find(archive, plan.sheet, self.notes)
                numbers = _numbers(archive, epoch)
        except Invalid as error:
            raise _told(error) from error
        self._part = part
        self._numbers = numbers
        self._zip = zipfile.ZipFile(path)
        self._errors = 0
        self._shared = _shared(self._zip)
        first = next((row for row in self._rows() if not row.empty), None)
        if first is None:
            raise Invalid("There is nothing in this sheet.", code="table_empty")
        self._first = first.line
        self.header = headings(first.cells)
        self._errors = 0

    def __iter__(self) -> Iterator[Row | Problem]:
        yield from (row for row in self._rows() if row.line > self._first)
        if self._errors:
            self.notes.append(
                f"{self._errors:,} cells hold an error of their formula (such as #N/A) and count as empty."
            )

    def _rows(self) -> Iterator[Row]:
        line = 0
        for element in _elements(self._zip, self._part, f"{MAIN}row"):
            line = int(element.get("r") or line + 1)
            yield Row(line, self._cells(element))

    def _cells(self, row: Any) -> list[str]:
        cells: list[str] = []
        for cell in row.iterchildren(CELL):
            at = _column((cell.get("r") or "").rstrip("0123456789"))
            if at > len(cells):
                cells += [""] * (at - len(cells))
            cells.append(self._value(cell))
        return cells

    def _value(self, cell: Any) -> str:
        kind = cell.get("t")
        text: str = ""
        for part in cell:
            if part.tag == VALUE:
                text = part.text or ""
            elif part.tag == INLINE and kind == "inlineStr":
                return "".join(each.text or "" for each in part.iter(TEXT))
        if kind == "s":
            return self._shared[int(text)] if text.isdecimal() and int(text) < len(self._shared) else ""
        if kind == "b":
            return "true" if text == "1" else "false"
        if kind == "e" or text in ERRORS:
            self._errors += 1
            return ""
        if kind == "str" or not text:
            return text
        if kind == "d":
            return text.replace("T", " ").removesuffix(" 00:00:00")
        style = cell.get("s") or "0"
        return (
            self._numbers[int(style)](text) if style.isdecimal() and int(style) < len(self._numbers) else _plain(text)
        )


def _told(error: Invalid) -> Invalid:
    if error.code == "document_encrypted":
        return Invalid("This workbook is protected by a password. Remove it and save the file again.", code=error.code)
    if error.code in ("not_a_table", "table_empty", "unknown_sheet"):
        return error
    return Invalid(f"This workbook cannot be read. {error.message}", code=error.code, status=error.status)


def _find(archive: Archive, wanted: str, notes: list[str]) -> tuple[str, bool]:
    """(the sheet's part, whether days count from 1904)."""
    main = archive.main_part("xl/workbook.xml")
    if main not in archive.names or main.partition("/")[0] != "xl":
        raise Invalid("This is no Excel workbook. Save it as CSV or as .xlsx.", code="not_a_table", status=415)
    book = archive.xml(main)
    parts = archive.relations(main)
    sheets = {}
    for each in book.iter(f"{MAIN}sheet"):
        kind, target = parts.get(each.get(RELATION) or "", ("", ""))
        if kind == "worksheet" and target in archive.names:
            sheets[str(each.get("name"))] = (target, each.get("state", "visible"))
    if not sheets:
        raise Invalid("There is no sheet in this workbook.", code="table_empty")
    visible = [name for name, (_, state) in sheets.items() if state == "visible"] or list(sheets)
    name = wanted or visible[0]
    if name not in sheets:
        raise Invalid(
            f"There is no sheet {short(wanted)}. The sheets are: {', '.join(short(each) for each in sheets)}.",
            code="unknown_sheet",
        )
    if len(visible) > 1 and not wanted:
        notes.append(f"Of {len(visible)} sheets the first, {short(name)}, was read; name another to read that.")
    properties = book.find(f"{MAIN}workbookPr")
    return sheets[name][0], properties is not None and properties.get("date1904") in ("1", "true")


def _numbers(archive: Archive, epoch_1904: bool) -> list[Number]:
    """For each style of a cell, how its number is written."""
    from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format, is_timedelta_format

    name = next((each for each in archive.names if each.lower() == "xl/styles.xml"), None)
    if name is None:
        return []
    tree = archive.xml(name)
    codes = {int(i): code for i, code in BUILTIN_FORMATS.items()}
    for each in tree.iter(f"{MAIN}numFmt"):
        if (number := each.get("numFmtId") or "").isdecimal():
            codes[int(number)] = each.get("formatCode") or ""
    date = _dates(epoch_1904)
    made: list[Number] = []
    for style in tree.iterfind(f"{MAIN}cellXfs/{MAIN}xf"):
        number = style.get("numFmtId") or "0"
        code = codes.get(int(number), "") if number.isdecimal() else ""
        dated = number.isdecimal() and (27 <= int(number) <= 36 or 50 <= int(number) <= 58)  # East Asian dates
        if dated or (is_date_format(code) and not is_timedelta_format(code)):
            made.append(date)
        elif "%" in code:
            made.append(_percent)
        else:
            made.append(_plain)
    return made


def _dates(epoch_1904: bool) -> Number:
    from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, from_excel

    epoch = CALENDAR_MAC_1904 if epoch_1904 else CALENDAR_WINDOWS_1900
    known: dict[str, str] = {}

    def date(text: str) -> str:
        if (made := known.get(text)) is None:
            try:
                made = written(from_excel(float(text), epoch=epoch))
            except (ValueError, OverflowError):
                made = _plain(text)
            if len(known) < 100_000:
                known[text] = made
        return made

    return date


def _plain(text: str) -> str:
    """Excel keeps 17 digits of a binary fraction and shows 15."""
    if text.isdecimal() and len(text) <= 15:
        return text
    try:
        return written(float(text))
    except ValueError:
        return text


def _percent(text: str) -> str:
    try:
        return f"{written(float(text) * 100)}%"
    except ValueError:
        return text


def _shared(archive: zipfile.ZipFile) -> list[str]:
    name = next((each for each in archive.namelist() if each.lower() == "xl/sharedstrings.xml"), None)
    if name is None:
        return []
    texts: list[str] = []
    for item in _elements(archive, name, f"{MAIN}si"):
        texts.append("".join(each.text or "" for each in item.iter(TEXT) if each.getparent().tag != f"{MAIN}rPh"))
        if len(texts) > MAX_SHARED:
            raise Invalid("This workbook holds too many texts. Save it as CSV.", code="table_too_large", status=413)
    return texts


def _elements(archive: zipfile.ZipFile, part: str, tag: str) -> Iterator[Any]:
    """Each element of this name as it is read; of hostile XML nothing is resolved."""
    try:
        with archive.open(part) as file:
            options: Any = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
            for number, (_, element) in enumerate(etree.iterparse(file, events=("end",), tag=tag, **options)):
                if not number and element.getroottree().docinfo.doctype:  # it stands before the first of all elements
                    raise Invalid("This workbook declares XML entities; it is not read.", code="document_hostile")
                yield element
                element.clear()
                while element.getprevious() is not None:
                    del element.getparent()[0]
    except TerraceError:
        raise
    except DAMAGED as error:
        raise Invalid(
            "This workbook is damaged. Open it in the program it comes from, save it again and send that.",
            code="document_damaged",
        ) from error


@lru_cache(maxsize=32_768)
def _column(letters: str) -> int:
    """`C` is 2; -1 where it does not say, and the cell is the one that follows. Raises Invalid when it is far out."""
    number = 0
    for sign in letters:
        number = number * 26 + ord(sign) - 64
    if not 0 <= number <= 16_384:
        raise Invalid("This workbook names a column that no sheet has.", code="document_damaged")
    return number - 1
