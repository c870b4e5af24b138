"""Blobs in memory."""

import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from terrace.storage.blobs.base import PIECE, Blob, Reads, Stored, Sum, Writer, checked, missing


class _MemoryWriter:
    def __init__(self, limit: int | None) -> None:
        self._sum = Sum(limit)
        self.content = bytearray()

    @property
    def stored(self) -> Stored:
        return self._sum.stored

    async def write(self, piece: bytes) -> None:
        self._sum.add(piece)
        self.content += piece


class MemoryBlobs(Reads):
    """For tests, and for a server that shall leave nothing behind."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[bytes, float]] = {}

    @asynccontextmanager
    async def writer(self, key: str, *, limit: int | None = None) -> AsyncGenerator[Writer, None]:
        checked(key)
        writer = _MemoryWriter(limit)
        yield writer
        self._blobs[key] = (bytes(writer.content), time.time())

    async def stream(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        content = memoryview(self._get(key))[start:end]
        for at in range(0, len(content), PIECE):
            yield bytes(content[at : at + PIECE])

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path, None]:
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._get(key))
            file.flush()
            yield Path(file.name)

    async def size(self, key: str) -> int:
        return len(self._get(key))

    async def exists(self, key: str) -> bool:
        return checked(key) in self._blobs

    async def delete(self, key: str) -> bool:
        return self._blobs.pop(checked(key), None) is not None

    async def list(self, prefix: str = "") -> AsyncGenerator[Blob, None]:
        for key in sorted(self._blobs):
            if key.startswith(prefix):
                content, modified_at = self._blobs[key]
                yield Blob(key, len(content), modified_at)

    def _get(self, key: str) -> bytes:
        if checked(key) not in self._blobs:
            raise missing()
        return self._blobs[key][0]
