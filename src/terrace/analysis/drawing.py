"""Pages and pictures drawn for a model. Runs in a subprocess.

A page without colour is drawn in greys, at a third of the cost; whether it has any is seen on a small copy of it. A
page with pictures in it is drawn once, since decoding them is what costs.
"""

import io
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from terrace.analysis import pictures
from terrace.analysis.base import Drawn
from terrace.analysis.encoding import encode, is_grey
from terrace.analysis.media import IMAGES, PDF
from terrace.errors import Invalid
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import ParseLimits

POINTS = 72.0  # to an inch
PROBE_DPI = 36
SMALL = 400  # pixels a side of a copy that is looked at for colour
OBJECTS = 200  # of a page that are looked at for pictures
MAX_SIDE = 16_000  # pixels
POOR_DPI = 60  # below this, print of usual size is no longer legible


def draw(
    path: Path,
    media_type: str,
    wanted: Sequence[tuple[int, str]],
    dpi: int,
    max_pixels: int,
    with_text: bool,
    limits: ParseLimits,
) -> list[Drawn]:
    """Each of `wanted` (number, `Part.source`) as a picture of at most `max_pixels`; what is wrong with one is told
    with it and stops no other. Raises Invalid when the file as a whole can't be read."""
    if media_type == PDF:
        return _pdf_pages(path, wanted, dpi, max_pixels, with_text)
    if media_type in IMAGES:
        with pictures.opened(str(path)) as image:
            return [_frame(image, number, int(source), max_pixels) for number, source in wanted]
    with Archive(path, limits) as archive:
        return [_member(archive, number, source, max_pixels) for number, source in wanted]


def _pdf_pages(
    path: Path, wanted: Sequence[tuple[int, str]], dpi: int, max_pixels: int, with_text: bool
) -> list[Drawn]:
    import pypdfium2

    from terrace.knowledge.parsers.pdf import open_pdf
    from terrace.knowledge.parsers.pdf_text import PdfText

    drawn = []
    with open_pdf(path) as document:
        texts = PdfText(document) if with_text else None
        for number, source in wanted:
            try:
                image, drawn_only, note = page_image(document, int(source), dpi, max_pixels)
                text = texts.page(int(source)).text if texts else ""
                drawn.append(_drawn(number, image, note, text, drawn_only))
            except pypdfium2.PdfiumError:
                drawn.append(Drawn(number, error="This page is damaged and could not be drawn."))
    return drawn


def page_image(document: Any, index: int, dpi: int, max_pixels: int) -> tuple[Any, bool, str]:
    """A page as an image of mode L or RGB, whether it holds no pictures, and a note where it had to be drawn small."""
    page = document[index]
    try:
        width, height = (max(side, 1.0) for side in page.get_size())
        scale = min(dpi / POINTS, math.sqrt(max_pixels / (width * height)), MAX_SIDE / max(width, height))
        plain = not _holds_pictures(page)
        if plain:
            probe = page.render(scale=min(PROBE_DPI / POINTS, scale), rev_byteorder=True)
            grey = is_grey(_rgb(probe))
            image = _rgb(page.render(scale=scale, grayscale=grey, rev_byteorder=True), grey=grey)
        else:
            image = _rgb(page.render(scale=scale, rev_byteorder=True))
            if is_grey(image.reduce(max(1, max(image.size) // SMALL))):
                image = image.convert("L")
    finally:
        page.close()
    if image.width * image.height > max_pixels:  # pdfium rounds up
        image = image.crop(
            (0, 0, min(image.width, int(width * scale) or 1), min(image.height, int(height * scale) or 1))
        )
    note = ""
    if scale * POINTS < min(POOR_DPI, dpi):
        note = (
            f"The page is {width:,.0f} x {height:,.0f} points large and was drawn at {image.width:,} x "
            f"{image.height:,} pixels: small print may be lost."
        )
    return image, plain, note


def _holds_pictures(page: Any) -> bool:
    """Among the first things on it, which a scan is; further on they are drawn twice at worst."""
    import pypdfium2.raw as pdfium

    return any(each.type == pdfium.FPDF_PAGEOBJ_IMAGE for each in islice(page.get_objects(max_depth=2), OBJECTS))


def _rgb(bitmap: Any, *, grey: bool = False) -> Any:
    image = bitmap.to_pil()
    wanted = "L" if grey else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _frame(image: Any, number: int, index: int, max_pixels: int) -> Drawn:
    try:
        if index:
            image.seek(index)
        return _drawn(number, pictures.decoded(image, max_pixels))
    except Invalid as error:
        return Drawn(number, error=error.message)
    except Exception:  # a decoder that stumbles between two frames
        return Drawn(number, error="This page of the picture is damaged.")


def _member(archive: Archive, number: int, source: str, max_pixels: int) -> Drawn:
    try:
        with pictures.opened(io.BytesIO(archive.read(source))) as image:
            return _drawn(number, pictures.decoded(image, max_pixels))
    except Invalid as error:
        return Drawn(number, error=error.message)


def _drawn(number: int, image: Any, note: str = "", text: str = "", drawn: bool = False) -> Drawn:
    data, media_type = encode(image, drawn=drawn)
    return Drawn(number, data, media_type, image.width, image.height, text, note)
