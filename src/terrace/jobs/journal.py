"""What a transaction changes about jobs: the events it appends, and whom to tell once it is durable."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import text
from sqlmodel import Session

from terrace.errors import Invalid
from terrace.jobs.base import EventId, JobEvent
from terrace.jobs.statements import Many, insert_into
from terrace.settings import KB, MB
from terrace.storage import after_commit

MAX_PAYLOAD = 1 * MB  # bytes of JSON
MAX_RESULT = 1 * MB
MAX_EVENT = 1 * MB
MAX_ERROR_CHARS = 2 * KB

_encoder = msgspec.json.Encoder(order="deterministic")

COLUMNS = {
    "tenant_id": "text",
    "job_id": "text",
    "attempt": "integer",
    "seq": "integer",
    "type": "text",
    "data": "text",
}
INSERT = insert_into("job_events", again=False, **COLUMNS)
INSERT_AGAIN = insert_into("job_events", again=True, **COLUMNS)
NEXT = text(
    "SELECT COALESCE(MAX(seq), -1) + 1 FROM job_events "
    "WHERE tenant_id = :tenant_id AND job_id = :job_id AND attempt = :attempt"
)


def encode(value: Any, limit: int, what: str) -> str:
    """JSON of bounded size; the same value always gives the same text. Raises Invalid."""
    try:
        encoded = _encoder.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"The {what} of a job must be JSON: {error}", code="not_json") from error
    if len(encoded) > limit:
        raise Invalid(
            f"The {what} of a job may have {limit // KB} kB; this one has {len(encoded) // KB} kB.",
            code=f"{what}_too_large",
            status=413,
        )
    return encoded.decode()


class Stored(NamedTuple):
    """An event and the text that is kept of it."""

    event: JobEvent
    text: str


def stored(attempt: int, seq: int, type: str, data: dict[str, Any]) -> Stored:
    return Stored(JobEvent(EventId(attempt, seq), type, data), encode(data, MAX_EVENT, "event"))


@dataclass(slots=True)
class Notice:
    """What one committed transaction did."""

    events: dict[tuple[str, str], list[JobEvent]] = field(default_factory=dict)  # by (tenant, job)
    tenants: set[str] = field(default_factory=set)  # whose jobs changed
    queued: bool = False  # there may be something to claim
    cancelling: list[str] = field(default_factory=list)  # running jobs that shall stop


class Journal:
    """One for each transaction. `tell` gets the notice after the commit, on the event loop."""

    def __init__(self, session: Session, tell: Callable[[Notice], None]) -> None:
        self.session = session
        self.notice = Notice()
        after_commit(session, lambda: tell(self.notice))

    def append(self, tenant: str, job_id: str, attempt: int, type: str, data: dict[str, Any]) -> None:
        """An event of a job that is not running, after those it has."""
        seq = self.next_seq(tenant, job_id, attempt)
        self.extend([(tenant, job_id, [stored(attempt, seq, type, data)])])

    def next_seq(self, tenant: str, job_id: str, attempt: int) -> int:
        where = {"tenant_id": tenant, "job_id": job_id, "attempt": attempt}
        return int(self.session.execute(NEXT, where).scalar_one())

    def extend(
        self,
        logs: Sequence[tuple[str, str, Sequence[Stored]]],
        beside: tuple[Many, Sequence[Mapping[str, Any]]] | None = None,
        *,
        again: bool = False,
    ) -> None:
        """Events whose place is known already: (tenant, job, events); and what is to be written along with them.

        `again`: they may be stored already, by a commit whose answer was lost with the connection.
        """
        rows = []
        for tenant, job_id, stored in logs:
            for event, data in stored:
                rows.append(_row(tenant, job_id, event, data))
            self.notice.events.setdefault((tenant, job_id), []).extend(each.event for each in stored)
        if beside is not None:
            beside[0].run_beside(self.session, beside[1], INSERT, rows)
        elif rows:
            (INSERT_AGAIN if again else INSERT).run(self.session, rows)


def _row(tenant: str, job_id: str, event: JobEvent, data: str) -> dict[str, Any]:
    attempt, seq = event.id
    return {"tenant_id": tenant, "job_id": job_id, "attempt": attempt, "seq": seq, "type": event.type, "data": data}
