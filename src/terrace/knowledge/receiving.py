"""Uploads at the door: streamed to disk, measured and typed while nothing is written about them yet."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from terrace.errors import Invalid, TerraceError
from terrace.jobs.processes import Processes
from terrace.knowledge import archives, texts
from terrace.knowledge.archives import Bounds, Member
from terrace.knowledge.media import ACCEPTED, HEAD, ZIP, detect, sniff
from terrace.knowledge.naming import file_name
from terrace.settings import Knowledge as Settings
from terrace.storage import Blobs
from terrace.types import Scope, new_id

PIECE = 256 * 1024  # bytes read at a time
MEMORY = 512 * 1024**2  # bytes of address space for looking into an archive
UNPACKED = 4  # an archive may unpack to so many times the largest file


@dataclass(frozen=True, slots=True)
class Received:
    """A file in the blob store that no row knows yet."""

    document_id: str
    name: str
    media_type: str
    bytes: int
    sha256: str
    blob: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that was not taken, and nothing of it kept."""

    name: str
    error: TerraceError


class Door:
    """Takes files in. Archives are looked into by another process: they may be hostile."""

    def __init__(self, blobs: Blobs, processes: Processes, settings: Settings) -> None:
        self._blobs = blobs
        self._processes = processes
        self._settings = settings

    async def receive(
        self, scope: Scope, name: str, stream: AsyncIterator[bytes], *, archive: bool = False
    ) -> Received:
        """Store a file and tell its type; `archive` lets a zip of files pass.

        Raises Invalid: too large, empty, not a type we read. Nothing is left then.
        """
        document_id = new_id("doc")
        key = texts.original_key(scope.tenant, document_id)
        shown = file_name(name)
        stored = await self._blobs.put(key, stream, limit=self._settings.max_file_bytes)
        async with self.kept_on_success(key):
            if stored.bytes == 0:
                raise Invalid("This file is empty (0 bytes).", code="document_empty")
            media_type = await self._type(key, shown)
            if media_type == ZIP and not archive:
                raise Invalid(
                    f"This is a zip archive; upload it as a batch, or the files in it. {ACCEPTED}",
                    code="document_unsupported",
                    status=415,
                )
        return Received(document_id, shown, media_type, stored.bytes, stored.sha256, key)

    async def receive_any(
        self, scope: Scope, name: str, stream: AsyncIterator[bytes]
    ) -> AsyncGenerator[Received | Refused, None]:
        """A file, or each file of an archive; what can't be taken is told and stops no other."""
        try:
            received = await self.receive(scope, name, stream, archive=True)
            if received.media_type != ZIP:
                yield received
                return
            async with self._unpacked(received) as members:
                for member in members:
                    yield await self._receive_member(scope, *member)
        except TerraceError as error:
            yield Refused(file_name(name), error)

    async def drop(self, *keys: str) -> None:
        """Remove blobs that nothing refers to."""
        for key in keys:
            await self._blobs.delete(key)

    @asynccontextmanager
    async def kept_on_success(self, *keys: str) -> AsyncIterator[None]:
        """Remove the blobs when the block fails, so that a refused upload leaves nothing."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self.drop(*keys))
            raise

    async def _type(self, key: str, name: str) -> str:
        async with self._blobs.local(key) as path:
            if await asyncio.to_thread(_sniff, path, name) != ZIP:
                return await asyncio.to_thread(detect, path, name)
            timeout = self._settings.parse_timeout
            return await self._processes.run(archives.media_type, str(path), name, timeout=timeout, memory=MEMORY)

    @asynccontextmanager
    async def _unpacked(self, archive: Received) -> AsyncIterator[list[tuple[Member, Path]]]:
        largest = self._settings.max_file_bytes
        bounds = Bounds(self._settings.max_batch_files, largest, UNPACKED * largest)
        with tempfile.TemporaryDirectory(prefix="terrace-") as folder:
            try:
                async with self._blobs.local(archive.blob) as path:
                    timeout = self._settings.parse_timeout
                    members = await self._processes.run(
                        archives.unpack, str(path), folder, bounds, timeout=timeout, memory=MEMORY
                    )
            finally:
                await asyncio.shield(self.drop(archive.blob))
            yield [(member, Path(folder, member.file or "")) for member in members]

    async def _receive_member(self, scope: Scope, member: Member, path: Path) -> Received | Refused:
        try:
            if member.file is None:
                raise Invalid(member.message, code=member.code)
            return await self.receive(scope, member.name, _pieces(path))
        except TerraceError as error:
            return Refused(file_name(member.name), error)


def _sniff(path: Path, name: str) -> str:
    with path.open("rb") as file:
        return sniff(file.read(HEAD), name)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
