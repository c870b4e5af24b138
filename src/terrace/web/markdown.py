"""Markdown to safe HTML, by libraries: markdown-it renders, nh3 (ammonia) lets only an allow-list through.

Pictures never load: an answer steered by a hostile document could otherwise send what it read to a stranger
in the address of an image. They become plain links.
"""

import re
from functools import lru_cache
from html import escape

import nh3
from markdown_it import MarkdownIt

_TAGS = {
    *(
        "a",
        "b",
        "blockquote",
        "br",
        "code",
        "del",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "li",
        "ol",
        "p",
    ),
    *("pre", "s", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"),
}
_ATTRIBUTES = {
    "a": {"href", "title", "class", "data-n"},
    "code": {"class"},
    "ol": {"start"},
    "td": {"class"},
    "th": {"class"},
}
_CLASSES = re.compile(r"language-[\w+#-]{1,30}|cite|center|right")
_MARK = re.compile(r"\[(\d{1,3})\]")


@lru_cache(1)
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "linkify": True, "breaks": True})
    markdown.disable("reference")  # `[1]: http://...` in a document must not turn our marks into its links
    return markdown.enable(["table", "strikethrough", "linkify"])


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        return value if _CLASSES.fullmatch(value) else None
    if name == "data-n":
        return value if value.isdigit() else None
    return value


def escaped(text: str) -> str:
    """A person's own words: shown as typed."""
    return escape(text)


def render(text: str, numbers: frozenset[int] = frozenset()) -> str:
    """HTML of `text`; marks `[n]` with n in `numbers` become links to their sources, except in code and links."""
    markdown = _markdown()
    tokens = markdown.parse(text)
    for token in tokens:
        align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
        if align in ("center", "right"):
            token.attrSet("class", align)  # our policy allows no style attribute
        inside_link = False
        for child in token.children or ():
            inside_link = child.type == "link_open" or (inside_link and child.type != "link_close")
            if child.type == "image":
                child.type, child.tag = "html_inline", ""
                child.content = _picture(str(child.attrs.get("src", "")), child.content)
            elif child.type == "text" and not inside_link:
                child.type, child.content = "html_inline", _linked(child.content, numbers)
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    return nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=_attribute,
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )


def _linked(text: str, numbers: frozenset[int]) -> str:
    def link(mark: "re.Match[str]") -> str:
        n = int(mark[1])
        return f'<sup><a class="cite" data-n="{n}" href="#source-{n}">{n}</a></sup>' if n in numbers else mark[0]

    return _MARK.sub(link, escape(text, quote=False))


def _picture(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text or "image")}</a>'
