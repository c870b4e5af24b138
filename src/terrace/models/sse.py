"""Server-sent events, read as they arrive: bytes in, events out.

Follows the WHATWG HTML standard, section 9.2.6 ("Interpreting an event stream"): lines end in CR, LF or CRLF, one
byte order mark is skipped, `data` lines of one event are joined by newlines, comments and unknown fields are ignored,
and an event that the stream's end cuts off is dropped. What the standard leaves open is bounded here.
"""

from typing import NamedTuple

from terrace.errors import Unavailable

MAX_EVENT_BYTES = 8 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    type: str
    data: str
    id: str


class Parser:
    """One stream. `feed` returns the events completed by a piece, wherever the pieces were cut.

    Raises Unavailable (`upstream_too_large`) when a line, or the data of one event, exceeds `limit` bytes.
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._rest = bytearray()  # the line begun
        self._begun = False  # the first line, which a byte order mark may open, is over
        self._after_cr = False  # a line feed that comes next belongs to the line end we have seen
        self._type = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""
        self.retry: int | None = None  # milliseconds, if the server named them

    def feed(self, piece: bytes) -> list[Event]:
        if self._after_cr and piece:
            self._after_cr = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
        events: list[Event] = []
        for line in piece.splitlines(keepends=True):  # for bytes: \n, \r and \r\n, nothing else
            if not line.endswith((b"\n", b"\r")):
                self._hold(line)
                break
            if self._rest:
                self._hold(line)
                line, self._rest = bytes(self._rest), bytearray()
            event = self._line(line.rstrip(b"\r\n"))
            if event is not None:
                events.append(event)
        self._after_cr = self._after_cr or piece.endswith(b"\r")
        return events

    def _hold(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._limit:
            raise _too_large(self._limit)

    def _line(self, line: bytes) -> Event | None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._size += len(value)
            if self._size > self._limit:
                raise _too_large(self._limit)
            self._data.append(_text(value))
        elif name == b"event":
            self._type = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)
        elif name == b"retry" and (digits := value.removeprefix(b" ")).isdigit() and len(digits) < 10:
            self.retry = int(digits)
        return None

    def _dispatch(self) -> Event | None:
        data, type_ = self._data, self._type
        self._data, self._type, self._size = [], "", 0
        return Event(type_ or "message", "\n".join(data), self._id) if data else None


def _text(value: bytes) -> str:
    return value.removeprefix(b" ").decode("utf-8", "replace")


def _too_large(limit: int) -> Unavailable:
    return Unavailable(f"An event of the stream is larger than {limit} bytes.", code="upstream_too_large")
