"""Word (DOCX): paragraphs, headings, lists, tables and footnotes in the order of the document.

Read from the XML itself: it sees what sits in content controls, text boxes and tables, opens templates and files with
macros, and stays within one set of bounds.
"""

from collections.abc import Iterator
from pathlib import Path

from lxml import etree

from terrace.knowledge.base import Parsed
from terrace.knowledge.media import DOCX
from terrace.knowledge.parsers.archive import Archive
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, one_line

W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
TITLE = "{http://purl.org/dc/elements/1.1/}title"
AUTHOR = "{http://purl.org/dc/elements/1.1/}creator"

_LINE, _TAB = frozenset((f"{W}br", f"{W}cr")), f"{W}tab"


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One Word document."""
    with Archive(path, limits) as archive:
        main = archive.main_part("word/document.xml")
        related = dict(archive.relations(main).values())
        root = archive.xml(main)
        styles = _Styles(archive.xml(related["styles"])) if related.get("styles") in archive.names else _Styles(None)
        notes: dict[str, str] = {}
        for kind in ("footnotes", "endnotes"):
            if related.get(kind) in archive.names:
                notes.update(_notes(archive.xml(related[kind]), kind))
        metadata = core_properties(archive)
    etree.strip_elements(root, FALLBACK, with_tail=False)
    draft = Draft(limits)
    body = root.find(f"{W}body")
    if body is not None:
        _Writer(draft, styles, notes).write(body)
    return draft.parsed(DOCX, metadata.pop("title", ""), metadata)


def core_properties(archive: Archive) -> dict[str, str]:
    """Title and author as the Office properties have them."""
    if "docProps/core.xml" not in archive.names:
        return {}
    core = archive.xml("docProps/core.xml")
    found = {"title": core.findtext(TITLE), "author": core.findtext(AUTHOR)}
    return {name: one_line(value)[:300] for name, value in found.items() if value and value.strip()}


class _Styles:
    """What a paragraph style means: heading level (0: none) and whether it numbers its paragraphs."""

    def __init__(self, root: etree._Element | None) -> None:
        self._styles = {} if root is None else {each.get(f"{W}styleId"): each for each in root.iter(f"{W}style")}

    def level(self, style: str | None) -> int:
        for element in self._line(style):
            name = (_value(element, "name") or "").lower()
            if name == "title":
                return 1
            if name.startswith("heading ") and name[8:].isdigit():
                return min(9, int(name[8:]))
            outline = element.find(f"{W}pPr/{W}outlineLvl")
            if outline is not None and (outline.get(f"{W}val") or "").isdigit():
                level = int(outline.get(f"{W}val") or 9)
                return level + 1 if level < 9 else 0
        return 0

    def numbers(self, style: str | None) -> bool:
        return any(element.find(f"{W}pPr/{W}numPr") is not None for element in self._line(style))

    def _line(self, style: str | None) -> Iterator[etree._Element]:
        """The style and those it is based on."""
        for _ in range(20):
            element = self._styles.get(style)
            if element is None:
                return
            yield element
            style = _value(element, "basedOn")


class _Writer:
    def __init__(self, draft: Draft, styles: _Styles, notes: dict[str, str]) -> None:
        self._draft, self._styles, self._notes = draft, styles, notes
        self._items: list[str] = []

    def write(self, body: etree._Element) -> None:
        for element in _content(body):
            if element.tag == f"{W}tbl":
                self._end_list()
                self._table(element)
            else:
                self._paragraph(element)
        self._end_list()

    def _paragraph(self, element: etree._Element) -> None:
        text = _text(element)
        if text:
            properties = element.find(f"{W}pPr")
            style = _value(properties, "pStyle")
            level = self._styles.level(style)
            if level:
                self._end_list()
                self._draft.add("heading", text.replace("\n", " "), level)
            elif (depth := self._depth(properties, style)) is not None:
                self._items.append("  " * depth + "- " + text.replace("\n", " "))
            else:
                self._end_list()
                self._draft.add("paragraph", text)
        for kind in ("footnote", "endnote"):
            for reference in element.iter(f"{W}{kind}Reference"):
                note = self._notes.pop(f"{kind}s{reference.get(f'{W}id')}", "")
                if note:
                    self._end_list()
                    self._draft.add("paragraph", f"Note: {note}")

    def _depth(self, properties: etree._Element | None, style: str | None) -> int | None:
        """How deep in a list a paragraph is; None if it is in none."""
        number = properties.find(f"{W}numPr") if properties is not None else None
        if number is None:
            return 0 if self._styles.numbers(style) else None
        if _value(number, "numId") == "0":  # numbering switched off
            return None
        level = _value(number, "ilvl") or "0"
        return min(8, int(level)) if level.isdigit() else 0

    def _table(self, table: etree._Element) -> None:
        rows = []
        for row in table.iter(f"{W}tr"):
            if next(row.iterancestors(f"{W}tbl")) is not table:
                continue  # of a table within a cell, whose text is in the cell already
            cells = (
                one_line(" ".join(map(_text, cell.iter(f"{W}p"))))
                for cell in row.iter(f"{W}tc")
                if cell.getparent() is row
            )
            rows.append(" | ".join(filter(None, cells)))
        rows = list(filter(None, rows))
        lone = len(rows) == 1 and " | " not in rows[0]
        self._draft.add("paragraph" if lone else "table", "\n".join(rows))

    def _end_list(self) -> None:
        if self._items:
            self._draft.add("list", "\n".join(self._items))
            self._items = []


def _content(parent: etree._Element) -> Iterator[etree._Element]:
    """Paragraphs and tables in order, those in content controls and the like included."""
    for element in parent:
        if element.tag in (f"{W}p", f"{W}tbl"):
            yield element
        elif element.tag != f"{W}sectPr" and len(element):
            yield from _content(element)


def _text(element: etree._Element) -> str:
    """The text of a paragraph, text boxes in it included; deleted text isn't `w:t` and so stays out."""
    parts = []
    for node in element.iter():
        if node.tag == f"{W}t":
            parts.append(node.text or "")
        elif node.tag in _LINE or (node.tag == f"{W}p" and node is not element):
            parts.append("\n")
        elif node.tag == _TAB:
            parts.append(" ")
        elif node.tag == f"{W}noBreakHyphen":
            parts.append("-")
    return "\n".join(filter(None, map(one_line, "".join(parts).split("\n"))))


def _notes(root: etree._Element, kind: str) -> dict[str, str]:
    return {
        f"{kind}{note.get(f'{W}id')}": one_line(" ".join(map(_text, note.iter(f"{W}p"))))
        for note in root.iterchildren()
    }


def _value(element: etree._Element | None, name: str) -> str | None:
    child = element.find(f"{W}{name}") if element is not None else None
    return child.get(f"{W}val") if child is not None else None
