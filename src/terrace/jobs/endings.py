"""How an attempt ends and what follows: success, retry, dead letter, cancelling, parents, work of the dead.

Every function runs inside the caller's transaction and tells the journal what it did.
"""

import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import RowMapping, bindparam, text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from terrace import settings
from terrace.errors import Conflict, TerraceError
from terrace.jobs.base import FINAL, Job, JobError, JobKind, Keep, Kept, OnDead, State
from terrace.jobs.claims import Claimed
from terrace.jobs.journal import MAX_RESULT, Journal, encode, stored
from terrace.jobs.sight import EVERYTHING, Sight
from terrace.jobs.statements import Locking, Many
from terrace.jobs.store import SELECT, children_of, find, read
from terrace.types import Scope, now

log = logging.getLogger(__name__)

RECOVER_BATCH = 500

SETTLED = (
    "state = {0}state, run_at = {0}run_at, failures = {0}failures, crashes = {0}crashes, dead = {0}dead, "
    "result = {0}result, error = {0}error, finished_at = {0}finished_at, updated_at = {0}now, worker_id = NULL, "
    "lease_until = NULL"
)
SETTLE = Many(
    f"UPDATE jobs SET {SETTLED.format(':')} WHERE id = :id AND attempt = :attempt AND state = 'running'",
    f"UPDATE jobs SET {SETTLED.format('given.')} FROM {{rows}} "
    "WHERE jobs.id = given.id AND jobs.attempt = given.attempt AND jobs.state = 'running'",
    id="text", attempt="integer", state="text", run_at="double precision", failures="integer", crashes="integer",
    dead="boolean", result="text", error="text", finished_at="double precision", now="double precision",
)  # fmt: skip
MOVE = text(
    "UPDATE jobs SET state = :state, run_at = :run_at, result = :result, error = :error, "
    "finished_at = :finished_at, updated_at = :now WHERE id = :id"
)
FLAG = text("UPDATE jobs SET cancel_requested = :yes, updated_at = :now WHERE id = :id")
PROGRESS = text("UPDATE jobs SET progress = :progress, updated_at = :now WHERE id = :id")
AGAIN = text(
    "UPDATE jobs SET state = :state, run_at = :run_at, failures = 0, crashes = 0, dead = :no, cancel_requested = :no, "
    "result = NULL, error = NULL, progress = NULL, finished_at = NULL, updated_at = :now WHERE id = :id"
)
CHILDREN_IN = text("SELECT id FROM jobs WHERE parent_id = :id AND state IN :states ORDER BY id").bindparams(
    bindparam("states", expanding=True)
)
RUNNING = f"{SELECT} WHERE state = 'running' AND"
EXPIRED = Locking(f"{RUNNING} lease_until < :now LIMIT {RECOVER_BATCH}", skip=True)
HELD_BY = Locking(f"{RUNNING} worker_id IN :workers LIMIT {RECOVER_BATCH}", "workers", skip=True)
AT_WORK = Locking(f"{SELECT} WHERE id = :id")
CHILDLESS = text(f"{SELECT} WHERE state = 'waiting' AND run_at IS NULL AND updated_at < :before LIMIT {RECOVER_BATCH}")


@dataclass(slots=True)
class Rules:
    """What decides over retries: the settings and what each kind declares; and who else is told of ends."""

    kinds: Mapping[str, JobKind]
    settings: settings.Jobs
    on_final: OnDead | None = None
    tells_final: Callable[[Session, Scope, str], bool] = lambda session, scope, kind: True

    def max_failures(self, kind: str) -> int:
        declared = self.kinds[kind].max_failures if kind in self.kinds else None
        return self.settings.max_failures if declared is None else declared

    def max_crashes(self, kind: str) -> int:
        declared = self.kinds[kind].max_crashes if kind in self.kinds else None
        return self.settings.max_crashes if declared is None else declared

    def backoff(self, failures: int) -> float:
        """Seconds before the next try: doubling, between half and one and a half of it, bounded."""
        grown = self.settings.backoff * 2.0 ** min(failures - 1, 32)
        return float(min(grown, self.settings.backoff_max) * random.uniform(0.5, 1.5))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended: a final state, `waiting` (it is retried at `run_at`) or `queued` (it was released)."""

    state: State
    result: str | None = None
    error: JobError | None = None
    run_at: float | None = None
    failed: bool = False  # counts as a failure
    crashed: bool = False  # its worker died
    commit: Callable[[Session], Any] | None = None
    kept: Any = None


class CommitFailed(Exception):
    """A handler's `Done.commit` raised its cause: not the database's fault, so the attempt has failed."""


class Ending(NamedTuple):
    job: Claimed
    outcome: Outcome
    seq: int  # of the event that says so
    has_children: bool | None = None  # None: nobody has looked since it may have got some


def settle(session: Session, journal: Journal, rules: Rules, endings: Sequence[Ending]) -> None:
    """End attempts whose fence was checked in this transaction. Raises CommitFailed."""
    moment = now()
    for ending in endings:
        if ending.outcome.commit is not None:
            _commit(session, ending.outcome.commit)
    _keep(session, rules, endings)
    families = _families(session, endings)
    logs, parents = [], []
    for job, outcome, seq, _ in endings:
        state: State = "waiting" if job.id in families else outcome.state
        type, data = _event(state, outcome.error, outcome.run_at)
        logs.append((job.tenant, job.id, [stored(job.attempt, seq, type, data)]))
        journal.notice.tenants.add(job.tenant)
        journal.notice.queued |= state in ("queued", "waiting")
        if state in FINAL and job.parent_id is not None:
            parents.append((job.tenant, job.parent_id))
        elif job.id in families:
            parents.append((job.tenant, job.id))
    settled = [_settled(job, outcome, moment, job.id in families) for job, outcome, _, _ in endings]
    journal.extend(logs, beside=(SETTLE, settled))
    for job, outcome, _, _ in endings:
        _after_end(session, rules, job.scope, job.kind, job.id, outcome.state)
        if job.parent_id is None and job.id not in families:
            _final(session, rules, job.scope, job.kind, job.id, outcome.state)
    advance(session, journal, rules, parents)


def _families(session: Session, endings: Sequence[Ending]) -> set[str]:
    """Which of those that succeeded have children."""
    succeeded = [ending for ending in endings if ending.outcome.state == "succeeded"]
    known = {ending.job.id for ending in succeeded if ending.has_children}
    return known | children_of(session, [each.job.id for each in succeeded if each.has_children is None]).keys()


def _keep(session: Session, rules: Rules, endings: Sequence[Ending]) -> None:
    """What jobs of one kind leave to be written, all of them at once."""
    kept: dict[str, list[Kept]] = {}
    for job, outcome, _, _ in endings:
        if outcome.kept is not None:
            kept.setdefault(job.kind, []).append(Kept(job.scope, job.id, outcome.kept))
    for kind, values in kept.items():
        if (keep := rules.kinds[kind].keep) is not None:
            _commit(session, partial(_kept, keep, values))


def _kept(keep: Keep, values: Sequence[Kept], session: Session) -> None:
    keep(session, values)


def _commit(session: Session, commit: Callable[[Session], Any]) -> None:
    try:
        commit(session)
        session.flush()
    except OperationalError:
        raise
    except Exception as error:
        raise CommitFailed from error


def _settled(job: Claimed, outcome: Outcome, moment: float, has_children: bool) -> dict[str, Any]:
    return {
        "id": job.id,
        "attempt": job.attempt,
        "state": "waiting" if has_children else outcome.state,
        "run_at": None if has_children else outcome.run_at if outcome.run_at is not None else job.run_at,
        "failures": job.failures + outcome.failed,
        "crashes": job.crashes + outcome.crashed,
        "dead": outcome.state == "failed",
        "result": outcome.result,
        "error": _error_text(outcome.error),
        "finished_at": moment if outcome.state in FINAL and not has_children else None,
        "now": moment,
    }


def _error_text(error: JobError | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


def _event(state: State, error: JobError | None, retry_at: float | None = None) -> tuple[str, dict[str, Any]]:
    data: dict[str, Any] = {"state": state}
    if error is not None:
        data["error"] = {"kind": error.kind, "code": error.code, "message": error.message}
    if retry_at is not None:
        data["retry_at"] = retry_at
    return ("done" if state in FINAL else "state"), data


def _after_end(session: Session, rules: Rules, scope: Scope, kind: str, job_id: str, state: State) -> None:
    """The room's own rows say it too, in the same transaction. If that fails the job ends all the same."""
    declared = rules.kinds.get(kind)
    if declared is not None and declared.on_end is not None and state in ("failed", "cancelled"):
        _tell(session, "on_end", declared.on_end, scope, job_id)


def _final(session: Session, rules: Rules, scope: Scope, kind: str, job_id: str, state: State) -> None:
    """Whoever listens to ends hears of this top-level job, in the same transaction."""
    if rules.on_final is not None and state in FINAL and rules.tells_final(session, scope, kind):
        _tell(session, "on_final", rules.on_final, scope, job_id)


def _tell(session: Session, name: str, tell: OnDead, scope: Scope, job_id: str) -> None:
    try:
        with session.begin_nested():
            tell(session, scope, read(session, scope, job_id))
    except OperationalError:
        raise  # the database cannot take it now: the whole transaction is tried again
    except Exception:
        log.exception("%s of job %s failed", name, job_id)


# -- parents


def advance(session: Session, journal: Journal, rules: Rules, parents: Iterable[tuple[str, str]]) -> None:
    """Parents of jobs that ended: tell how far they are; the last child lets its parent go on or end."""
    todo = list(dict.fromkeys(parents))
    while todo:
        tenant, parent_id = todo.pop()
        parent = find(session, Scope(tenant), parent_id)
        kind = rules.kinds.get(parent["kind"])
        if kind is not None and kind.concludes:
            continue  # its room says when it is over; counting at each end would take longer with every child
        if parent["state"] == "running":  # it may be ending at this moment, and must count us or we it
            parent = session.execute(AT_WORK.on(session), {"id": parent_id}).mappings().one()
        if parent["state"] != "waiting" or parent["run_at"] is not None:
            continue  # it has ended, or its handler is still at work and settles this itself
        counts = children_of(session, [parent_id]).get(parent_id, {})
        _parent_progress(session, journal, parent, counts)
        if any(state not in FINAL for state in counts):
            continue
        if kind is not None and kind.handler is not None and parent["attempt"] == 0:
            _move(session, journal, parent, "queued", None, None)
            journal.notice.queued = True
            continue
        state, error = _verdict(counts)
        result = (msgspec.json.decode(parent["result"]) if parent["result"] else {}) | {"children": counts}
        _move(session, journal, parent, state, encode(result, MAX_RESULT + 1024, "result"), error)
        _after_end(session, rules, _scope(parent), parent["kind"], parent_id, state)
        if parent["parent_id"] is not None:
            todo.append((tenant, parent["parent_id"]))
        else:
            _final(session, rules, _scope(parent), parent["kind"], parent_id, state)


def conclude(
    session: Session, journal: Journal, rules: Rules, scope: Scope, job_id: str, result: Mapping[str, Any]
) -> None:
    """A parent that waits has succeeded: the room of its kind says so. One that has ended stays as it is."""
    parent = find(session, scope, job_id)
    if parent["state"] == "waiting" and parent["run_at"] is None:
        _move(session, journal, parent, "succeeded", encode(dict(result), MAX_RESULT, "result"), None)
        if parent["parent_id"] is None:
            _final(session, rules, _scope(parent), parent["kind"], job_id, "succeeded")


def tell_progress(session: Session, journal: Journal, scope: Scope, job_id: str, done: int, total: int) -> None:
    """How far a parent is whose room concludes it; on the row, without an event."""
    data = msgspec.json.encode({"done": done, "total": total, "note": f"{done} of {total} parts"}).decode()
    session.execute(PROGRESS, {"id": job_id, "progress": data, "now": now()})
    journal.notice.tenants.add(scope.tenant)


def _verdict(counts: Mapping[str, int]) -> tuple[State, JobError | None]:
    """A parent fails when nothing of it succeeded; one without children has nothing that could fail."""
    if counts.get("succeeded") or not counts:
        return "succeeded", None
    if not counts.get("failed"):
        return "cancelled", None
    return "failed", JobError("internal", "children_failed", f"None of its {sum(counts.values())} parts succeeded.")


def _parent_progress(session: Session, journal: Journal, parent: RowMapping, counts: Mapping[str, int]) -> None:
    if not counts:
        return
    done, total = sum(n for state, n in counts.items() if state in FINAL), sum(counts.values())
    data: dict[str, Any] = {"done": done, "total": total, "note": f"{done} of {total} parts"}
    session.execute(PROGRESS, {"id": parent["id"], "progress": msgspec.json.encode(data).decode(), "now": now()})
    journal.append(parent["tenant_id"], parent["id"], parent["attempt"], "progress", data)
    journal.notice.tenants.add(parent["tenant_id"])


def _move(
    session: Session, journal: Journal, job: RowMapping, state: State, result: str | None, error: JobError | None
) -> None:
    """A job that is not running, into another state."""
    moment = now()
    session.execute(
        MOVE,
        {
            "id": job["id"],
            "state": state,
            "run_at": moment if state == "queued" else job["run_at"],
            "result": result,
            "error": _error_text(error) if error is not None else job["error"],
            "finished_at": moment if state in FINAL else None,
            "now": moment,
        },
    )
    journal.append(job["tenant_id"], job["id"], job["attempt"], *_event(state, error))
    journal.notice.tenants.add(job["tenant_id"])


# -- cancelling and retrying


def cancel(
    session: Session, journal: Journal, rules: Rules, scope: Scope, job_id: str, sight: Sight = EVERYTHING
) -> Job:
    """End it now, or flag it when it runs; then its children, then tell its parent."""
    job = find(session, scope, job_id, sight)
    parents = _cancel(session, journal, rules, scope, job)
    advance(session, journal, rules, parents)
    return read(session, scope, job_id)


def _cancel(session: Session, journal: Journal, rules: Rules, scope: Scope, job: RowMapping) -> list[tuple[str, str]]:
    if job["state"] in FINAL:
        return []
    if job["state"] == "running":
        session.execute(FLAG, {"id": job["id"], "yes": True, "now": now()})
        journal.notice.cancelling.append(job["id"])
        journal.notice.tenants.add(scope.tenant)
    else:
        _move(session, journal, job, "cancelled", job["result"], None)
        _after_end(session, rules, _scope(job), job["kind"], job["id"], "cancelled")
        if job["parent_id"] is None:
            _final(session, rules, _scope(job), job["kind"], job["id"], "cancelled")
    parents = [] if job["parent_id"] is None else [(scope.tenant, job["parent_id"])]
    open_states = ["queued", "waiting", "running"]
    for child in session.execute(CHILDREN_IN, {"id": job["id"], "states": open_states}).scalars().all():
        parents += _cancel(session, journal, rules, scope, find(session, scope, child))
    return parents


def retry(
    session: Session, journal: Journal, rules: Rules, scope: Scope, job_id: str, sight: Sight = EVERYTHING
) -> Job:
    """A failed or cancelled job from the start, its failed and cancelled children too.

    Raises Conflict when it is neither, and what its kind's `on_retry` raises.
    """
    job = find(session, scope, job_id, sight)
    if job["state"] not in ("failed", "cancelled"):
        raise Conflict(f"Only a failed or cancelled job can be retried; this one is {job['state']}.", code="not_failed")
    _retry(session, journal, rules, scope, job)
    advance(session, journal, rules, [(scope.tenant, job_id)])  # its children may all have been refused
    return read(session, scope, job_id)


def _retry(session: Session, journal: Journal, rules: Rules, scope: Scope, job: RowMapping) -> None:
    kind = rules.kinds.get(job["kind"])
    if kind is not None and kind.on_retry is not None:
        kind.on_retry(session, _scope(job), read(session, scope, job["id"]))
    children = session.execute(CHILDREN_IN, {"id": job["id"], "states": ["failed", "cancelled"]}).scalars().all()
    waits = (kind is not None and kind.handler is None) or (bool(children) and job["attempt"] == 0)
    state: State = "waiting" if waits else "queued"
    moment = now()
    session.execute(
        AGAIN, {"id": job["id"], "state": state, "run_at": None if waits else moment, "no": False, "now": moment}
    )
    journal.append(job["tenant_id"], job["id"], job["attempt"], *_event(state, None))
    journal.notice.tenants.add(job["tenant_id"])
    journal.notice.queued = True
    for child in children:
        with suppress(TerraceError):  # one that its room refuses stays as it is and stops no other
            _retry(session, journal, rules, scope, find(session, scope, child))


def tell_end(session: Session, journal: Journal, scope: Scope, job_id: str) -> None:
    """The `done` event of a job that has ended, for the doctor."""
    job = read(session, scope, job_id)
    journal.append(scope.tenant, job_id, job.attempt, *_event(job.state, job.error))


# -- work of the dead


def recover(session: Session, journal: Journal, rules: Rules, dead_workers: Sequence[str] = ()) -> int:
    """Take back what dead workers hold and what outlived its lease; returns how many."""
    rows = list(session.execute(EXPIRED.on(session), {"now": now()}).mappings())
    if dead_workers:
        rows += session.execute(HELD_BY.on(session), {"workers": list(dead_workers)}).mappings()
    jobs = {row["id"]: row for row in rows}
    endings = []
    for row in jobs.values():
        seq = journal.next_seq(row["tenant_id"], row["id"], row["attempt"])
        endings.append(Ending(_claimed(row), _crash(rules, row), seq))
    if endings:
        settle(session, journal, rules, endings)
    return len(endings)


def finish_childless(session: Session, journal: Journal, rules: Rules, before: float) -> int:
    """Parents that wait since `before` although no child of theirs is open; returns how many went on."""
    rows = session.execute(CHILDLESS, {"before": before}).mappings().all()
    families = children_of(session, [row["id"] for row in rows])
    stuck = [row for row in rows if not any(state not in FINAL for state in families.get(row["id"], {}))]
    advance(session, journal, rules, [(row["tenant_id"], row["id"]) for row in stuck])
    return len(stuck)


def _scope(job: RowMapping) -> Scope:
    return Scope(job["tenant_id"], job["user_id"], job["key_id"], job["id"])


def _claimed(row: RowMapping) -> Claimed:
    return Claimed(
        row["id"], row["tenant_id"], row["user_id"], row["key_id"], row["kind"], row["lane"], row["attempt"],
        row["failures"], row["crashes"], row["run_at"], row["parent_id"], row["payload"],
    )  # fmt: skip


def _crash(rules: Rules, row: RowMapping) -> Outcome:
    if row["cancel_requested"]:
        return Outcome("cancelled", crashed=True)
    if row["crashes"] + 1 >= rules.max_crashes(row["kind"]):
        message = (
            f"The process that ran it died {row['crashes'] + 1} times, so it is not tried again by itself. "
            "Try it again when the server runs steadily; its log may say what ended it."
        )
        return Outcome("failed", error=JobError("internal", "worker_died", message), crashed=True)
    return Outcome("queued", crashed=True)
