"""The network between a process and its database, which a test may cut: with a reset, or in silence."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"  # as a client says it
COMMITTED_SECONDS = 0.3  # after these a commit stands
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets


@dataclass(eq=False)
class Line:
    """A connection, and the one it is carried on by."""

    ends: tuple[asyncio.StreamWriter, asyncio.StreamWriter]
    lost: bool = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, proxy: "Proxy") -> None:
        with suppress(OSError):
            while (data := await reader.read(65536)) and not self.lost:
                self.lost = proxy.loses_the_answer_to(data)
                writer.write(data)
                await writer.drain()
                if self.lost:
                    await asyncio.sleep(COMMITTED_SECONDS)
                    _reset(self.ends[0])
        if not self.lost:
            for end in self.ends:
                end.close()


class Proxy:
    def __init__(self, port: int) -> None:
        self.port = 0
        self.unheard = 0  # so many commits reach the server, and their answers nobody: the connection is reset
        self._target = port
        self._state: Literal["whole", "reset", "silent"] = "whole"
        self._lines: list[Line] = []
        self._held: list[asyncio.StreamWriter] = []
        self._meetings: set[asyncio.Task[None]] = set()

    def through(self, url: str) -> str:
        return url.replace(f":{self._target}/", f":{self.port}/")

    def reset(self) -> None:
        """Every connection is reset, and who tries to connect too."""
        self._state = "reset"
        for line in self._lines:
            for end in line.ends:
                _reset(end)
        self._lines.clear()

    def fall_silent(self) -> None:
        """Nothing comes through any more, and neither side is told, be it of the other's end."""
        self._state = "silent"
        for line in self._lines:
            line.lost = True

    def heal(self) -> None:
        """For new connections. Those that were lost in silence stay lost, as behind a firewall that forgot them."""
        self._state = "whole"

    def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "silent":
            self._held.append(writer)  # let in, and never answered
        elif self._state == "reset":
            _reset(writer)
        else:
            meeting = asyncio.create_task(self._carry(reader, writer))
            self._meetings.add(meeting)
            meeting.add_done_callback(self._meetings.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        line = Line((writer, to_there))
        self._lines.append(line)
        await asyncio.gather(line.carry(reader, to_there, self), line.carry(there, writer, self))

    def loses_the_answer_to(self, data: bytes) -> bool:
        loses = self.unheard > 0 and data.startswith(COMMIT)
        self.unheard -= loses
        return loses

    async def close(self) -> None:
        for end in (*self._held, *(end for line in self._lines for end in line.ends)):
            end.transport.abort()
        await asyncio.gather(*self._meetings)


def _reset(writer: asyncio.StreamWriter) -> None:
    end: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[Proxy]:
    made = Proxy(port)
    server = await asyncio.start_server(made.meet, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made
        await made.close()
