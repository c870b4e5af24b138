"""The job behind a batch: check the file, answer its lines a few at a time, write the answers into files.

Every answer is a row before its place is given to the next line, so a server that dies repeats no call but those that
were under way.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlmodel import Session

from terrace import settings
from terrace.batches import lines, store
from terrace.batches.base import FINAL, Answer, Batch, RunLine, Usage
from terrace.batches.keeping import Keeper
from terrace.batches.lines import Line
from terrace.batches.store import Record
from terrace.batches.writing import write_files
from terrace.errors import Limited, Missing, TerraceError
from terrace.jobs.base import Context
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now
from terrace.webhooks.base import Emitter, Silent

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # how often a running batch asks whether it shall stop
GRACE_SECONDS = 30.0  # what is under way may take this long to end when a batch is stopped
LONGEST_PAUSE = 30.0  # seconds until room under the limits is asked for again: they may have been raised
PASSING = frozenset({408, 429, 500, 502, 503, 504})  # statuses after which another try may do better
TRIES = 5
FIRST_PAUSE = 1.0  # seconds; doubles


@dataclass(frozen=True, slots=True)
class House:
    """What a run needs."""

    database: Database
    blobs: Blobs
    run_line: RunLine
    options: settings.Batches
    emitter: Emitter = field(default_factory=Silent)
    clock: Callable[[], float] = now
    pause: float = FIRST_PAUSE


class Run:
    """One attempt at one batch."""

    def __init__(self, context: Context, house: House, stop: asyncio.Event) -> None:
        self._context = context
        self._house = house
        self._id: str = context.payload["batch_id"]
        self._stop = stop  # set by whoever cancels it in this process
        walls = tuple(frozenset(wall) for wall in context.payload.get("models", ()))
        # Without the job: its calls take no place in the line of those who wait for room. Whoever asks now comes first.
        self._caller = replace(context.scope, job=None, models=walls)
        self._waiting: deque[asyncio.Future[None]] = deque()  # lines refused for lack of room

    async def run(self) -> dict[str, Any]:
        try:
            batch = await self._read()
        except Missing:
            return {"deleted": True}
        if batch.status == "validating":
            batch = await self._validate(batch)
        if batch.status in ("in_progress", "finalizing"):
            await self._answer(batch)
        if batch.status not in FINAL:
            batch = await (self._finish(batch) if "in_progress" in batch.times else self._never_begun())
        while await self._context.write(lambda session: store.drop_records(session, self._scope, self._id)):
            pass
        return {"batch_id": batch.id, "status": batch.status, "completed": batch.completed, "failed": batch.failed}

    @property
    def _scope(self) -> Scope:
        return self._context.scope

    async def _read(self) -> Batch:
        def read(session: Session) -> Batch:
            return store.told(store.of_job(session, self._scope, self._id))

        return await self._house.database.read(read)

    async def _blob(self) -> str:
        """Where the input file is. It cannot go while a batch reads it."""

        def read(session: Session) -> str:
            return store.input_file(session, store.of_job(session, self._scope, self._id)).blob

        return await self._house.database.read(read)

    # -- before

    async def _validate(self, batch: Batch) -> Batch:
        checked = await lines.check(
            self._house.blobs, await self._blob(), batch.endpoint, self._house.options.max_requests
        )

        def write(session: Session) -> Batch:
            row = store.of_job(session, self._scope, self._id)
            if row.status != "validating":  # cancelled meanwhile
                return store.told(row)
            if checked.errors:
                return self._ended(session, store.told(store.fail(session, row, checked.errors)))
            return store.told(store.move(session, row, "in_progress", total=checked.count, model=checked.model))

        return await self._write(write)

    # -- the lines

    async def _answer(self, batch: Batch) -> None:
        done = await self._house.database.read(store.answered, self._scope, self._id)
        self._context.progress(len(done), max(batch.total, 1))
        keeper = Keeper(self._context, self._id, len(done), batch.total)
        slots = asyncio.Semaphore(self._house.options.concurrency)
        running: set[asyncio.Task[None]] = set()
        await self._look(batch)
        watching = asyncio.create_task(self._watch(batch))
        try:
            async for line in lines.requests(self._house.blobs, await self._blob()):
                if line.number in done:
                    continue
                await self._free(slots)
                keeper.check()
                if self._stop.is_set():
                    break
                task = asyncio.create_task(self._line(batch, line, keeper, slots))
                running.add(task)
                task.add_done_callback(running.discard)
            await self._last(running)
            keeper.check()
        finally:
            watching.cancel()
            for task in running:
                task.cancel()
            await asyncio.gather(watching, *running, return_exceptions=True)

    async def _free(self, slots: asyncio.Semaphore) -> None:
        """A place for one more line, or the word to stop."""
        if not slots.locked():
            await slots.acquire()
            return
        place = asyncio.ensure_future(slots.acquire())
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({place, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if not place.done():
                place.cancel()

    async def _last(self, running: set[asyncio.Task[None]]) -> None:
        """What is under way ends by itself; when the batch is stopped it must end soon."""
        while running:
            stop = asyncio.ensure_future(self._stop.wait())
            try:
                await asyncio.wait({*running, stop}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stop.cancel()
            if self._stop.is_set():
                self._nobody_waits()
                if running:
                    await asyncio.wait(running, timeout=GRACE_SECONDS)
                return

    async def _watch(self, batch: Batch) -> None:
        while not self._stop.is_set():
            await self._pause(LOOK_SECONDS)
            try:
                await self._look(batch)
            except TerraceError as error:  # a database that is away ends the run by itself when an answer is kept
                log.warning("whether %s shall stop is asked again: %s", self._id, error)

    async def _look(self, batch: Batch) -> None:
        """Says stop when the window closes or somebody has cancelled the batch, in whatever process. It is cancelled
        when whoever made it is shut out."""
        scope = self._scope
        if await self._house.database.read(store.shut_out, scope):
            await self._write(lambda session: store.told(store.cancel(session, store.of_job(session, scope, self._id))))
        if self._house.clock() >= batch.expires_at or (await self._read()).status == "cancelling":
            self._stop.set()

    async def _line(self, batch: Batch, line: Line, keeper: Keeper, slots: asyncio.Semaphore) -> None:
        try:
            answer = await self._ask(batch, line)
            if answer is not None:
                await keeper.keep(_record(line, answer))
        except Exception as error:
            keeper.broke(error)
        finally:
            slots.release()

    async def _ask(self, batch: Batch, line: Line) -> Answer | None:
        """None when the batch was stopped while this line waited for its turn."""
        tries, pause = 0, self._house.pause
        while not self._stop.is_set():
            try:
                answer = await self._house.run_line(self._caller, batch.endpoint, line.body)
            except Limited as full:
                if self._stop.is_set():
                    break
                await self._for_room(min(full.retry_after or LONGEST_PAUSE, LONGEST_PAUSE))
                continue
            self._room_came()
            tries += 1
            if answer.status not in PASSING or tries == TRIES:
                return answer
            await self._pause(pause * random.uniform(0.5, 1.5))
            pause *= 2
        return None

    async def _for_room(self, seconds: float) -> None:
        """Until a call of ours ends, or there may be room without that."""
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(came)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds * random.uniform(1.0, 1.2)):
                await came

    def _room_came(self) -> None:
        while self._waiting:
            came = self._waiting.popleft()
            if not came.done():
                came.set_result(None)
                return

    def _nobody_waits(self) -> None:
        """Lines that have not begun never do."""
        for came in self._waiting:
            came.cancel()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    # -- after

    async def _finish(self, batch: Batch) -> Batch:
        """The answers become files, and the batch is over."""
        scope = self._scope

        def begin(session: Session) -> Batch:
            row = store.of_job(session, scope, self._id)
            if row.status != "cancelling":
                store.move(session, row, "finalizing")
            row.output_file_id = row.output_file_id or new_id("file")
            row.error_file_id = row.error_file_id or new_id("file")
            session.flush()
            return replace(store.told(row), output_file_id=row.output_file_id, error_file_id=row.error_file_id)

        batch = await self._write(begin)
        written = await write_files(self._house.database, self._house.blobs, scope, batch, await self._blob())

        def end(session: Session) -> Batch:
            row = store.of_job(session, scope, self._id)
            expires_at = None if row.output_seconds is None else now() + row.output_seconds
            owner = replace(scope, user=row.user_id)
            for each in written.files:
                store.add_file(session, owner, each.id, each.name, "batch_output", each.bytes, each.blob, expires_at)
            kept = {each.id for each in written.files}
            store.move(
                session, row,
                "cancelled" if batch.status == "cancelling" else "expired" if written.missing else "completed",
                failed=row.failed + written.missing,
                output_file_id=row.output_file_id if row.output_file_id in kept else None,
                error_file_id=row.error_file_id if row.error_file_id in kept else None,
            )  # fmt: skip
            return self._ended(session, store.told(row))

        return await self._write(end)

    async def _never_begun(self) -> Batch:
        """It was cancelled while its file was being checked."""

        def end(session: Session) -> Batch:
            row = store.of_job(session, self._scope, self._id)
            return self._ended(session, store.told(store.move(session, row, "cancelled")))

        return await self._write(end)

    def _ended(self, session: Session, batch: Batch) -> Batch:
        announce(self._house.emitter, session, self._scope, batch)
        return batch

    async def _write(self, work: Callable[[Session], Batch]) -> Batch:
        batch: Batch = await self._context.write(work)
        return batch


def announce(emitter: Emitter, session: Session, scope: Scope, batch: Batch) -> None:
    """Tell whoever listens that it is over."""
    data = {
        "id": batch.id,
        "status": batch.status,
        "endpoint": batch.endpoint,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
    }
    emitter.emit(session, scope, "batch.finished", data)


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Used(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Told(msgspec.Struct):
    usage: _Used | None = None


def _record(line: Line, answer: Answer) -> Record:
    """As the output or error file will hold it. A line break within JSON is only ever space between its parts."""
    body = answer.body.replace(b"\n", b" ").replace(b"\r", b" ")
    response = {"status_code": answer.status, "request_id": answer.request_id, "body": msgspec.Raw(body)}
    record = {"id": new_id("batch_req"), "custom_id": line.custom_id, "response": response, "error": None}
    good = answer.status == 200
    return Record(line.number, good, msgspec.json.encode(record).decode(), _usage(body) if good else Usage())


def _usage(body: bytes) -> Usage:
    try:
        used = msgspec.json.decode(body, type=_Told).usage or _Used()
    except lines.BAD_JSON:
        return Usage()
    cached = used.prompt_tokens_details.cached_tokens if used.prompt_tokens_details else 0
    return Usage(used.prompt_tokens or 0, cached or 0, used.completion_tokens or 0)
