"""PowerPoint (PPTX): a slide is a page; its title, text, tables and speaker notes."""

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from terrace.knowledge.base import Parsed
from terrace.knowledge.media import PPTX
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, one_line, too_many_pages
from terrace.knowledge.parsers.docx import core_properties

A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
PML = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"

_BETWEEN_SLIDES = frozenset(("dt", "ftr", "sldNum", "hdr", "sldImg"))  # the same on each


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One presentation."""
    draft = Draft(limits)
    with Archive(path, limits) as archive:
        main = archive.main_part("ppt/presentation.xml")
        related = archive.relations(main)
        ids = [each.get(f"{R}id") or "" for each in archive.xml(main).iter(f"{PML}sldId")]
        slides = [related[each][1] for each in ids if each in related and related[each][1] in archive.names]
        if len(slides) > limits.max_pages:
            raise too_many_pages(len(slides), limits)
        for number, slide in enumerate(slides, 1):
            draft.page()
            _add_slide(archive, slide, draft)
            progress(number, len(slides))
        metadata = core_properties(archive)
    return draft.parsed(PPTX, metadata.pop("title", ""), metadata)


def _add_slide(archive: Archive, slide: str, draft: Draft) -> None:
    root = archive.xml(slide)
    etree.strip_elements(root, FALLBACK, with_tail=False)
    shapes = list(root.iter(f"{PML}sp", f"{PML}graphicFrame"))
    shapes.sort(key=lambda shape: _placeholder(shape) not in ("title", "ctrTitle"))  # stable: the title comes first
    for shape in shapes:
        kind = _placeholder(shape)
        if kind in _BETWEEN_SLIDES:
            continue
        if shape.tag == f"{PML}graphicFrame":
            draft.add("table", "\n".join(filter(None, map(_row, shape.iter(f"{A}tr")))))
        elif kind in ("title", "ctrTitle"):
            draft.add("heading", one_line(" ".join(text for _, text in _paragraphs(shape))), 1)
        else:
            _add_text(list(_paragraphs(shape)), draft)
    for kind, target in archive.relations(slide).values():
        if kind == "notesSlide" and target in archive.names:
            bodies = (shape for shape in archive.xml(target).iter(f"{PML}sp") if _placeholder(shape) == "body")
            notes = "\n".join(text for body in bodies for _, text in _paragraphs(body))
            draft.add("paragraph", f"Notes: {notes}" if notes else "")


def _add_text(paragraphs: list[tuple[int, str]], draft: Draft) -> None:
    if len(paragraphs) > 1:
        draft.add("list", "\n".join("  " * level + "- " + text.replace("\n", " ") for level, text in paragraphs))
    elif paragraphs:
        draft.add("paragraph", paragraphs[0][1])


def _placeholder(shape: etree._Element) -> str:
    found = next(shape.iter(f"{PML}ph"), None)
    return "" if found is None else found.get("type", "")


def _paragraphs(shape: etree._Element) -> Iterator[tuple[int, str]]:
    """(depth, text) of each paragraph that has any."""
    for paragraph in shape.iter(f"{A}p"):
        raw = "".join("\n" if node.tag == f"{A}br" else node.text or "" for node in paragraph.iter(f"{A}t", f"{A}br"))
        text = "\n".join(filter(None, map(one_line, raw.split("\n"))))
        properties = paragraph.find(f"{A}pPr")
        level = "0" if properties is None else properties.get("lvl", "0")
        if text:
            yield (min(8, int(level)) if level.isdigit() else 0), text


def _row(row: etree._Element) -> str:
    cells = (" ".join(text for _, text in _paragraphs(cell)) for cell in row.iter(f"{A}tc"))
    return " | ".join(one_line(cell) for cell in cells if cell)
