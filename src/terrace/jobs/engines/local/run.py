"""One attempt at one job: what its handler sees, and what waits to be written about it."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from sqlmodel import Session

from terrace.jobs.base import EventId, JobEvent, LostLease
from terrace.jobs.claims import Claimed
from terrace.jobs.endings import Outcome
from terrace.jobs.journal import MAX_EVENT, Stored, encode

if TYPE_CHECKING:
    from terrace.jobs.engines.local.recorder import Recorder

PROGRESS_SECONDS = 0.25  # progress is told this often at most
MAX_NOTE_CHARS = 500

Stop = Literal["cancel", "lost", "release"]


class Run:
    """The `Context` of a handler. Its state is touched on the event loop only."""

    def __init__(self, job: Claimed, recorder: "Recorder") -> None:
        self.job = job
        self.scope = job.scope
        self.outcome: Outcome | None = None
        self.stop: Stop | None = None
        self.task: asyncio.Task[None] | None = None
        self.pending: list[Stored] = []
        self.progress_text: str | None = None  # to be kept on the row with what is pending
        self.writing = asyncio.Lock()  # its writes follow one another
        self._recorder = recorder
        self._payload: dict[str, Any] | None = None
        self._seq = 1  # 0 is the attempt's first event, written by the claim
        self._families = 0
        self._progress: dict[str, Any] | None = None
        self._progress_at = 0.0

    @property
    def job_id(self) -> str:
        return self.job.id

    @property
    def attempt(self) -> int:
        return self.job.attempt

    @property
    def payload(self) -> dict[str, Any]:
        if self._payload is None:
            self._payload = msgspec.json.decode(self.job.payload, type=dict[str, Any])
        return self._payload

    @property
    def next_seq(self) -> int:
        return self._seq

    def emit(self, type: str, data: dict[str, Any]) -> None:
        self._alive()
        encoded = encode(data, MAX_EVENT, "event")
        self._append(type, data, encoded)
        self._recorder.note(self, at_once=self._seq == 2)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self._alive()
        self._progress = {"done": done, "total": total, "note": note[:MAX_NOTE_CHARS]}
        self._recorder.note_later(self, self.progress_due_in() or 0.0)

    async def write(self, work: Callable[[Session], Any]) -> Any:
        self._alive()
        return await self._recorder.write(self, work)

    async def children(self, kind: str, payloads: list[dict[str, Any]]) -> list[str]:
        self._alive()
        self._families += 1
        return await self._recorder.children(self, self._families, kind, payloads)

    # -- for the recorder

    def take(self, *, last: bool = False) -> tuple[list[Stored], str | None]:
        """What is to be written now: events, and the progress the row shall keep."""
        if self._progress is not None and (last or time.monotonic() >= self._progress_at + PROGRESS_SECONDS):
            self.progress_text = encode(self._progress, MAX_EVENT, "progress")
            self._append("progress", self._progress, self.progress_text)
            self._progress, self._progress_at = None, time.monotonic()
        events, self.pending = self.pending, []
        progress, self.progress_text = self.progress_text, None
        return events, progress

    def put_back(self, events: list[Stored], progress: str | None) -> None:
        """They could not be written; they go first next time."""
        self.pending[:0] = events
        self.progress_text = self.progress_text or progress

    @property
    def dirty(self) -> bool:
        return bool(self.pending) or self.outcome is not None or self.progress_text is not None

    def progress_due_in(self) -> float | None:
        """Seconds until the progress that was reported may be told; None when there is none."""
        if self._progress is None:
            return None
        return max(0.0, self._progress_at + PROGRESS_SECONDS - time.monotonic())

    def halt(self, why: Stop) -> None:
        """Stop the handler at its next await. The first reason counts, except that a lost lease overrides all."""
        if self.stop is None or why == "lost":
            self.stop = why
        if self.task is not None and self.outcome is None:
            self.task.cancel()

    def _append(self, type: str, data: dict[str, Any], encoded: str) -> None:
        self.pending.append(Stored(JobEvent(EventId(self.attempt, self._seq), type, data), encoded))
        self._seq += 1

    def _alive(self) -> None:
        if self.stop == "lost":
            raise LostLease(self.job_id)
