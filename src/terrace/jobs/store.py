"""A tenant's view of its jobs: put in, read, list, follow. What runs and ends them is in `lifecycle`."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import RowMapping, bindparam, text
from sqlmodel import Session

from terrace.errors import Conflict, Invalid, Missing
from terrace.jobs.base import EventId, Job, JobError, JobEvent, JobKind, Progress, State
from terrace.jobs.journal import MAX_PAYLOAD, Journal, encode
from terrace.jobs.sight import EVERYTHING, Sight
from terrace.jobs.statements import insert_into
from terrace.types import Scope, moment, new_id, now

MAX_PRIORITY = 1000
MAX_DELAY = 366 * 86_400.0  # seconds
MAX_KEY_CHARS = 300
EVENT_PAGE = 500  # events read at a time
CHANGE_PAGE = 500  # changed jobs told at a time; more than that and only the latest are
RATE_SECONDS = 300.0  # how far back throughput is measured
RATE_JOBS = 1000

BEGINNING = EventId(-1, -1)  # before every event

INSERT = insert_into(
    "jobs", id="text", tenant_id="text", kind="text", lane="text", state="text", priority="integer",
    run_at="double precision", attempt="integer", failures="integer", crashes="integer", dead="boolean",
    cancel_requested="boolean", payload="text", user_id="text", key_id="text", parent_id="text",
    idempotency_key="text", created_at="double precision", updated_at="double precision",
)  # fmt: skip
LISTED_CHARS = 4096  # of a payload or result in a list; what is longer is read with the job itself
COLUMNS = (
    "id, tenant_id, kind, lane, state, priority, run_at, attempt, failures, crashes, dead, cancel_requested, "
    "error, progress, user_id, key_id, parent_id, created_at, updated_at, started_at, finished_at"
)
SELECT = f"SELECT {COLUMNS}, payload, result FROM jobs"
LIST = (  # with doubled braces: what it begins is formatted
    f"SELECT {COLUMNS}, CASE WHEN LENGTH(payload) <= {LISTED_CHARS} THEN payload ELSE '{{{{}}}}' END AS payload, "
    f"CASE WHEN LENGTH(result) <= {LISTED_CHARS} THEN result END AS result, "
    f"(LENGTH(payload) > {LISTED_CHARS} OR COALESCE(LENGTH(result), 0) > {LISTED_CHARS}) AS abridged FROM jobs"
)
ONE = text(f"{SELECT} WHERE tenant_id = :tenant AND id = :id")
CHANGED = (
    f"{LIST} WHERE tenant_id = :tenant AND updated_at >= :since AND {{sight}} "
    f"ORDER BY updated_at DESC LIMIT {CHANGE_PAGE}"
)
SAME = text("SELECT id, payload FROM jobs WHERE tenant_id = :tenant AND kind = :kind AND idempotency_key = :key")
CHILDREN = text(
    "SELECT parent_id, state, COUNT(*) AS n FROM jobs WHERE parent_id IN :ids GROUP BY parent_id, state"
).bindparams(bindparam("ids", expanding=True))
HOLD_PARENT = text(
    "UPDATE jobs SET state = 'waiting', run_at = NULL, updated_at = :now "
    "WHERE id = :id AND attempt = 0 AND state IN ('queued', 'waiting')"
)
EVENTS = text(
    "SELECT attempt, seq, type, data FROM job_events WHERE tenant_id = :tenant AND job_id = :id "
    f"AND (attempt, seq) > (:attempt, :seq) ORDER BY attempt, seq LIMIT {EVENT_PAGE}"
)
LAST_EVENT = text(
    "SELECT attempt, seq FROM job_events WHERE tenant_id = :tenant AND job_id = :id "
    "ORDER BY attempt DESC, seq DESC LIMIT 1"
)
AHEAD = text(
    "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = :tenant "
    "AND (priority > :priority OR (priority = :priority AND (run_at < :run_at OR (run_at = :run_at AND id < :id))))"
)
BUSY_SINCE = text("SELECT MIN(run_at) FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = :tenant")
FINISHED = text(
    "SELECT COUNT(*) AS n, MIN(finished_at) AS since FROM ("
    "SELECT finished_at, lane, attempt FROM jobs WHERE tenant_id = :tenant AND updated_at > :since "
    f"ORDER BY updated_at DESC LIMIT {RATE_JOBS}) AS recent "
    "WHERE finished_at > :since AND attempt > 0 AND lane = :lane"
)
COUNTS = text(
    "SELECT (SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND lane = 'io' AND tenant_id = :tenant) AS io, "
    "(SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND lane = 'cpu' AND tenant_id = :tenant) AS cpu, "
    "(SELECT COUNT(*) FROM jobs WHERE state = 'waiting' AND tenant_id = :tenant) AS waiting, "
    "(SELECT COUNT(*) FROM jobs WHERE state = 'running' AND tenant_id = :tenant) AS running, "
    "(SELECT COUNT(*) FROM jobs WHERE state = 'failed' AND tenant_id = :tenant) AS failed"
)


def job_of(row: RowMapping, children: dict[str, int] | None = None) -> Job:
    progress, error = row["progress"], row["error"]
    return Job(
        id=row["id"],
        kind=row["kind"],
        state=row["state"],
        priority=row["priority"],
        attempt=row["attempt"],
        failures=row["failures"],
        crashes=row["crashes"],
        created_at=moment(row["created_at"]),
        run_at=moment(row["run_at"] if row["run_at"] is not None else row["created_at"]),
        started_at=moment(row["started_at"]) if row["started_at"] is not None else None,
        finished_at=moment(row["finished_at"]) if row["finished_at"] is not None else None,
        progress=msgspec.json.decode(progress, type=Progress) if progress else None,
        result=msgspec.json.decode(row["result"]) if row["result"] else None,
        error=msgspec.json.decode(error, type=JobError) if error else None,
        dead=bool(row["dead"]),
        cancel_requested=bool(row["cancel_requested"]),
        parent_id=row["parent_id"],
        children=children,
        user=row["user_id"],
        payload=msgspec.json.decode(row["payload"]),
        abridged=bool(row.get("abridged")),
    )


def find(session: Session, scope: Scope, job_id: str, sight: Sight = EVERYTHING) -> RowMapping:
    """The row. Raises Missing."""
    row = session.execute(ONE, {"tenant": scope.tenant, "id": job_id}).mappings().first()
    if row is None or not sight.sees(row):
        raise Missing("There is no such job. It may have been removed after its time.", code="no_such_job")
    return row


# -- putting in


def insert(
    session: Session,
    scope: Scope,
    journal: Journal,
    kind: JobKind,
    payloads: Sequence[dict[str, Any]],
    *,
    priority: int = 0,
    delay: float = 0.0,
    keys: Sequence[str] = (),
    parent_id: str | None = None,
) -> list[str]:
    """New jobs of one kind, in their order. Raises Invalid, Missing (the parent), Conflict (it has ended)."""
    if not -MAX_PRIORITY <= priority <= MAX_PRIORITY:
        raise Invalid(f"A priority lies between -{MAX_PRIORITY} and {MAX_PRIORITY}.", code="bad_priority")
    if not 0 <= delay <= MAX_DELAY:
        raise Invalid("A delay is between 0 seconds and a year.", code="bad_delay")
    moment_ = now()
    if parent_id is not None:
        _hold_parent(session, scope, parent_id, moment_)
    if kind.handler is None:
        state, run_at = "waiting", None
    else:
        state, run_at = ("waiting" if delay else "queued"), moment_ + delay
    rows = [
        {
            "id": new_id("job"),
            "tenant_id": scope.tenant,
            "kind": kind.name,
            "lane": kind.lane,
            "state": state,
            "priority": priority,
            "run_at": run_at if run_at is None else run_at + place * 1e-6,  # keeps their order
            "attempt": 0,
            "failures": 0,
            "crashes": 0,
            "dead": False,
            "cancel_requested": False,
            "payload": encode(payload, MAX_PAYLOAD, "payload"),
            "user_id": scope.user,
            "key_id": scope.key,
            "parent_id": parent_id,
            "idempotency_key": keys[place] if keys else None,
            "created_at": moment_,
            "updated_at": moment_,
        }
        for place, payload in enumerate(payloads)
    ]
    if rows:
        INSERT.run(session, rows)
        journal.notice.tenants.add(scope.tenant)
        journal.notice.queued = True
    return [str(row["id"]) for row in rows]


def own_key(scope: Scope, key: str) -> str:
    """An idempotency key is its sender's own: others may use the same. Raises Invalid."""
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise Invalid(f"An idempotency key has 1 to {MAX_KEY_CHARS} characters.", code="bad_idempotency_key")
    return key if scope.user is None else f"{scope.user}/{key}"


def same(session: Session, scope: Scope, kind: str, key: str, payload: dict[str, Any]) -> str | None:
    """The job that was put in with this `own_key`. Raises Conflict when it was asked something else."""
    row = session.execute(SAME, {"tenant": scope.tenant, "kind": kind, "key": key}).first()
    if row is None:
        return None
    if row.payload != encode(payload, MAX_PAYLOAD, "payload"):
        raise Conflict(
            "This idempotency key was used for a different request. Take a new key for a new request.",
            code="idempotency_key_reused",
        )
    return str(row.id)


def _hold_parent(session: Session, scope: Scope, parent_id: str, moment_: float) -> None:
    """A parent that has not begun waits for its children first."""
    parent = find(session, scope, parent_id)
    if parent["finished_at"] is not None:
        raise Conflict("The parent job has ended; it takes no more children.", code="parent_ended")
    session.execute(HOLD_PARENT, {"id": parent_id, "now": moment_})


# -- reading


def read(session: Session, scope: Scope, job_id: str, sight: Sight = EVERYTHING) -> Job:
    return one(session, find(session, scope, job_id, sight))


def read_at(session: Session, scope: Scope, job_id: str, sight: Sight) -> tuple[Job, EventId]:
    """The job, and the last of its events."""
    job = read(session, scope, job_id, sight)
    last = session.execute(LAST_EVENT, {"tenant": scope.tenant, "id": job_id}).first()
    return job, BEGINNING if last is None else EventId(*last)


def one(session: Session, row: RowMapping) -> Job:
    return job_of(row, children_of(session, [row["id"]]).get(row["id"]))


def read_queued(session: Session, scope: Scope, job_id: str, sight: Sight) -> tuple[Job, int | None, float | None]:
    """The job and, while it is queued, how many of its tenant and lane are ahead and the seconds that should take.

    The wait is what is ahead divided by what the lane finished lately for this tenant, since it has had work without a
    break where that tells enough: idle time is no slowness. None when neither says anything.
    """
    row = find(session, scope, job_id, sight)
    job = one(session, row)
    if job.state != "queued":
        return job, None, None
    where = {"tenant": scope.tenant, "lane": row["lane"]}
    place = {"priority": row["priority"], "run_at": row["run_at"], "id": job_id}
    ahead = session.execute(AHEAD, {**where, **place}).scalar_one()
    moment_ = now()
    lately, busy = moment_ - RATE_SECONDS, session.execute(BUSY_SINCE, where).scalar_one()
    for since in (max(lately, busy), lately):
        finished = session.execute(FINISHED, {**where, "since": since}).one()
        if finished.n >= 3:
            return job, ahead, (ahead + 1) * max(moment_ - finished.since, 1e-3) / finished.n
    return job, ahead, None


def counts(session: Session, scope: Scope) -> dict[str, int]:
    """How many jobs are open or failed, by state."""
    row = session.execute(COUNTS, {"tenant": scope.tenant}).one()
    return {"queued": row.io + row.cpu, "waiting": row.waiting, "running": row.running, "failed": row.failed}


def page(
    session: Session,
    scope: Scope,
    sight: Sight,
    *,
    state: State | None,
    kind: str | None,
    parent_id: str | None,
    dead: bool | None,
    limit: int,
    cursor: str | None,
) -> tuple[list[Job], str | None]:
    """Newest first; the cursor is the last id of the page."""
    limit = max(1, min(limit, 200))
    wanted: dict[str, Any] = {"state": state, "kind": kind, "parent_id": parent_id, "dead": dead}
    conditions = ["tenant_id = :tenant", "{sight}"]
    conditions += [f"{name} = :{name}" for name, value in wanted.items() if value is not None]
    if state == "failed":
        conditions.append("state = 'failed'")  # spelled out, so that the partial index can serve it
    if cursor is not None:
        conditions.append("id < :cursor")
    statement, values = sight.within(f"{LIST} WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT :limit")
    values |= {name: value for name, value in wanted.items() if value is not None}
    values |= {"tenant": scope.tenant, "limit": limit + 1, "cursor": cursor}
    rows = session.execute(statement, values).mappings().all()
    jobs = _with_children(session, rows[:limit])
    return jobs, (jobs[-1].id if len(rows) > limit else None)


def changed_since(session: Session, scope: Scope, sight: Sight, since: float) -> list[tuple[float, Job]]:
    """(when, job) for the latest of those that changed at `since` or later, oldest change first."""
    statement, values = sight.within(CHANGED)
    rows = session.execute(statement, values | {"tenant": scope.tenant, "since": since}).mappings().all()[::-1]
    return [(row["updated_at"], job) for row, job in zip(rows, _with_children(session, rows), strict=True)]


def events_after(
    session: Session, scope: Scope, job_id: str, after: EventId, sight: Sight
) -> tuple[list[JobEvent], int, bool]:
    """What is stored after `after` (a page of it), the job's attempt and whether it has ended. Raises Missing."""
    row = find(session, scope, job_id, sight)
    found = session.execute(
        EVENTS, {"tenant": scope.tenant, "id": job_id, "attempt": after.attempt, "seq": after.seq}
    ).all()
    events = [JobEvent(EventId(each.attempt, each.seq), each.type, msgspec.json.decode(each.data)) for each in found]
    return events, row["attempt"], row["finished_at"] is not None


def _with_children(session: Session, rows: Iterable[RowMapping]) -> list[Job]:
    rows = list(rows)
    counts = children_of(session, [row["id"] for row in rows])
    return [job_of(row, counts.get(row["id"])) for row in rows]


def children_of(session: Session, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    if ids:
        for row in session.execute(CHILDREN, {"ids": list(ids)}):
            counts.setdefault(row.parent_id, {})[row.state] = row.n
    return counts
