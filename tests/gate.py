"""A connection to a server whose words a test may hold back for a while, in either direction; all of them then arrive
at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Way:
    """One direction."""

    def __init__(self) -> None:
        self._shut = False
        self._shuts_at = b""
        self._held = bytearray()
        self._more = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None

    def shut(self, *, at: bytes = b"") -> None:
        """From now on; or from what has these words in it."""
        self._shut, self._shuts_at = not at, at

    async def holds(self, words: bytes, times: int = 1) -> None:
        """Until it does."""
        async with asyncio.timeout(20):
            while self._held.count(words) < times:
                self._more.clear()
                await self._more.wait()

    def open(self) -> None:
        assert self._writer is not None
        self._shut, self._shuts_at = False, b""
        self._writer.write(bytes(self._held))
        self._held.clear()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while data := await reader.read(65536):
            self._shut |= bool(self._shuts_at) and self._shuts_at in data
            if self._shut:
                self._held += data
                self._more.set()
            else:
                writer.write(data)
        writer.close()


class Gate:
    """In front of a port of this machine."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.there, self.back = Way(), Way()
        self._target = target

    async def let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond, to_beyond = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self.there.carry(reader, to_beyond), self.back.carry(beyond, writer))


@asynccontextmanager
async def gate(target: int) -> AsyncIterator[Gate]:
    """For one connection, which has to end before it does."""
    made = Gate(target)
    async with await asyncio.start_server(made.let_in, "127.0.0.1", 0) as server:
        made.port = server.sockets[0].getsockname()[1]
        yield made
