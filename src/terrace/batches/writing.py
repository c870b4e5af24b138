"""From kept answers to the output and the error file."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec

from terrace.batches import lines, store
from terrace.batches.base import Batch
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id

GATHERED = 64 * 1024  # bytes handed on at a time

WHY = {
    "batch_cancelled": "This request was not made: the batch was cancelled before its turn came.",
    "batch_expired": "This request could not be executed before the completion window expired.",
}


@dataclass(frozen=True, slots=True)
class Written:
    id: str
    name: str
    bytes: int
    blob: str


@dataclass(frozen=True, slots=True)
class Outcome:
    files: tuple[Written, ...]  # those that hold anything
    missing: int  # lines that have no answer


def blob_key(tenant: str, file_id: str) -> str:
    return f"{tenant}/files/{file_id}"


async def write_files(database: Database, blobs: Blobs, scope: Scope, batch: Batch, source: str) -> Outcome:
    """`source` is the input file's blob. Repeated, it writes the same again in the same places."""
    done = await database.read(store.answered, scope, batch.id)
    missing = batch.total - len(done)
    found: list[Written] = []
    for file_id, good, wanted in (
        (batch.output_file_id, True, batch.completed > 0),
        (batch.error_file_id, False, batch.failed + missing > 0),
    ):
        if file_id is None or not wanted:
            continue
        pieces = _records(database, scope, batch.id, good)
        if not good and missing:
            code = "batch_cancelled" if batch.status == "cancelling" else "batch_expired"
            pieces = _both(pieces, _unanswered(blobs, source, done, code))
        key = blob_key(scope.tenant, file_id)
        stored = await blobs.put(key, _gathered(pieces))
        found.append(Written(file_id, f"{batch.id}_{'output' if good else 'error'}.jsonl", stored.bytes, key))
    return Outcome(tuple(found), missing)


async def _records(database: Database, scope: Scope, batch_id: str, good: bool) -> AsyncIterator[bytes]:
    after = 0
    while rows := await database.read(store.records, scope, batch_id, good, after):
        for after, text in rows:  # noqa: B007 - the last one is where the next page begins
            yield text.encode() + b"\n"


async def _unanswered(blobs: Blobs, source: str, done: set[int], code: str) -> AsyncIterator[bytes]:
    error = {"code": code, "message": WHY[code]}
    async for line in lines.requests(blobs, source):
        if line.number not in done:
            record = {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": None, "error": error}
            yield msgspec.json.encode(record) + b"\n"


async def _both(first: AsyncIterator[bytes], second: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in first:
        yield piece
    async for piece in second:
        yield piece


async def _gathered(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    waiting = bytearray()
    async for piece in pieces:
        waiting += piece
        if len(waiting) >= GATHERED:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)
