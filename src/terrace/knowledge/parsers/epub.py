"""Books (EPUB): the chapters of the spine in reading order, each a page."""

import re
from pathlib import Path

from lxml import etree

from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.media import EPUB, decode_markup
from terrace.knowledge.parsers import html
from terrace.knowledge.parsers.archive import Archive, read_xml, resolve
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, damaged, one_line, too_many_pages

CONTAINER = "META-INF/container.xml"
DC = "{http://purl.org/dc/elements/1.1/}"

_PAGES = ("application/xhtml+xml", "text/html", "application/xml")
_DOCTYPE = re.compile(rb"<!DOCTYPE[^>\[]*>", re.I)


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One book."""
    draft = Draft(limits)
    with Archive(path, limits) as archive:
        package = _package(archive)
        root = read_xml(_DOCTYPE.sub(b"", archive.read(package)), package)
        folder = package.rpartition("/")[0]
        chapters = [each for each in _spine(root, folder) if each in archive.names]
        _refuse_locked(archive, chapters)
        if len(chapters) > limits.max_pages:
            raise too_many_pages(len(chapters), limits)
        if not chapters:
            raise damaged("This book names no chapters that are in the file.")
        for number, chapter in enumerate(chapters, 1):
            draft.page()
            for piece in html.read(decode_markup(archive.read(chapter)), xml=True)[1]:
                draft.add(piece.kind, piece.text, piece.level)
            progress(number, len(chapters))
    title = one_line(root.findtext(f".//{DC}title") or "")
    author = one_line(root.findtext(f".//{DC}creator") or "")
    return draft.parsed(EPUB, title, {"author": author} if author else {})


def _package(archive: Archive) -> str:
    """The file that lists the parts of the book."""
    for each in archive.xml(CONTAINER).iter("{*}rootfile"):
        name = resolve("", each.get("full-path") or "")
        if name in archive.names:
            return name
    raise damaged("This book doesn't say where its table of parts is.")


def _spine(root: etree._Element, folder: str) -> list[str]:
    items = {
        each.get("id"): resolve(folder, each.get("href") or "")
        for each in root.iter("{*}item")
        if each.get("media-type") in _PAGES
    }
    order = (each.get("idref") for each in root.iter("{*}itemref"))
    return [items[each] for each in order if each in items]


def _refuse_locked(archive: Archive, chapters: list[str]) -> None:
    """Encrypted fonts are usual and harmless; encrypted chapters are a copy protection."""
    if "META-INF/encryption.xml" not in archive.names:
        return
    locked = {
        resolve("", each.get("URI") or "") for each in archive.xml("META-INF/encryption.xml").iter("{*}CipherReference")
    }
    if locked & set(chapters):
        raise Invalid("This book is copy-protected, so its text can't be read.", code="document_encrypted")
