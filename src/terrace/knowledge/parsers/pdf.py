"""PDF, page by page, by pdfium."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.media import PDF
from terrace.knowledge.parsers.base import (
    Draft,
    Kind,
    ParseLimits,
    Progress,
    damaged,
    empty,
    one_line,
    too_long,
    too_many_pages,
)
from terrace.knowledge.parsers.pdf_text import PageText, Paragraph, PdfText

_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)")

LARGER = 1.15  # a heading's lines are at least this much taller than the text's
LONGEST_HEADING = 150  # characters
OCR_ADVICE = "Reading them needs OCR: run the file through an OCR program first."


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One PDF. A page without text is counted in a warning; a file of only such pages is refused."""
    with open_pdf(path) as document:
        if len(document) > limits.max_pages:
            raise too_many_pages(len(document), limits)
        texts = PdfText(document)
        pages: list[PageText] = []
        length, unread = 0, 0
        for number in range(len(document)):
            try:
                page = texts.page(number)
            except pypdfium2.PdfiumError:
                page, unread = PageText("", "", []), unread + 1
            length += len(page.text)
            if length > limits.max_text_chars:
                raise too_long(limits)
            page.raw, page.slices = "", []  # not needed again, and as large as the text
            pages.append(page)
            progress(number + 1, len(document))
        metadata = _metadata(document)
    blank = sum(not page.text for page in pages) - unread
    if not length:
        raise empty(f"Its pages ({len(pages)}) hold only images or nothing. {OCR_ADVICE}")
    draft = Draft(limits)
    levels = _heading_levels(pages)
    for page in pages:
        draft.page()
        for paragraph in page.paragraphs:
            kind, level = _kind(page, paragraph, levels)
            draft.add(kind, page.text[paragraph.start : paragraph.end], level)
    if blank:
        draft.warnings.append(f"{_pages(blank)} only images or nothing. {OCR_ADVICE}")
    if unread:
        draft.warnings.append(f"{unread} damaged {'page was' if unread == 1 else 'pages were'} left out.")
    return draft.parsed(PDF, metadata.pop("title", ""), metadata)


@contextmanager
def open_pdf(path: Path) -> Iterator[Any]:
    """A `pypdfium2.PdfDocument`. Raises Invalid: `document_encrypted` or `document_damaged`."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise Invalid(
                "This PDF is protected by a password. Remove the password, save it and upload it again.",
                code="document_encrypted",
            ) from error
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_SECURITY:
            raise Invalid(
                "This PDF is encrypted in a way that can't be read. Save it without protection.",
                code="document_encrypted",
            ) from error
        raise damaged("This PDF is cut off or damaged.") from error
    try:
        if len(document) <= 0:
            raise damaged("This PDF is cut off or damaged: it has no pages.")
        yield document
    finally:
        document.close()


def _pages(number: int) -> str:
    return "1 page holds" if number == 1 else f"{number} pages hold"


def _metadata(document: Any) -> dict[str, str]:
    names = {"title": "Title", "author": "Author", "created": "CreationDate"}
    found = {name: one_line(document.get_metadata_value(key))[:300] for name, key in names.items()}
    title = found["title"]
    if title.lower() in ("untitled", "title") or title.lower().endswith((".doc", ".docx", ".dvi", ".tex", ".indd")):
        found["title"] = ""  # what the program that made it put there
    moment = _DATE.match(found["created"])
    found["created"] = "-".join(moment.groups()) if moment else ""
    return {name: value for name, value in found.items() if value}


def _heading_levels(pages: list[PageText]) -> dict[float, int]:
    """Rounded height of lines -> heading level, for heights well above that of most text; three levels at most."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for paragraph in page.paragraphs:
            sizes[_size(paragraph)] += paragraph.end - paragraph.start
    if not sizes:
        return {}
    body = sizes.most_common(1)[0][0]
    taller = sorted((size for size in sizes if size >= LARGER * body), reverse=True)
    return {size: min(3, level) for level, size in enumerate(taller, 1)}


def _size(paragraph: Paragraph) -> float:
    return round(paragraph.height * 2) / 2


def _kind(page: PageText, paragraph: Paragraph, levels: dict[float, int]) -> tuple[Kind, int]:
    level = levels.get(_size(paragraph), 0)
    text = page.text[paragraph.start : paragraph.end]
    if level and paragraph.lines <= 3 and len(text) <= LONGEST_HEADING and any(map(str.isalpha, text)):
        return "heading", level
    return ("list" if paragraph.bullet and "\n" in text else "paragraph"), 0
