"""JSON objects, one a line, read as they arrive (Ollama's streams)."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import msgspec

from terrace.errors import Unavailable
from terrace.models.decoding import decode

MAX_LINE_BYTES = 8 * 1024 * 1024


async def objects(pieces: AsyncIterator[bytes], limit: int = MAX_LINE_BYTES) -> AsyncGenerator[dict[str, Any], None]:
    """The objects of a stream, blank lines skipped; the last line needs no line end.

    Raises Unavailable: `upstream_nonsense` for a line that is no JSON object, `upstream_too_large` past `limit` bytes.
    """
    rest = bytearray()
    async for piece in pieces:
        rest += piece
        if b"\n" in piece:
            lines = rest.split(b"\n")
            rest = lines.pop()
            for line in lines:
                for found in _object(line):
                    yield found
        if len(rest) > limit:
            raise Unavailable(f"A line of the stream is larger than {limit} bytes.", code="upstream_too_large")
    for found in _object(rest):
        yield found


def _object(line: bytearray) -> Iterator[dict[str, Any]]:
    if not line.strip():
        return
    try:
        value = decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unavailable("A line of the stream is no JSON object.", code="upstream_nonsense")
    yield value
