"""A PDF page as an image, and where on it a span of the document's text is.

The functions run in a subprocess; only there are the PDF library and the imaging library imported.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from terrace.errors import Invalid, Missing
from terrace.knowledge.base import Page

MAX_PIXELS = 12_000_000
MAX_WIDTH, MIN_WIDTH, MAX_SIDE = 4_000, 50, 16_000
YELLOW = (255, 233, 90)
SAME_LINE = 0.5  # of the lower box's height that two boxes of a line share
WIDEST_BLANK = 1.5  # heights between two boxes of a line that are still one mark
_FINE = 1_000_000  # steps pdfium's page-to-device mapping is asked for


class Box(NamedTuple):
    """A rectangle as fractions (0..1) of the page's width and height, from the top left."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class PageMarks:
    """A page's size in points and the boxes of a span on it, one a line."""

    width: float
    height: float
    boxes: tuple[Box, ...]


def page_marks(path: Path, page: Page, start: int, end: int) -> PageMarks:
    """Where the characters [start, end) of the document's text are on a page.

    `page` is the page as `Parsed.pages` has it. A span that lies outside of it has no boxes there. Raises Invalid when
    the file isn't the one the text came from.
    """
    from terrace.knowledge.parsers import pdf

    with pdf.open_pdf(path) as document:
        handle = _handle(document, page)
        try:
            width, height = handle.get_size()
            return PageMarks(width, height, tuple(_boxes(document, handle, page, start, end)))
        finally:
            handle.close()


def page_image(path: Path, page: Page, start: int, end: int, width: int) -> bytes:
    """A PNG `width` pixels wide (fewer for a very long page) with the span [start, end) marked, if there is one."""
    from terrace.knowledge.parsers import pdf

    with pdf.open_pdf(path) as document:
        handle = _handle(document, page)
        try:
            boxes = _boxes(document, handle, page, start, end) if end > start else []
            bitmap = handle.render(scale=_scale(handle.get_size(), width), draw_annots=True)
            image = bitmap.to_pil().convert("RGB")
            bitmap.close()
        finally:
            handle.close()
    return _png(_marked(image, boxes))


def _handle(document: Any, page: Page) -> Any:
    if not 1 <= page.number <= len(document):
        raise Missing(f"This document has no page {page.number}.", code="page_missing")
    return document[page.number - 1]


def _boxes(document: Any, handle: Any, page: Page, start: int, end: int) -> list[Box]:
    from terrace.knowledge.parsers import pdf_text

    composed = pdf_text.PdfText(document).page(page.number - 1)
    if len(composed.text) != page.span.end - page.span.start:
        raise Invalid(
            "The text of this page was read by another version. Reprocess the document to mark quotes on its pages.",
            code="document_outdated",
        )
    first, last = max(start, page.span.start) - page.span.start, min(end, page.span.end) - page.span.start
    if first >= last:
        return []
    textpage = handle.get_textpage()
    try:
        indices = pdf_text.character_indices(textpage.raw, composed.raw, composed.sources(first, last))
        return _by_line([_place(handle, *pdf_text.character_box(textpage.raw, index)) for index in indices])
    finally:
        textpage.close()


def _place(handle: Any, left: float, bottom: float, right: float, top: float) -> Box:
    """From the page's own coordinates to fractions of what is shown: crop box and rotation applied."""
    from terrace.knowledge.parsers import pdf_text

    (x0, y0), (x1, y1) = (pdf_text.to_device(handle.raw, _FINE, x, y) for x, y in ((left, bottom), (right, top)))
    low_x, high_x = sorted((_fraction(x0), _fraction(x1)))
    low_y, high_y = sorted((_fraction(y0), _fraction(y1)))
    return Box(low_x, low_y, high_x, high_y)


def _fraction(step: int) -> float:
    return min(1.0, max(0.0, step / _FINE))


def _by_line(boxes: list[Box]) -> list[Box]:
    """Neighbouring boxes of the same line made one; those without any extent dropped."""
    merged: list[Box] = []
    for box in boxes:
        if box.x1 <= box.x0 or box.y1 <= box.y0:
            continue
        if merged and _continues(merged[-1], box):
            last = merged[-1]
            merged[-1] = Box(min(last.x0, box.x0), min(last.y0, box.y0), max(last.x1, box.x1), max(last.y1, box.y1))
        else:
            merged.append(box)
    return merged


def _continues(last: Box, box: Box) -> bool:
    height = min(last.y1 - last.y0, box.y1 - box.y0)
    shared = min(last.y1, box.y1) - max(last.y0, box.y0)
    return shared >= SAME_LINE * height and box.x0 - last.x1 <= WIDEST_BLANK * height and last.x0 <= box.x1


def _scale(size: tuple[float, float], wanted: int) -> float:
    """Pixels a point for a page of this size in points: as wide as wanted, unless that takes too many pixels."""
    width, height = (max(side, 1.0) for side in size)
    scale = (min(MAX_WIDTH, max(MIN_WIDTH, wanted)) - 0.01) / width  # pdfium rounds up
    return min(scale, math.sqrt(MAX_PIXELS / (width * height)), MAX_SIDE / max(width, height))


def _marked(image: Any, boxes: list[Box]) -> Any:
    """The boxes tinted as with a text marker: dark stays dark."""
    from PIL import Image, ImageChops

    for box in boxes:
        area = (
            max(0, int(box.x0 * image.width) - 1),
            max(0, int(box.y0 * image.height) - 1),
            min(image.width, int(box.x1 * image.width) + 2),
            min(image.height, int(box.y1 * image.height) + 2),
        )
        part = image.crop(area)
        image.paste(ImageChops.multiply(part, Image.new("RGB", part.size, YELLOW)), area[:2])
    return image


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=4)
    return file.getvalue()
