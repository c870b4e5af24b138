"""A relayed event stream: whole events go on as they came, the usage in its tail is read, and dropped if only we
asked for it."""

import re

import msgspec

from terrace.models.tokens import estimate
from terrace.telemetry.calls import Usage

ENDS = (b"\n\n", b"\r\n\r\n")
MAX_EVENT_BYTES = 1024 * 1024  # a longer one is passed on in pieces
FINELY = 64  # an estimate is rounded up: that of so many copies hardly

_BOUNDARY = re.compile(rb"\r?\n\r?\n")


_NOTHING = msgspec.Raw()


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    choices: list[msgspec.Raw] | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: msgspec.Raw = _NOTHING
    reasoning_content: msgspec.Raw = _NOTHING
    tool_calls: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    delta: _Delta = _Delta()
    text: msgspec.Raw = _NOTHING


_decode = msgspec.json.Decoder(_Answer).decode
_decode_choice = msgspec.json.Decoder(_Choice).decode

BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def usage_of(answer: bytes) -> Usage | None:
    """The usage in a whole answer or chunk. Raises msgspec.DecodeError when it is not JSON in the expected form."""
    return _counted(_decode(answer).usage)


def _counted(usage: _Usage | None) -> Usage | None:
    if usage is None or usage.prompt_tokens is None:
        return None
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens, usage.completion_tokens or 0, (details and details.cached_tokens) or 0)


class Framer:
    """Pieces in, whole events out. Costs well under a microsecond a piece unless the piece may hold the usage."""

    __slots__ = ("_before", "_bytes", "_drop", "_events", "_last", "_rest", "_usage")

    def __init__(self, *, drop_usage: bool) -> None:
        self._drop = drop_usage
        self._rest = b""
        self._before = b""
        self._last = b""
        self._usage: Usage | None = None
        self._events = self._bytes = 0

    def feed(self, piece: bytes) -> bytes:
        """What may be sent on now, perhaps nothing."""
        if self._rest:
            piece = self._rest + piece
            self._rest = b""
        if not piece.endswith(ENDS):
            piece = self._hold_back(piece)
        if b"[]" in piece:
            piece = self._read_usage(piece)
        if piece:
            self._events += piece.count(b"data:")
            self._bytes += len(piece)
            self._before = self._last
            self._last = piece
        return piece

    def _hold_back(self, piece: bytes) -> bytes:
        cut = max(piece.rfind(b"\n\n") + 2, piece.rfind(b"\n\r\n") + 3)
        if cut <= 2 and len(piece) > MAX_EVENT_BYTES:
            return piece
        cut = cut if cut > 2 else 0
        self._rest = piece[cut:]
        return piece[:cut]

    def _read_usage(self, piece: bytes) -> bytes:
        """`choices` is empty in the event that holds the usage, and in few others."""
        kept = []
        start = 0
        for boundary in _BOUNDARY.finditer(piece):
            event = piece[start : boundary.end()]
            start = boundary.end()
            if not (b"[]" in event and self._is_usage(event) and self._drop):
                kept.append(event)
        return b"".join(kept) + piece[start:]

    def _is_usage(self, event: bytes) -> bool:
        answer = _read(event)
        usage = _counted(answer.usage) if answer is not None and answer.choices == [] else None
        self._usage = usage or self._usage
        return usage is not None

    @property
    def rest(self) -> bytes:
        """What came after the last whole event; an upstream may forget the last empty line."""
        return self._rest

    @property
    def finished(self) -> bool:
        """Whether the stream said that it was complete."""
        tail = self._before + self._last + self._rest
        return b"[DONE]" in tail or re.search(rb'"finish_reason":\s*"', tail) is not None

    @property
    def usage(self) -> Usage | None:
        """Some upstreams give it with the last choice instead of an event of its own."""
        if self._usage is None and b'"usage"' in (tail := self._before + self._last):
            for event in reversed(_BOUNDARY.split(tail)):
                answer = _read(event)
                if answer is not None and (found := _counted(answer.usage)):
                    return found
        return self._usage

    @property
    def tokens(self) -> int:
        """About how many the answer had so far, where nobody tells: one an event, or what its text makes. Only the last
        pieces are still here, and the others are taken to be like them."""
        tail = [(event, _text_of(event)) for event in _BOUNDARY.split(self._before + self._last) if event]
        said = [raw for _, raw in tail if raw]
        if not said:
            return self._events
        size = sum(map(len, said))
        around = sum(len(event) + 2 for event, raw in tail if raw) - size
        gone = self._bytes - len(self._before) - len(self._last)
        text = size + max(0, gone - (self._events - len(tail)) * around // len(said))
        finely = estimate("".join(map(_plain, said)) * FINELY)
        return max(self._events, -(-text * finely // (size * FINELY)))


def _text_of(event: bytes) -> bytes:
    """What an event adds to the answer, as JSON: a string or a list of tool calls; empty for nothing."""
    answer = _read(event)
    for choice in (answer.choices if answer is not None else None) or ():
        try:
            said = _decode_choice(choice)
        except BAD_JSON:
            continue
        for raw in (said.text, said.delta.content, said.delta.reasoning_content, said.delta.tool_calls):
            if (text := bytes(raw)) not in (b"", b"null", b'""'):
                return text
    return b""


def _plain(raw: bytes) -> str:
    try:
        text = msgspec.json.decode(raw)
    except BAD_JSON:
        text = None
    return text if isinstance(text, str) else raw.decode(errors="replace")


def _read(event: bytes) -> _Answer | None:
    start = event.find(b"{")
    if start < 0:
        return None
    try:
        return _decode(event[start:].rstrip())
    except BAD_JSON:
        return None
