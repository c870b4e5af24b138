"""What a process tells the others: the notices since its last message, as one."""

from collections.abc import Sequence
from typing import Any

import msgspec

from terrace.jobs.base import EventId, JobEvent
from terrace.jobs.carriers.base import Ears
from terrace.jobs.journal import Notice

MAX_BYTES = 256 * 1024  # of a message; what is larger is read from the table
MAX_EVENTS = 5000  # that wait to be carried

Wire = tuple[int, int, str, dict[str, Any]]  # attempt, seq, type, data


class _Message(msgspec.Struct, array_like=True):
    tenants: Sequence[str]
    queued: bool
    cancelling: Sequence[str]
    events: Sequence[tuple[str, str, msgspec.Raw]]  # tenant, job, its events: decoded only where they are followed
    missed: Sequence[tuple[str, str]]  # tenant, job


_encoder = msgspec.msgpack.Encoder()
_message = msgspec.msgpack.Decoder(_Message)
_events = msgspec.msgpack.Decoder(list[Wire])


class Outbox:
    """What waits to be told. It holds a bounded number of events: beyond that it only says whose there are."""

    def __init__(self) -> None:
        self._notice = Notice()
        self._count = 0
        self._missed: set[tuple[str, str]] = set()

    def add(self, notice: Notice) -> None:
        waiting = self._notice
        waiting.tenants |= notice.tenants
        waiting.queued |= notice.queued
        waiting.cancelling += notice.cancelling
        for where, events in notice.events.items():
            waiting.events.setdefault(where, []).extend(events)
            self._count += len(events)
        if self._count > MAX_EVENTS:
            self._drop_events()

    def take(self) -> bytes | None:
        """One message of all that waits; None when nothing does."""
        try:
            message = self._encoded()
            carried = message is None or len(message) <= MAX_BYTES
        except (OverflowError, TypeError, ValueError):  # JSON takes numbers of any size, MessagePack does not
            carried = False
        if not carried:
            self._drop_events()
            message = self._encoded()
        self.clear()
        return message

    def clear(self) -> None:
        self._notice, self._count, self._missed = Notice(), 0, set()

    def _drop_events(self) -> None:
        self._missed |= self._notice.events.keys()
        self._notice.events, self._count = {}, 0

    def _encoded(self) -> bytes | None:
        notice = self._notice
        if not (notice.tenants or notice.queued or notice.cancelling or notice.events or self._missed):
            return None
        events = [
            (tenant, job_id, msgspec.Raw(_encoder.encode([(*each.id, each.type, each.data) for each in theirs])))
            for (tenant, job_id), theirs in notice.events.items()
        ]
        return _encoder.encode(
            _Message(list(notice.tenants), notice.queued, notice.cancelling, events, list(self._missed))
        )


def hear(message: bytes, ears: Ears) -> None:
    """Hand a message on. Raises msgspec.DecodeError for what is none."""
    told = _message.decode(message)
    events = {
        (tenant, job_id): [
            JobEvent(EventId(attempt, seq), type, data) for attempt, seq, type, data in _events.decode(raw)
        ]
        for tenant, job_id, raw in told.events
        if ears.follows(tenant, job_id)
    }
    ears.heard(Notice(events, set(told.tenants), told.queued, list(told.cancelling)))
    for tenant, job_id in told.missed:
        ears.missed(tenant, job_id)
