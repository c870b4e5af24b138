"""What a page says of itself and where it leads. `read_page` runs in a subprocess: the page may be hostile."""

import codecs
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from terrace.knowledge.media import HTML, decode_markup, sniff
from terrace.knowledge.sources.urls import normalised

if TYPE_CHECKING:  # imported in the subprocess only
    from selectolax.lexbor import LexborHTMLParser

MAX_LINKS = 2000
MAX_TITLE = 250

_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOK = "a[href], area[href]"


@dataclass(frozen=True, slots=True)
class PageFacts:
    """`links` are normalised, each once, in the order of the page. `text_sha256` is empty where nothing is to read."""

    title: str
    links: tuple[str, ...]
    canonical: str | None
    noindex: bool
    nofollow: bool
    text_sha256: str


def read_page(body: bytes, url: str, charset: str) -> PageFacts:
    """Of an HTML page as it came. Raises Invalid when it is too complex to be read."""
    from selectolax.lexbor import LexborHTMLParser

    from terrace.knowledge.parsers import html

    source = decoded(body, charset)
    title, pieces = html.read(source)
    text = "\n".join(piece.text for piece in pieces)
    tree = LexborHTMLParser(source)
    base = _attribute(tree, "base[href]", "href")
    here = (normalised(base, url) if base else None) or url
    said = {word.strip().lower() for word in (_attribute(tree, 'meta[name="robots" i]', "content") or "").split(",")}
    canonical = _attribute(tree, 'link[rel~="canonical" i]', "href")
    return PageFacts(
        title=title[:MAX_TITLE],
        links=() if said & {"nofollow", "none"} else _links(tree, here),
        canonical=normalised(canonical, here) if canonical else None,
        noindex=bool(said & {"noindex", "none"}),
        nofollow=bool(said & {"nofollow", "none"}),
        text_sha256=sha256(text.encode("utf-8", "replace")).hexdigest() if text.strip() else "",
    )


def _attribute(tree: "LexborHTMLParser", selector: str, name: str) -> str | None:
    node = tree.css_first(selector)
    return None if node is None else node.attributes.get(name)


def _links(tree: "LexborHTMLParser", base: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for node in tree.css(_LOOK):
        link = normalised(node.attributes.get("href") or "", base)
        if link is not None:
            found[link] = None
        if len(found) >= MAX_LINKS:
            break
    return tuple(found)


def decoded(body: bytes, charset: str) -> str:
    """By the encoding that the server named, else as the page says itself."""
    if charset and not body.startswith(_MARKS):
        try:
            return body.decode(charset)
        except (LookupError, UnicodeError):
            return decode_markup(body)
    return decode_markup(body)


def charset_of(content_type: str) -> str:
    """What a Content-Type header says of the encoding; empty when nothing, or no encoding of text."""
    found = re.search(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{2,40})", content_type, re.I)
    try:
        known = codecs.lookup(found[1]) if found else None
    except LookupError:
        return ""
    return known.name if known is not None and getattr(known, "_is_text_encoding", True) else ""


def as_utf8(body: bytes, content_type: str) -> bytes:
    """Text whose encoding only its header told, so that whoever reads the file alone reads it right."""
    charset = charset_of(content_type)
    if charset in ("", "utf-8", "ascii") or body.startswith(_MARKS):
        return body
    try:
        return codecs.BOM_UTF8 + body.decode(charset).encode()
    except UnicodeError:
        return body


def as_html(body: bytes, content_type: str) -> bytes:
    """A page that is known for one by its content alone, without the header that came with it."""
    body = as_utf8(body, content_type)
    if body.startswith(_MARKS) or sniff(body[:65_536]) == HTML:
        return body
    return b"<!doctype html>\n" + body
