"""Files for batches: sent, listed, read, deleted."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits.base import Limits
from terrace.accounts.limits.unlimited import Unlimited
from terrace.batches import store
from terrace.batches.base import File
from terrace.batches.writing import blob_key
from terrace.errors import Conflict, Invalid
from terrace.knowledge import trash
from terrace.knowledge.settling import kept_if_known, to_the_end
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now

PURPOSE = "batch"
MAX_FILES = 10_000  # of one person
MAX_NAME = 255
DAY = 86_400
KEPT_DAYS = 30  # a file is kept this long unless its sender says otherwise
EXPIRY = (3600, 30 * DAY)  # seconds that a sender may say, as OpenAI
MOST = 10_000  # files in one list
AT_ONCE = 200
ORPHAN_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Received:
    """A stored file that no row knows."""

    id: str
    blob: str
    bytes: int


class Files:
    """`limits` has the last word on what is kept."""

    def __init__(
        self, database: Database, blobs: Blobs, options: settings.Batches, limits: Limits | None = None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._options = options
        self._limits: Limits = limits or Unlimited()

    async def receive(self, scope: Scope, pieces: AsyncIterator[bytes]) -> Received:
        """Store what comes; no row knows it yet. Raises Invalid when it is too large; nothing is left then."""
        file_id = new_id("file")
        key = blob_key(scope.tenant, file_id)
        stored = await self._blobs.put(key, pieces, limit=self._options.max_file_bytes)
        return Received(file_id, key, stored.bytes)

    async def admit(
        self, scope: Scope, received: Received, name: str, purpose: str, expires_after: int | None = None
    ) -> File:
        """Keep it. Raises Invalid, Conflict or Limited; it is gone then."""
        keys = [received.blob]
        async with kept_if_known(self._database, self._blobs, keys, lambda each: store.known_blobs(each, keys)):
            if purpose != PURPOSE:
                raise Invalid(
                    "Only files with the purpose `batch` are taken here. Send documents to /api/documents/upload.",
                    code="invalid_purpose",
                    param="purpose",
                )
            if not received.bytes:
                raise Invalid("The file is empty.", code="file_empty", param="file")
            seconds = check_expiry(expires_after) or KEPT_DAYS * DAY
            return await to_the_end(self._database.write(self._add, scope, received, _named(name), now() + seconds))

    def _add(self, session: Session, scope: Scope, received: Received, name: str, expires_at: float) -> File:
        if store.count_files(session, scope) >= MAX_FILES:
            raise Conflict(f"You have {MAX_FILES:,} files, which is the most. Delete some.", code="too_many_files")
        self._limits.admit(session, scope, documents=0, bytes=received.bytes)
        return store.add_file(session, scope, received.id, name, "batch", received.bytes, received.blob, expires_at)

    async def drop(self, received: Received) -> None:
        """What was received and is not wanted."""
        await self._blobs.delete(received.blob)

    async def get(self, scope: Scope, file_id: str) -> File:
        """Raises Missing."""
        return await self._database.read(store.show, scope, file_id)

    async def list(
        self,
        scope: Scope,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = MOST,
        order: Literal["asc", "desc"] = "desc",
    ) -> "tuple[list_[File], bool]":
        """By age, and whether there are more."""
        if not 1 <= limit <= MOST:
            raise Invalid(f"`limit` must be between 1 and {MOST:,}.", code="invalid_parameter", param="limit")

        def find(session: Session) -> list_[File]:
            return store.files(session, scope, purpose=purpose, after=after, limit=limit + 1, order=order)

        found = await self._database.read(find)
        return found[:limit], len(found) > limit

    async def content(self, scope: Scope, file_id: str) -> tuple[File, AsyncIterator[bytes]]:
        """Raises Missing."""
        row = await self._database.read(store.file, scope, file_id)
        return store.shown(row), self._blobs.stream(row.blob)

    async def link(self, scope: Scope, file_id: str) -> str | None:
        """Where the file can be fetched from for a few minutes, past this server; None where it must be streamed.
        Raises Missing."""
        row = await self._database.read(store.file, scope, file_id)
        return await self._blobs.link(row.blob, name=row.name, media_type="application/octet-stream")

    async def delete(self, scope: Scope, file_id: str) -> None:
        """Raises Missing, or Conflict while a batch reads it."""
        await self._database.write(store.remove_file, scope, file_id)
        await trash.empty(self._database, self._blobs, scope)

    async def tidy(self) -> None:
        """Every day: what has expired goes, and files of uploads that broke off."""

        def expire(session: Session) -> set[str]:
            rows = store.expired_files(session, now(), AT_ONCE)
            for row in rows:
                store.drop_file(session, row)
            return {row.tenant_id for row in rows}

        while tenants := await self._database.write(expire):
            for tenant in tenants:
                await trash.empty(self._database, self._blobs, Scope(tenant))
        async for blob in self._blobs.list():
            if blob.key.split("/")[1:2] == ["files"] and blob.modified_at < now() - ORPHAN_SECONDS:
                await self._drop_orphan(blob.key)

    async def _drop_orphan(self, key: str) -> None:
        """Files of batches that are being finalized are younger than this."""
        if not await self._database.read(lambda session: store.known_blobs(session, [key])):
            await self._blobs.delete(key)


list_ = list  # `Files.list` hides the builtin inside the class


def check_expiry(seconds: int | None) -> int | None:
    """Raises Invalid."""
    if seconds is not None and not EXPIRY[0] <= seconds <= EXPIRY[1]:
        raise Invalid(
            f"`expires_after.seconds` must be between {EXPIRY[0]:,} (an hour) and {EXPIRY[1]:,} (30 days).",
            code="invalid_parameter",
            param="expires_after",
        )
    return seconds


def _named(name: str) -> str:
    """A file's own name, without folders and without what no terminal should be sent."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each for each in last if each.isprintable())[:MAX_NAME] or "file.jsonl"
