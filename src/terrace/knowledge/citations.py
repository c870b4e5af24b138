"""Citations that hold: every `[n]` names a retrieved chunk, and every quote stands in it, checked on this side.

What is promised for each `Source`: it was retrieved; `start`..`end` lies within its chunk; and where `quote` is not
null, it is the document's own text from `start` to `end`. See docs/citations.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from terrace.knowledge.base import Hit, Page, Span
from terrace.knowledge.evidence import Passage, inside_quotation, is_quotation, quotations
from terrace.knowledge.hits import document_url
from terrace.knowledge.marks import CONTEXT_CHARS, MarkScanner
from terrace.knowledge.sentences import sentence_spans
from terrace.types import JSONObject

SUPPORT = 0.5  # share of a sentence's words that a chunk's sentence must hold to count as its source
EXAMINED = 50  # citations of one source that are looked at for its best evidence

Pages = Mapping[str, Sequence[Page]]
"""document id -> its pages."""


@dataclass(frozen=True, slots=True)
class Source:
    """A numbered source as the API shows it; `chunk_text` stays inside."""

    n: int
    document_id: str
    document_name: str
    title: str
    page: int | None
    start: int
    end: int
    quote: str | None
    chunk_id: str
    chunk_start: int
    chunk_end: int
    score: float
    url: str
    chunk_text: str = field(default="", repr=False)
    source_url: str | None = None  # where the document was found on the web

    def to_json(self) -> JSONObject:
        names = (name for name in self.__dataclass_fields__ if name != "chunk_text")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer whose marks all name sources, and the sources it cites, in order of first citation."""

    text: str
    sources: tuple[Source, ...]


def candidates(hits: Sequence[Hit]) -> tuple[Source, ...]:
    """Retrieved chunks as sources, numbered from 1, each pointing at its whole chunk."""
    return tuple(
        Source(
            n=number,
            document_id=hit.document_id,
            document_name=hit.document_name,
            title=hit.title,
            page=hit.page,
            start=hit.start,
            end=hit.end,
            quote=None,
            chunk_id=hit.chunk_id,
            chunk_start=hit.start,
            chunk_end=hit.end,
            score=hit.score,
            url=hit.url,
            chunk_text=hit.text,
            source_url=hit.source_url,
        )
        for number, hit in enumerate(hits, 1)
    )


class Checker:
    """Checks an answer while it streams: `feed` and `finish` give the text to show, `checked` the result.

    What was shown is the checked text: nothing is taken back later.
    """

    def __init__(self, sources: Sequence[Source], pages: Pages | None = None) -> None:
        self._sources = {source.n: source for source in sources}
        self._passages = {source.n: Passage(source.chunk_text) for source in sources}
        self._pages = pages or {}
        self._marks = MarkScanner(self._decide)
        self._shown: list[str] = []

    def feed(self, text: str) -> str:
        shown = self._marks.feed(text)
        self._shown.append(shown)
        return shown

    def finish(self) -> str:
        shown = self._marks.finish()
        self._shown.append(shown)
        return shown

    def checked(self) -> Checked:
        """After `finish`: the text as shown, and the cited sources with their spans."""
        text = "".join(self._shown)
        evidence: dict[int, list[_Evidence]] = {}
        placed, previous = self._marks.placed, 0
        for index, group in enumerate(placed):
            following = placed[index + 1].start if index + 1 < len(placed) else len(text)
            before = _region(text[max(previous, group.start - CONTEXT_CHARS) : group.start])
            after = _after(text[group.end : min(following, group.end + CONTEXT_CHARS)])
            for number in group.numbers:
                found = evidence.setdefault(number, [])
                if len(found) < EXAMINED:
                    found.append(self._evidence(number, group.numbers, before, after))
            previous = group.end
        return Checked(text, tuple(self._cited(number, found) for number, found in evidence.items()))

    def _decide(self, before: str, numbers: Sequence[int]) -> Sequence[int]:
        """Which of the numbers stay. A quotation that stands in another chunk moves its mark there; one that stands
        in none keeps its mark only where the chunk bears the sentence out anyway. Within quotation marks a number is
        the document's own footnote, not a citation."""
        if inside_quotation(before):
            return []
        named = [number for number in numbers if number in self._sources]
        region = _region(before)
        quotes = _near_quotes(region) if named else []
        if not quotes or any(self._holds(number, quote) for number in named for quote in quotes):
            return named
        for number in self._sources:
            if any(self._holds(number, quote) for quote in quotes):
                return [number]
        claim = _claim(region)
        return [number for number in named if self._supports(number, claim)]

    def _holds(self, number: int, quote: str) -> bool:
        return self._passages[number].find(quote) is not None

    def _supports(self, number: int, claim: str) -> bool:
        best = self._passages[number].best_sentence(claim)
        return best is not None and best[1] >= SUPPORT

    def _evidence(self, number: int, group: Sequence[int], before: str, after: str) -> "_Evidence":
        passage = self._passages[number]
        quotes = [quote for _, quote in quotations(before) + quotations(after)]
        found = [span for quote in quotes if (span := passage.find(quote))]
        if found:
            longest = max(found, key=lambda span: span.end - span.start)
            if is_quotation(passage.text[longest.start : longest.end]):
                return _Evidence(3, longest)
        claimed = [quote for quote in _near_quotes(before) if is_quotation(quote)]
        if claimed and not any(self._holds(each, quote) for each in group for quote in claimed):
            return _Evidence(0, None)  # the quotation stands nowhere: no words are vouched for
        best = passage.best_sentence(_claim(before)) or passage.best_sentence(after)
        if best is not None and best[1] >= SUPPORT:
            return _Evidence(1 + best[1], best[0])
        return _Evidence(0, None)

    def _cited(self, number: int, found: "list[_Evidence]") -> Source:
        source, best = self._sources[number], max(found, key=lambda each: each.strength)
        if best.span is None:
            return source
        start, end = source.chunk_start + best.span.start, source.chunk_start + best.span.end
        page = self._page(source, start)
        quote = source.chunk_text[best.span.start : best.span.end]
        return replace(
            source, start=start, end=end, quote=quote, page=page, url=document_url(source.document_id, start, end, page)
        )

    def _page(self, source: Source, start: int) -> int | None:
        """The page a span begins on: a chunk may run over a page's end."""
        for page in self._pages.get(source.document_id, ()):
            if page.span.start <= start < page.span.end:
                return page.number
        return source.page


def check(answer: str, sources: Sequence[Source], pages: Pages | None = None) -> Checked:
    """A whole answer at once; the same result as feeding it in pieces."""
    checker = Checker(sources, pages)
    checker.feed(answer)
    checker.finish()
    return checker.checked()


def without_marks(answer: str) -> str:
    """An answer with every mark removed: an earlier answer's numbers mean nothing in a later prompt."""
    return check(answer, ()).text


def numbers_cited(text: str) -> list[int]:
    """What the marks in a text name, in order, each once."""
    scanner = MarkScanner(lambda _, numbers: numbers)
    scanner.feed(text)
    scanner.finish()
    return list(dict.fromkeys(number for group in scanner.placed for number in group.numbers))


@dataclass(frozen=True, slots=True)
class _Evidence:
    strength: float  # 3 a quotation found, 1..2 a sentence that shares words, 0 none
    span: Span | None  # in the chunk's text


def _region(before: str) -> str:
    """What a mark may speak for: its paragraph, from the previous mark on."""
    paragraph = before[before.rfind("\n\n") + 1 :] if before.rstrip() else ""
    if not paragraph.strip():
        paragraph = before
    cut = max(paragraph.rfind("]", 0, len(paragraph.rstrip())), 0)
    return paragraph[cut + 1 :] if cut and _ends_with_mark(paragraph[: cut + 1]) else paragraph


def _ends_with_mark(text: str) -> bool:
    inside = text[text.rfind("[") + 1 : -1]
    return text.endswith("]") and inside.isdecimal() and len(inside) <= 3


def _after(text: str) -> str:
    """The rest of the sentence that a mark opens: `According to [1], "..."`."""
    paragraph = text.split("\n\n", 1)[0]
    quotes = quotations(paragraph)
    reach = quotes[-1][0].end if quotes and not sentence_spans(paragraph[: quotes[-1][0].start])[1:] else 0
    first = next(iter(sentence_spans(paragraph)), Span(0, 0))
    return "" if paragraph.lstrip()[:1] in ".!?" else paragraph[: max(reach, first.end)]


def _near_quotes(region: str) -> list[str]:
    """Quotations between which and the mark no other sentence stands."""
    near = []
    for span, quote in quotations(region):
        between = region[span.end :].lstrip(" .,;:!?…)")
        if len(sentence_spans(between)) > 1 or (_sentence_ended(region[: span.end]) and between):
            break
        if is_quotation(quote):
            near.append(quote)
    return near


def _sentence_ended(text: str) -> bool:
    return text.rstrip('"”“»«」').endswith((".", "!", "?"))


def _claim(region: str) -> str:
    """The sentence a mark closes."""
    spans = sentence_spans(region)
    return region[spans[-1].start : spans[-1].end] if spans else ""
