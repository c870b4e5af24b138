"""What a file consists of: pages, pictures, stretches of text. Runs in a subprocess."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from terrace.analysis import pictures
from terrace.analysis.base import Part, Survey
from terrace.analysis.media import DOCX, IMAGES, OFFICE, PDF, PPTX, TIFF
from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import ParseLimits
from terrace.knowledge.parsers.child import parse_file

STRETCH = 8_000  # characters of text that are looked at together, some 2,000 tokens
RASTER = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff", ".bmp")
MAX_PICTURE_BYTES = 50 * 1024**2


def survey(path: Path, name: str, media_type: str, max_pages: int, limits: ParseLimits) -> Survey:
    """The parts of a file, at most `max_pages`. Raises Invalid with what is wrong with the file."""
    warnings: list[str] = []
    if media_type == PDF:
        total, parts = _pdf(path, max_pages)
    elif media_type in IMAGES:
        total, parts = _image(path, media_type, max_pages)
    else:
        parts, warnings = _document(path, name, media_type, limits)
        total = len(parts)
    if total > max_pages:
        kind = "pages" if media_type == PDF else "parts"
        warnings = [
            f"This file has {total:,} {kind}; the first {max_pages:,} were looked at. "
            "Split it, or raise analysis.max_pages.",
            *warnings,
        ]
    return Survey(tuple(parts[:max_pages]), tuple(warnings))


def _pdf(path: Path, most: int) -> tuple[int, list[Part]]:
    from terrace.knowledge.parsers.pdf import open_pdf

    with open_pdf(path) as document:
        total = len(document)
    return total, [Part("page", f"Page {number + 1}", str(number)) for number in range(min(total, most))]


def _image(path: Path, media_type: str, most: int) -> tuple[int, list[Part]]:
    total = pictures.frames(str(path), most) if media_type == TIFF else 1
    if media_type != TIFF:
        with pictures.opened(str(path)) as image:
            pictures.measured(image)
    return total, [Part("page", f"Page {number + 1}", str(number)) for number in range(min(total, most))]


def _document(path: Path, name: str, media_type: str, limits: ParseLimits) -> tuple[list[Part], list[str]]:
    """Text and, in Word and PowerPoint, pictures in their order."""
    parsed: Parsed | None = None
    try:
        parsed = parse_file(path, name, limits, lambda done, total, note="": None)
    except Invalid as error:
        if error.code != "document_empty" or media_type not in OFFICE:
            raise
    warnings = list(parsed.warnings) if parsed else []
    slides = _slides(parsed) if parsed and media_type == PPTX else []
    if media_type not in OFFICE:
        assert parsed is not None
        return _stretches(parsed.text), warnings
    found, left_out = _embedded(path, media_type, limits)
    if left_out:
        warnings.append(
            f"{left_out} drawing{'s were' if left_out > 1 else ' was'} left out (EMF, WMF or SVG). "
            "Save the file as PDF to have everything looked at."
        )
    if media_type == PPTX:
        count = max([len(slides), *(slide for slide, _ in found)], default=0)
        parts = []
        for number in range(1, count + 1):
            parts += slides[number - 1 : number]
            parts += [Part("picture", f"Picture on slide {number}", each) for slide, each in found if slide == number]
    else:
        parts = _stretches(parsed.text) if parsed else []
        parts += [Part("picture", f"Picture {place}", each) for place, (_, each) in enumerate(found, 1)]
    parts = [each for each in parts if each.kind == "picture" or each.text]
    if not parts:
        raise Invalid(
            "There is nothing to read in this file. It holds neither text nor pictures.", code="document_empty"
        )
    return parts, warnings


def _slides(parsed: Parsed) -> list[Part]:
    return [
        Part("text", f"Slide {page.number}", text=parsed.text[page.span.start : page.span.end][:STRETCH])
        for page in parsed.pages
    ]


def _stretches(text: str) -> list[Part]:
    """Text cut at the ends of paragraphs, lines or words, none longer than STRETCH."""
    parts, start = [], 0
    while start < len(text):
        end = min(len(text), start + STRETCH)
        if end < len(text):
            cuts = (text.rfind(mark, start + STRETCH // 2, end) for mark in ("\n\n", "\n", " "))
            end = next((cut for cut in cuts if cut > 0), end)
        if stretch := text[start:end].strip():
            parts.append(stretch)
        start = end
    if len(parts) == 1:
        return [Part("text", "Text", text=parts[0])]
    return [Part("text", f"Part {number}", text=each) for number, each in enumerate(parts, 1)]


def _embedded(path: Path, media_type: str, limits: ParseLimits) -> tuple[list[tuple[int, str]], int]:
    """(slide, or 0; member) of each picture once, where it stands first; and how many drawings are left out."""
    found: dict[str, int] = {}
    left_out: set[str] = set()
    with Archive(path, limits) as archive:
        for slide, part in _holders(archive, media_type):
            for kind, target in archive.relations(part).values():
                if kind != "image" or target in found or target not in archive.names:
                    continue
                if PurePosixPath(target).suffix.lower() not in RASTER:
                    left_out.add(target)
                elif archive.names[target].file_size <= MAX_PICTURE_BYTES and _is_seen(archive.read(target)):
                    found[target] = slide
    return [(slide, member) for member, slide in found.items()], len(left_out)


def _holders(archive: Archive, media_type: str) -> Iterator[tuple[int, str]]:
    """The parts of an Office file that show pictures: (slide, part)."""
    if media_type == DOCX:
        yield 0, archive.main_part("word/document.xml")
        return
    from terrace.knowledge.parsers.pptx import PML, R

    main = archive.main_part("ppt/presentation.xml")
    related = archive.relations(main)
    ids = [each.get(f"{R}id") or "" for each in archive.xml(main).iter(f"{PML}sldId")]
    yield from enumerate((related[each][1] for each in ids if each in related), 1)


def _is_seen(data: bytes) -> bool:
    return min(pictures.dimensions(data)) >= pictures.TINY
