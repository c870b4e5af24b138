"""A head that comes again: who keeps a connection sends the same bytes before each body, but for its length.

What httptools and our own checks have read once, they would read in the same way again; so it is not read again.
"""

import re
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

LONGEST = 8 * 1024  # bytes of a head that is remembered
LENGTH = b"content-length"
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)
_MOST_DIGITS = 9
_UNREPEATED = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"connection"})

_OF_ONE = ("state", "terrace.exchange")


@dataclass(frozen=True, slots=True)
class Head:
    """`asgi` is the scope of a request that had it, but for what is of that one alone."""

    before: bytes  # up to the digits of its length
    after: bytes  # from there to its end
    place: int  # of the length among the headers
    asgi: MutableMapping[str, Any]

    @classmethod
    def learnt(cls, data: bytes, asgi: MutableMapping[str, Any]) -> Self | None:
        """From `data` that began with a request, which was parsed without complaint. None when it is not plain: its
        lines must be one for each header, so that no reader can take its end to be elsewhere."""
        headers: Sequence[tuple[bytes, bytes]] = asgi["headers"]
        end = data.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(data, 0, end)
        names = [name for name, _ in headers]
        lines = len(headers) + 2
        if (
            not 4 < end <= LONGEST
            or found is None
            or names.count(LENGTH) != 1
            or not _UNREPEATED.isdisjoint(names)
            or asgi["method"] == "HEAD"
            or not data.startswith(asgi["method"].encode())
            or not data.count(b"\n", 0, end) == data.count(b"\r", 0, end) == data.count(b"\r\n", 0, end) == lines
        ):
            return None
        kept = {name: value for name, value in asgi.items() if name not in _OF_ONE}
        return cls(data[: found.start(1)], data[found.end(1) : end], names.index(LENGTH), kept)

    def parted(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The digits of its length, and the body, where `data` is one whole request that has this head."""
        before, after = self.before, self.after
        if not data.startswith(before):
            return None
        begin = len(before)
        end = data.find(b"\r", begin, begin + _MOST_DIGITS + 1)
        digits = data[begin:end]
        if end < 0 or not digits.isdigit() or not data.startswith(after, end):
            return None
        body = data[end + len(after) :]
        return (digits, body) if len(body) == int(digits) else None

    def scope(self, digits: bytes, exchange: object) -> dict[str, Any]:
        """Of a request with another length."""
        asgi = self.asgi
        headers = asgi["headers"].copy()
        headers[self.place] = (LENGTH, digits)
        by_name = {**asgi["terrace.headers"], LENGTH: digits}
        return {**asgi, "headers": headers, "state": {}, "terrace.headers": by_name, "terrace.exchange": exchange}
