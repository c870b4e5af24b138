"""From one blob store into another: what is missing is copied, all is read again at both ends and compared."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from terrace.errors import Conflict, Internal, Invalid, Missing
from terrace.moving.sums import Sum, Told
from terrace.storage import Blobs
from terrace.storage.blobs import Blob

MARK = "moving_in_progress"  # a blob that says that others are coming, and from where
AT_ONCE = 4
PASSES = 5
TRIES = 2


@dataclass(frozen=True, slots=True)
class FilesPlan:
    files: int
    bytes: int
    state: str  # empty | begun | done: what is at the destination


@dataclass(frozen=True, slots=True)
class FilesMoved:
    files: Sum
    bytes: int
    copied: int
    seconds: float


class FilesMove:
    """`source` and `destination` name the two for people."""

    def __init__(self, here: Blobs, there: Blobs, source: str, destination: str, told: Told) -> None:
        if source == destination:
            raise Invalid("Source and destination are the same place.", code="same_place")
        self._here, self._there = here, there
        self._source, self._destination = source, destination
        self._told = told
        self._taken: dict[str, Blob] = {}  # as each was listed when this move copied it

    async def plan(self) -> FilesPlan:
        listed = await _listed(self._here)
        return FilesPlan(len(listed), sum(each.bytes for each in listed.values()), await self._state(listed.keys()))

    async def run(self, *, resume: bool = False) -> FilesMoved:
        """Raises Conflict when the destination holds something else, Internal when it could not be proved equal."""
        began = time.monotonic()
        state = await self._state((await _listed(self._here)).keys())
        if state != "empty" and not resume:
            raise Conflict(
                f"{self._destination} is not empty: a move into it was {state}. Go on with --resume, which brings over "
                "what came since, or empty it with --rollback.",
                code="move_begun",
            )
        await self._there.put(MARK, self._source.encode())
        copied = 0
        for _ in range(PASSES):  # what comes in meanwhile is copied too
            if not (copying := await self._missing()):
                break
            copied += await self._copy(copying)
        files, size = await self._prove()
        await self._there.delete(MARK)
        return FilesMoved(files, size, copied, time.monotonic() - began)

    async def roll_back(self) -> int:
        """Removes from the destination what is also at the source; returns how many files went."""
        await self._marked()
        here, removed = await _listed(self._here), 0
        there = await _listed(self._there)
        if strangers := there.keys() - here.keys():
            raise Conflict(
                f"{self._destination} holds {len(strangers):,} files that {self._source} does not have, such as "
                f"{min(strangers)}. Nothing was removed.",
                code="destination_used",
            )
        for key in there:
            removed += await self._there.delete(key)
            self._told("files removed", removed, len(there))
        await self._there.delete(MARK)
        return removed

    async def _state(self, here: Collection[str]) -> str:
        """Raises Conflict where somebody else's files are. What shares files with the source was filled from it: their
        names are drawn by lot."""
        if await self._marked():
            return "begun"
        there = (await _listed(self._there)).keys()
        if there and not there & set(here):
            raise Conflict(f"{self._destination} is not empty: {min(there)}. Name one that is.", code="not_empty")
        return "done" if there else "empty"

    async def _marked(self) -> bool:
        """Whether a move was begun there and not ended. Raises Conflict where it was one from elsewhere."""
        try:
            source = (await self._there.read(MARK)).decode(errors="replace")
        except Missing:
            return False
        if source != self._source:
            raise Conflict(
                f"Files from {source} are being moved into {self._destination}, not from {self._source}.",
                code="moved_from_elsewhere",
            )
        return True

    async def _missing(self) -> list[Blob]:
        """What is not there, of another size there, or newer here than what was copied. The other end's clock says
        nothing of what this move has copied: it may be slow, and a bucket tells whole seconds."""
        there = await _listed(self._there)

        def is_there(each: Blob) -> bool:
            copy = there.get(each.key)
            if copy is None or copy.bytes != each.bytes:
                return False
            return self._taken.get(each.key) == each or copy.modified_at >= each.modified_at

        return [each for each in (await _listed(self._here)).values() if not is_there(each)]

    async def _copy(self, copying: list[Blob]) -> int:
        done = 0

        listed = {each.key: each for each in copying}

        async def one(key: str) -> None:
            nonlocal done
            try:
                await self._there.put(key, self._here.stream(key))
                self._taken[key] = listed[key]
            except Missing:  # deleted meanwhile
                await self._there.delete(key)
            done += 1
            self._told("files copied", done, len(copying))

        await _some_at_once(list(listed), one)
        return done

    async def _prove(self) -> tuple[Sum, int]:
        """Raises Internal when a file is not the same at both ends, however often it is copied."""
        listed = sorted(await _listed(self._here))
        hashes: dict[str, tuple[str, int]] = {}

        async def one(key: str) -> None:
            if (found := await self._proved(key)) is not None:
                hashes[key] = found
            self._told("files compared", len(hashes), len(listed))

        await _some_at_once(listed, one)
        whole = hashlib.sha256()
        for key in sorted(hashes):
            whole.update(f"{key}\0{hashes[key][0]}\n".encode())
        return Sum(len(hashes), whole.hexdigest()), sum(size for _, size in hashes.values())

    async def _proved(self, key: str) -> tuple[str, int] | None:
        for _ in range(TRIES):
            try:
                ours = await hashed(self._here, key)
            except Missing:  # deleted meanwhile
                await self._there.delete(key)
                return None
            try:
                if await hashed(self._there, key) == ours:
                    return ours
            except Missing:
                pass  # copied again below
            await self._there.put(key, self._here.stream(key))
        raise Internal(f"The file {key} is not the same at both ends.", code="not_equal")


async def hashed(blobs: Blobs, key: str) -> tuple[str, int]:
    """(SHA-256, bytes)"""
    found, size = hashlib.sha256(), 0
    async for piece in blobs.stream(key):
        await asyncio.to_thread(found.update, piece)
        size += len(piece)
    return found.hexdigest(), size


async def _listed(blobs: Blobs) -> dict[str, Blob]:
    return {each.key: each async for each in blobs.list() if each.key != MARK}


async def _some_at_once(keys: list[str], work: Callable[[str], Awaitable[None]]) -> None:
    waiting = iter(keys)

    async def worker() -> None:
        for key in waiting:
            await work(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
