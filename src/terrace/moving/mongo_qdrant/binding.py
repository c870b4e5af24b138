"""Passages find their places in a document's text, or the text is put together of them."""

from collections.abc import Sequence

GAP = "\n\n"
OVERLAP = 20  # characters that two passages must share to be joined by them
LONGEST_OVERLAP = 4000


def bind(text: str, passages: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """(text, spans): `text[start:end]` is each passage, always. `text` itself where it holds them in their order."""
    spans = _places(text, passages) if text else None
    if spans is not None:
        return text, spans
    return _joined(passages)


def _places(text: str, passages: Sequence[str]) -> list[tuple[int, int]] | None:
    spans: list[tuple[int, int]] = []
    start = 0
    for passage in passages:
        start = text.find(passage, start)
        if start < 0:
            return None
        spans.append((start, start + len(passage)))
    return spans


def _joined(passages: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """One after the other; what the end of one and the beginning of the next have in common stands once."""
    parts: list[str] = []
    spans: list[tuple[int, int]] = []
    length = 0
    before = ""
    for passage in passages:
        shared = _shared(before, passage)
        if parts and not shared:
            parts.append(GAP)
            length += len(GAP)
        start = length - shared
        parts.append(passage[shared:])
        length = start + len(passage)
        spans.append((start, length))
        before = passage
    return "".join(parts), spans


def _shared(before: str, passage: str) -> int:
    """How many characters at the end of one begin the other."""
    tail = before[-LONGEST_OVERLAP:]
    mark = passage[:OVERLAP]
    if len(mark) < OVERLAP:
        return 0
    at = tail.find(mark)
    while at >= 0:
        if passage.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(mark, at + 1)
    return 0
