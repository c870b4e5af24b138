"""Bodies as they were before they were compressed, a bounded piece at a time."""

import zlib
from collections.abc import AsyncGenerator, AsyncIterable

from terrace.errors import Unavailable

PIECE = 256 * 1024  # bytes inflated before somebody else may go on: a millisecond or so
ANY_FRAME = 32 + zlib.MAX_WBITS  # gzip or zlib, whichever it is
ENCODINGS = "gzip, deflate"  # what we ask for


async def inflated(pieces: AsyncIterable[bytes], encoding: str) -> AsyncGenerator[bytes, None]:
    """`encoding` is the Content-Encoding. Raises Unavailable (unreachable) for one we didn't ask for, or a bad one."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        async for piece in pieces:
            yield piece
    elif encoding in ("gzip", "x-gzip", "deflate"):
        try:
            async for piece in _inflate(pieces):
                yield piece
        except zlib.error:
            raise _unreadable("compressed data that is broken") from None
    else:
        raise _unreadable("an encoding we did not ask for")


async def _inflate(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    inflater = None
    async for piece in pieces:
        while piece:
            if inflater is None:
                inflater = zlib.decompressobj(ANY_FRAME if _framed(piece) else -zlib.MAX_WBITS)
            made = inflater.decompress(piece, PIECE)
            piece = inflater.unconsumed_tail
            if inflater.eof:
                piece, inflater = inflater.unused_data, None  # gzip may have several members
            if made:
                yield made
    if inflater is not None:
        raise _unreadable("compressed data that ends too early")


def _framed(piece: bytes) -> bool:
    """Whether it begins as gzip or zlib; some send `deflate` bare."""
    return piece[:1] == b"\x1f" or (piece[0] & 0x0F == 8 and (len(piece) < 2 or int.from_bytes(piece[:2]) % 31 == 0))


def _unreadable(what: str) -> Unavailable:
    return Unavailable(f"The server answered with {what}.", code="unreachable")
