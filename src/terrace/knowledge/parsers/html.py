"""HTML: the main content as headings, paragraphs, lists, tables and code; menus, scripts and hidden parts left out.

Walking a tree node by node in Python is slow. Instead each block element is bracketed with marks (control
characters), the whole text is taken at once in C, and the marks in it are read from left to right.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from selectolax.lexbor import LexborHTMLParser, LexborNode

from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.media import HTML, decode_markup
from terrace.knowledge.parsers.base import Draft, Kind, ParseLimits, Progress, normalise, one_line, read_bytes

MAX_DEPTH = 3000
MAX_TAGS = 1_500_000  # some 800 bytes of memory each

_OPEN, _CLOSE = "\x1e", "\x1f"
_BREAK = _OPEN  # once the marks are read, what a <br> was
_MARK = re.compile(f"{_OPEN}([a-z0-9/]{{1,12}}){_CLOSE}")
_OUR_MARKS = re.compile(f"[{_OPEN}{_CLOSE}]|&#(?:x0*1[ef](?![0-9a-f])|0*3[01](?![0-9]));?", re.I)
_NEVER = [
    *("script", "style", "noscript", "template", "svg", "canvas", "iframe", "object", "embed", "audio", "video"),
    *("nav", "button", "select", "textarea", "input", "datalist", "dialog"),
]
_HIDING = ("hidden", "HIDDEN", "display:", "role=")  # without any of these in the source nothing is hidden
_HIDDEN = (
    "[hidden], [aria-hidden=true], [role=navigation], [role=search], [role=menu], "
    '[style*="display:none"], [style*="display: none"], [style*="visibility:hidden"]'
)
_AROUND = "footer, aside, [role=contentinfo], [role=complementary]"  # where nothing says what the main content is
_PERMALINK = "¶"  # what documentation generators put beside each heading
_MAIN = "main, [role=main], article"
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    [
        *("p", "div", "section", "article", "main", "header", "blockquote", "figure", "figcaption", "address"),
        *("details", "summary", "form", "fieldset", "center", "hr", "br", "pre", "ul", "ol", "li", "dl", "dt", "dd"),
        *("table", "caption", "tr", "td", "th", *_HEADINGS),
    ]
)
_LAYOUT = "table, h1, h2, h3, pre"  # a table that holds these places things on a page, it isn't data
_NAMED = {tag: (f"{_OPEN}{tag}{_CLOSE}", f"{_OPEN}/{tag}{_CLOSE}") for tag in (*_BLOCKS, "layout")}
_TAG = re.compile("<(/?)([A-Za-z][A-Za-z0-9]*)")
_CLOSED_BY_OTHERS = frozenset(
    [
        *("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "col", "colgroup"),
        *("br", "hr", "img", "input", "link", "meta", "base", "wbr", "source", "area"),
    ]
)
_EMPTY_ELEMENT = re.compile(
    r"<(title|script|style|textarea|iframe|noscript|a|div|span|p|i|b|em|strong|td|li)\b([^<>]*)/>", re.I
)


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of a page, normalised."""

    kind: Kind
    text: str
    level: int = 0


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One HTML file."""
    source = decode_markup(read_bytes(path, limits))
    title, pieces = read(source, xml=source.lstrip()[:5] == "<?xml")
    draft = Draft(limits)
    for piece in pieces:
        draft.add(piece.kind, piece.text, piece.level)
    return draft.parsed(HTML, title)


def read(source: str, *, xml: bool = False) -> tuple[str, list[Piece]]:
    """Title and blocks of a page. `xml` says that elements may be closed as XHTML does (`<a/>`)."""
    if _OPEN in source or _CLOSE in source or "&#" in source:
        source = _OUR_MARKS.sub("", source)
    if xml:
        source = _EMPTY_ELEMENT.sub(r"<\1\2></\1>", source)
    _refuse_excess(source)
    tree = LexborHTMLParser(source)
    heading = tree.css_first("title")
    title = one_line(heading.text()) if heading is not None else ""
    if tree.body is None:
        return title, []
    tree.strip_tags(_NEVER)
    if any(word in source for word in _HIDING):
        for node in tree.css(_HIDDEN):
            node.decompose()
    if _PERMALINK in tree.body.text():
        for node in tree.css('a[href^="#"]'):
            if node.text(strip=True) == _PERMALINK:
                node.decompose()
    return title, _Reader().read(_marked_text(_main(tree)))


def _refuse_excess(source: str) -> None:
    """The time a parser takes grows with the square of the depth; browsers stop at some hundred levels too."""
    tags = source.count("<")
    if tags > MAX_TAGS:
        raise Invalid(f"This page has more than {MAX_TAGS:,} elements. Split it.", code="document_too_complex")
    if tags < MAX_DEPTH:
        return
    depth = deepest = 0
    for closing, tag in _TAG.findall(source):
        if tag.lower() not in _CLOSED_BY_OTHERS:
            depth = max(0, depth - 1) if closing else depth + 1
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise Invalid("The elements of this page are nested too deeply to be read.", code="document_too_complex")


def _main(tree: LexborHTMLParser) -> LexborNode:
    """What says it is the main content, unless most of the text is elsewhere; else the page without its margins."""
    body = tree.body
    assert body is not None
    named = body.css(_MAIN)
    mains = [node for node in named if node.tag != "article"] or named
    if len(mains) == 1 and 3 * len(mains[0].text()) > len(body.text()):
        return mains[0]
    for node in body.css(_AROUND):
        node.decompose()
    return body


def _marked_text(content: LexborNode) -> str:
    nodes = [(node, tag) for node in content.traverse() if (tag := node.tag) in _BLOCKS]
    for node, tag in nodes:
        if tag == "br":
            node.insert_before(_NAMED["br"][0])
            continue
        if tag == "table" and any(inner.mem_id != node.mem_id for inner in node.css(_LAYOUT)):
            tag = "layout"
        before, after = _NAMED[tag]
        node.insert_before(before)
        node.insert_after(after)
    return content.text()


class _Reader:
    """Turns marked text into pieces. State: which list, table or code the mark before opened."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._text: list[str] = []
        self._kind: Kind = "paragraph"
        self._level = 0
        self._lists = 0  # open ones
        self._items: list[str] = []  # of the outermost open list
        self._depth = 0  # of the item being read
        self._tables: list[bool] = []  # open ones; True: data, False: layout
        self._rows: list[list[str]] = []  # of the open data table
        self._pre = 0

    def read(self, marked: str) -> list[Piece]:
        parts = _MARK.split(marked)
        if parts[0]:
            self._text.append(parts[0])
        for tag, text in zip(parts[1::2], parts[2::2], strict=True):
            self._mark(tag)
            if text:
                self._text.append(text)
        self._flush()
        self._end_list()
        self._end_table()
        return self._pieces

    def _mark(self, tag: str) -> None:
        if tag == "br":
            self._text.append(_BREAK)
        elif tag in _SPECIAL:
            _SPECIAL[tag](self, tag)
        elif self._tables and self._tables[-1]:
            self._cell(tag)
        elif self._depth and tag not in _HEADINGS and self._kind != "heading":
            self._text.append(" ")
        else:
            self._flush()
            if tag in _HEADINGS:
                self._kind, self._level = "heading", _HEADINGS[tag]

    def _code(self, tag: str) -> None:
        if tag == "pre":
            if not self._pre and not self._depth and not any(self._tables):
                self._flush()
                self._kind = "code"
            self._pre += 1
        elif self._pre:
            self._pre -= 1
            if not self._pre and self._kind == "code":
                self._flush()

    def _list(self, tag: str) -> None:
        if any(self._tables):
            self._text.append(" ")
            return
        self._flush()
        if tag[0] != "/":
            self._lists += 1
        else:
            self._lists = max(0, self._lists - 1)
            self._depth = self._lists
            if not self._lists:
                self._end_list()

    def _item(self, tag: str) -> None:
        if any(self._tables):
            self._text.append(" ")
            return
        self._flush()
        self._depth = max(1, self._lists) if tag == "li" else 0

    def _table(self, tag: str) -> None:
        if tag[0] != "/":
            self._flush()
            self._tables.append(tag == "table")
            return
        data = self._tables.pop() if self._tables else False
        if not data:
            self._flush()
        elif not any(self._tables):
            self._end_cell()
            self._end_table()

    def _cell(self, tag: str) -> None:
        if tag in ("td", "th", "/td", "/th", "/tr", "/caption"):
            self._end_cell()
        elif tag == "tr":
            self._end_cell()
            self._rows.append([])
        else:
            self._text.append(" ")

    def _end_cell(self) -> None:
        if not self._text:
            return
        text = one_line("".join(self._text).replace(_BREAK, " "))
        self._text.clear()
        if text:
            if not self._rows:
                self._rows.append([])
            self._rows[-1].append(text)

    def _end_table(self) -> None:
        rows = [" | ".join(row) for row in self._rows if row]
        self._rows = []
        if rows:
            self._end_list()
            lone = len(rows) == 1 and " | " not in rows[0]
            self._pieces.append(Piece("paragraph" if lone else "table", "\n".join(rows)))

    def _end_list(self) -> None:
        if self._items:
            self._pieces.append(Piece("list", "\n".join(self._items)))
            self._items = []

    def _flush(self) -> None:
        """End the block being read."""
        kind, level = self._kind, self._level
        self._kind, self._level = "paragraph", 0
        if not self._text:
            return
        raw = "".join(self._text)
        self._text.clear()
        if raw.isspace():
            return
        if self._depth and kind == "paragraph":
            if text := one_line(raw.replace(_BREAK, " ")):
                self._items.append("  " * (self._depth - 1) + "- " + text)
            return
        if kind == "code":
            text = normalise(raw.replace(_BREAK, "\n")).strip("\n")
        elif kind == "heading":
            text = one_line(raw.replace(_BREAK, " "))
        else:  # line ends of the source are blanks, those of <br> stay
            text = "\n".join(filter(None, map(one_line, raw.split(_BREAK))))
        if text:
            self._end_list()
            self._pieces.append(Piece(kind, text, level))


_SPECIAL = {
    **dict.fromkeys(("pre", "/pre"), _Reader._code),
    **dict.fromkeys(("ul", "ol", "/ul", "/ol"), _Reader._list),
    **dict.fromkeys(("li", "/li"), _Reader._item),
    **dict.fromkeys(("table", "layout", "/table", "/layout"), _Reader._table),
}
