"""Cuts a text into sentences with exact spans, minding abbreviations, decimals, initials, lists, wrapped lines."""

import re

from terrace.knowledge.base import Span

# Before a dot these do not end a sentence.
_SHORT = """
    al approx art bzw ca capt cf ch co col cmdr corp dept dr e.g eds est etc fig figs gen gov hon i.e inc jr lt ltd
    max min mr mrs ms mt no nos nr op p pp para prof rev sen sgt sr st tab u.a u.k u.s v vol vs z.b
"""
_ABBREVIATIONS = frozenset(_SHORT.split())
_BREAK = re.compile(
    r"""(?P<stop>[.!?…]+["'”’»)\]]*)(?=\s)   # a stop, what closes after it, then space
      | (?P<wide>[。！？]+[」』）”]*)           # scripts that write no space
      | (?P<blank>\n[ \t]*\n\s*)              # an empty line
      | (?P<line>\n)                           # a line's end
    """,
    re.X,
)
_ITEM = re.compile(r"[ \t]*(?:[-*•·–|#>]|\(?\d{1,3}[.)]|\(?[a-z][.)])[ \t]")
_LAST_WORD = re.compile(r"[\w.&'’-]*$")
_SHORT_LINE = 0.7  # of the longest line: a line that ends before that was not wrapped, it ended


def sentence_spans(text: str) -> list[Span]:
    """Spans in order, without surrounding white space; together they hold every visible character."""
    widest = max(map(len, text.split("\n")))
    spans: list[Span] = []
    start = 0
    for match in _BREAK.finditer(text):
        if _ends_sentence(text, match, widest):
            _append(spans, text, start, match.end())
            start = match.end()
    _append(spans, text, start, len(text))
    return spans


def _ends_sentence(text: str, match: "re.Match[str]", widest: int) -> bool:
    kind = match.lastgroup
    if kind == "stop":
        return _is_full_stop(text, match)
    if kind == "line":
        return _line_ends(text, match.start(), widest)
    return True


def _is_full_stop(text: str, match: "re.Match[str]") -> bool:
    following = text[match.end() : match.end() + 40].lstrip()
    if not following:
        return True
    if match["stop"][0] != ".":
        return not following[0].islower()
    before = _LAST_WORD.search(text, max(0, match.start() - 30), match.start())
    word = before[0].lower() if before else ""
    if word in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or following[0].islower():
        return False
    line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
    return not line.strip().isdigit()  # "1." before an item of a list


def _line_ends(text: str, at: int, widest: int) -> bool:
    if _ITEM.match(text, at + 1):
        return True
    line = text[text.rfind("\n", 0, at) + 1 : at].rstrip()
    following = text[at + 1 : at + 2]
    return len(line) < _SHORT_LINE * widest and not following.islower() and not line.endswith((",", ";", "-"))


def _append(spans: list[Span], text: str, start: int, end: int) -> None:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append(Span(start, end))
