"""One request's answer on a lean connection: the connection pushes pieces in, a reader pulls them out."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from terrace.errors import Unavailable

if TYPE_CHECKING:
    from terrace.models.transport.connection import Connection

HIGH_WATER = 256 * 1024  # bytes kept for a slow reader before the connection stops reading


class Exchange:
    """A `Response` whose pieces are taken as they arrived; what piled up meanwhile comes as one piece."""

    __slots__ = (
        "_buffered",
        "_connection",
        "_error",
        "_loop",
        "_pieces",
        "_waiter",
        "ended",
        "head",
        "headers",
        "method",
        "status",
    )

    def __init__(self, connection: "Connection", method: str, loop: asyncio.AbstractEventLoop) -> None:
        self.method = method
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.head: asyncio.Future[None] = loop.create_future()
        self.ended = False
        self._loop = loop
        self._connection: Connection | None = connection
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._error: Unavailable | None = None
        self._waiter: asyncio.Future[None] | None = None

    # The connection's side.

    def push(self, piece: bytes) -> bool:
        """Takes a piece of the body; says whether the reader has fallen behind."""
        self._pieces.append(piece)
        self._buffered += len(piece)
        self._wake()
        return self._buffered > HIGH_WATER

    def finish(self) -> None:
        self.ended = True
        self._connection = None
        self._head_is_in()
        self._wake()

    def fail(self, error: Unavailable) -> None:
        """The reader gets what came before the failure, then the failure."""
        self.ended = True
        self._connection = None
        self._error = error
        if not self.head.done():
            self.head.set_exception(error)
        self._wake()

    def begin(self, status: int) -> None:
        self.status = status
        self._head_is_in()

    def _head_is_in(self) -> None:
        if not self.head.done():
            self.head.set_result(None)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The reader's side.

    def __aiter__(self) -> "Exchange":
        return self

    async def __anext__(self) -> bytes:
        pieces = self._pieces
        while not pieces:
            if self._error is not None:
                raise self._error
            if self.ended:
                raise StopAsyncIteration
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    def _take(self) -> bytes:
        pieces = self._pieces
        piece = pieces.popleft() if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered = 0
        if self._connection is not None and self._connection.paused:
            self._connection.resume()
        return piece

    async def read(self, limit: int = 16 * 1024 * 1024) -> bytes:
        if self.ended and self._error is None and self._buffered <= limit:
            return self._take() if self._pieces else b""
        read: list[bytes] = []
        size = 0
        async for piece in self:
            size += len(piece)
            if size > limit:
                self.close()
                raise Unavailable(
                    f"The model server's answer is larger than {limit:,} bytes, the limit of models.max_answer_bytes.",
                    code="upstream_too_large",
                )
            read.append(piece)
        return read[0] if len(read) == 1 else b"".join(read)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self._pieces.clear()
        self.head.cancel()
        if connection is not None:
            self.ended = True
            connection.drop()
