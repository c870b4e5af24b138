"""What in a passage bears a sentence of an answer out: its quoted words found again, or the sentence closest to it."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from terrace.knowledge.base import Span
from terrace.knowledge.sentences import sentence_spans

TERM_WORDS = 3  # fewer quoted words are a term or scare quotes, not a quotation
QUOTE_CHARS = 1200
NEAR_QUOTES = 8

_CLOSERS = {'"': '"', "“": "”", "„": '“”"', "«": "»", "»": "«", "「": "」", "『": "』"}
_QUOTE_SIGN = re.compile(r'["“”„«»「」『』]')
_FOOTNOTE = re.compile(r"[ \t]*\[\d{1,3}\]")
_OWN_MARK = re.compile(r"[ \t]*[\[(]\d{1,3}[\])]")
_ELISION = re.compile(r"\s*(?:\[(?:…|\.{3})\]|\((?:…|\.{3})\)|…|\.{3,})\s*")
_EDGES = " \t\n.,;:!?…"
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_STOP_WORDS = """
a an and are as at be been but by can did do does for from had has have he her his how i if in into is it its may more
not of on or our she so such than that the their them then there these they this those to was we were what when where
which who why will with would you your
der die das den dem des ein eine und oder ist sind war im in zu mit von auf für nicht es sie er
le la les un une et ou est sont dans de du des en pour par que qui pas il elle
"""
_STOP = frozenset(_STOP_WORDS.split())
_PLAIN = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»″", '"'),
        **dict.fromkeys("‘’‚‛‹›′`´", "'"),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", ""),
    }
)


@dataclass(frozen=True)
class Passage:
    """A chunk's text, folded for comparison, with the way back to its own characters.

    Folding: NFKC, one space for any run of white space, straight quotes and hyphens, no soft hyphens or zero-width
    characters. Case counts.
    """

    text: str

    @cached_property
    def _folded(self) -> "_Folded":
        return _fold_with_map(self.text, ())

    @cached_property
    def _without_footnotes(self) -> "_Folded":
        return _fold_with_map(self.text, [match.span() for match in _FOOTNOTE.finditer(self.text)])

    def find(self, quote: str) -> Span | None:
        """Where `quote` stands in the text, word for word but for folding.

        Punctuation at its edges may be the answer's own; `...` inside it leaves words out, and then the longest
        part's span is given (every part must be there, in order).
        """
        for folded, clean in (
            (self._folded, str),
            (self._folded, _without_emphasis),
            (self._without_footnotes, _without_marks),
        ):
            parts = [fold(clean(part)).strip(_EDGES) for part in _ELISION.split(quote)]
            if spans := _in_order(folded, [part for part in parts if part]):
                return max(spans, key=lambda span: span.end - span.start)
        return None

    @cached_property
    def _sentences(self) -> list[tuple[Span, frozenset[str]]]:
        return [(span, words(self.text[span.start : span.end])) for span in sentence_spans(self.text)]

    def best_sentence(self, claim: str) -> tuple[Span, float] | None:
        """The sentence that shares most with `claim`: the share, 0..1, of the claim's words that it holds."""
        wanted = words(claim)
        best: tuple[Span, float] | None = None
        for span, held in self._sentences:
            shared = len(wanted & held)
            score = shared / len(wanted) if shared >= min(2, len(wanted)) and wanted else 0.0
            if score > (best[1] if best else 0.0):
                best = span, score
        return best


def fold(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join(plain.split())


def words(text: str) -> frozenset[str]:
    """Content words, case folded and cut to six letters so that inflections meet; each CJK character is one."""
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(word[:6] for word in found if word not in _STOP)


def quotations(text: str) -> list[tuple[Span, str]]:
    """Quoted spans, last first, at most NEAR_QUOTES: (span with its quotation marks, the words inside)."""
    found: list[tuple[Span, str]] = []
    start, closers, depth = -1, "", 0
    for match in _QUOTE_SIGN.finditer(text):
        sign, at = match.group(), match.start()
        if start < 0:
            if sign in _CLOSERS:
                start, closers, depth = at, _CLOSERS[sign], 0
        elif sign == text[start] and sign not in closers:
            depth += 1  # “a “b” c”
        elif sign in closers and depth:
            depth -= 1
        elif sign in closers:
            if 2 <= at - start - 1 <= QUOTE_CHARS:
                found.append((Span(start, at + 1), text[start + 1 : at]))
            start = -1
    return found[::-1][:NEAR_QUOTES]


def inside_quotation(text: str) -> bool:
    """Whether `text` ends within quotation marks that its last paragraph opened."""
    closers, depth = "", 0
    for match in _QUOTE_SIGN.finditer(text, text.rfind("\n\n") + 1):
        sign, at = match.group(), match.start()
        if depth and sign in closers:
            depth -= 1
        elif depth and sign == '"' and not _opens(text, at):
            depth = 0  # “a"
        elif depth and _CLOSERS.get(sign) == closers:
            depth += 1
        elif not depth and sign in _CLOSERS and (sign != '"' or _opens(text, at)):
            closers, depth = _CLOSERS[sign], 1
    return depth > 0


def _opens(text: str, at: int) -> bool:
    """Whether a straight quotation mark opens (5" does not)."""
    before, after = text[max(0, at - 1) : at], text[at + 1 : at + 2]
    return (not before or before.isspace() or before in "([—–-") and bool(after.strip())


def is_quotation(quote: str) -> bool:
    """Whether quoted words claim to be somebody's words, and are not just a term."""
    return len(_WORD.findall(quote)) >= TERM_WORDS


class _Folded(NamedTuple):
    text: str
    starts: list[int]  # of each folded character, in the text it comes from
    ends: list[int]
    source: str


def _fold_with_map(text: str, left_out: Sequence[tuple[int, int]]) -> _Folded:
    """`fold`, and where each character comes from; the spans in `left_out` are passed over."""
    folded: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    gone = {at for start, end in left_out for at in range(start, end)}
    for start, end in _clusters(text):
        if start in gone:
            continue
        for char in unicodedata.normalize("NFKC", text[start:end]).translate(_PLAIN):
            plain = " " if char.isspace() else char
            if plain != " " or (folded and folded[-1] != " "):
                folded.append(plain)
                starts.append(start)
                ends.append(end)
    return _Folded("".join(folded), starts, ends, text)


def _in_order(folded: _Folded, needles: Sequence[str]) -> list[Span]:
    """A span for each needle, or none at all."""
    spans, at = [], 0
    for needle in needles:
        found = _find_word(folded.text, needle, at)
        if found < 0:
            return []
        at = found + len(needle)
        span = Span(folded.starts[found], folded.ends[at - 1])
        if needle not in (fold(each := folded.source[span.start : span.end]), fold(_FOOTNOTE.sub("", each))):
            return []  # it begins or ends inside a ligature
        spans.append(span)
    return spans


def _find_word(text: str, needle: str, start: int) -> int:
    """Like str.find, but not inside a word: `art` is not quoted from `party`."""
    while (at := text.find(needle, start)) >= 0:
        end = at + len(needle)
        inside = (at > 0 and _joined(text[at - 1], text[at])) or (end < len(text) and _joined(text[end - 1], text[end]))
        if not inside:
            return at
        start = at + 1
    return -1


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and ord(left) < 0x2E80 and ord(right) < 0x2E80


def _without_marks(quote: str) -> str:
    return _OWN_MARK.sub("", _without_emphasis(quote))


def _without_emphasis(quote: str) -> str:
    return re.sub(r"[*`]+|(?<!\w)_+|_+(?!\w)", "", quote)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Each character together with the combining marks after it."""
    start = 0
    for at in range(1, len(text) + 1):
        if at == len(text) or not unicodedata.combining(text[at]):
            yield start, at
            start = at
