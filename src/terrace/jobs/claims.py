"""Who runs what: fair claiming, leases, heartbeats, and the workers that hold them.

Claiming asks the index of queued jobs once for each tenant that has any (a skip scan), so its cost depends on the
number of tenants and of free slots, never on how many jobs wait. On PostgreSQL one worker claims at a time, so that the
caps hold whoever else claims.

Work in bulk (a priority below zero) leaves a part of the slots, and of its tenant's share, to everything else: who asks
something while ten thousand messages are written finds a place at once.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Row, bindparam, text
from sqlmodel import Session

from terrace.jobs.base import Lane
from terrace.jobs.journal import Journal, stored
from terrace.jobs.outlook import alone, alone_with_outlook
from terrace.jobs.statements import Locking, Many, is_postgresql
from terrace.types import Scope, now

PROMOTE_BATCH = 1000
BULK_SHARE = 0.8  # of the slots, and of a tenant's cap, that jobs of a priority below zero may fill

DUE = Locking(
    f"SELECT id FROM jobs WHERE state = 'waiting' AND run_at <= :now ORDER BY run_at LIMIT {PROMOTE_BATCH}", skip=True
)
PROMOTE = text(
    "UPDATE jobs SET state = 'queued', updated_at = :now WHERE id IN :ids AND state = 'waiting' AND run_at <= :now "
    "RETURNING tenant_id"
).bindparams(bindparam("ids", expanding=True))
RUNNING_OF = text("SELECT COUNT(*) FROM jobs WHERE state = 'running' AND tenant_id = :tenant")
HEAD = (
    "id, tenant_id, user_id, key_id, kind, lane, attempt + 1 AS attempt, failures, crashes, run_at, parent_id, "
    "payload, priority"
)
HEADS = text(
    f"SELECT {HEAD} FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = :tenant "
    "ORDER BY priority DESC, run_at, id LIMIT :count"
)
HEADS_OF_ONE = Locking(HEADS.text, skip=True)
HEADS_OF_ALL = text(  # the same for all tenants at once, where each statement is a round trip
    "SELECT head.* FROM unnest(CAST(:tenants AS text[]), CAST(:counts AS integer[])) AS share(tenant, count) "
    f"CROSS JOIN LATERAL (SELECT {HEAD} FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = share.tenant "
    "ORDER BY priority DESC, run_at, id LIMIT share.count FOR NO KEY UPDATE SKIP LOCKED) AS head"
)
NAMED = Locking(f"SELECT {HEAD} FROM jobs WHERE id = :id AND state = 'queued'", skip=True)
_TAKEN = (
    "state = 'running', attempt = attempt + 1, worker_id = {0}worker, lease_until = {0}lease_until, "
    "started_at = {0}now, updated_at = {0}now, progress = NULL"
)
TAKE = Many(
    f"UPDATE jobs SET {_TAKEN.format(':')} WHERE id = :id",
    f"UPDATE jobs SET {_TAKEN.format('given.')} FROM {{rows}} WHERE jobs.id = given.id",
    id="text", worker="text", lease_until="double precision", now="double precision",
)  # fmt: skip
BEAT = text("UPDATE jobs SET lease_until = :lease_until WHERE id IN :ids RETURNING id, cancel_requested").bindparams(
    bindparam("ids", expanding=True)
)
HELD = Locking(
    "SELECT id, attempt, EXISTS (SELECT 1 FROM jobs AS child WHERE child.parent_id = jobs.id) AS has_children "
    "FROM jobs WHERE id IN :ids AND state = 'running' AND worker_id = :worker ORDER BY id", "ids"
)  # fmt: skip


class Claimed(NamedTuple):
    """A job that is ours to run until its lease ends; its fields are HEAD's."""

    id: str
    tenant: str
    user: str | None
    key: str | None
    kind: str
    lane: Lane
    attempt: int
    failures: int
    crashes: int
    run_at: float
    parent_id: str | None
    payload: str
    priority: int = 0

    @property
    def scope(self) -> Scope:
        """On whose behalf it runs."""
        return Scope(self.tenant, self.user, self.key, self.id)


class Taken(NamedTuple):
    """What a claim brings."""

    jobs: list[Claimed]
    due: float | None  # when the next delayed job may run
    cancelling: list[str]  # jobs of this worker that shall stop


@dataclass(slots=True)
class Turns:
    """Who was served when, so that tenants with equally many running jobs take turns."""

    clock: int = 0
    last: dict[str, int] = field(default_factory=dict)

    def serve(self, tenant: str) -> int:
        self.clock += 1
        self.last[tenant] = self.clock
        return self.clock

    def keep(self, tenants: Iterable[str]) -> None:
        """Forget those who wait for nothing: they come first when they return."""
        self.last = {tenant: self.last[tenant] for tenant in tenants if tenant in self.last}


def share(slots: int, tenants: Iterable[str], running: Mapping[str, int], cap: int, turns: Turns) -> dict[str, int]:
    """Slots for each tenant: the one with the fewest running first, no one beyond `cap`."""
    heap = [(running.get(each, 0), turns.last.get(each, 0), each) for each in tenants if running.get(each, 0) < cap]
    heapq.heapify(heap)
    shares: dict[str, int] = {}
    while slots and heap:
        count, _, tenant = heapq.heappop(heap)
        shares[tenant] = shares.get(tenant, 0) + 1
        slots -= 1
        turn = turns.serve(tenant)
        if count + 1 < cap:
            heapq.heappush(heap, (count + 1, turn, tenant))
    return shares


def bulk_share(places: int) -> int:
    """Of so many places, those that bulk may fill; of a single one all."""
    return max(1, round(places * BULK_SHARE))


def claim(
    session: Session,
    journal: Journal,
    *,
    worker: str,
    free: Mapping[Lane, int],
    cap: int,
    lease: float,
    turns: Mapping[Lane, Turns],
    bulk: Mapping[Lane, int] | None = None,
) -> Taken:
    """Take at most `free` jobs of each lane, of a priority below zero at most `bulk` (where it is told).

    Delayed jobs whose time has come are queued first."""
    moment = now()
    lanes = [lane for lane, slots in free.items() if slots]
    seen = alone_with_outlook(session, worker, lanes)
    if seen.due is not None and seen.due <= moment:
        promote(session, journal, moment)
        seen = alone_with_outlook(session, worker, lanes)
    claimed: list[Claimed] = []
    for lane in lanes:
        slots, tenants = free[lane], seen.tenants[lane]
        turns[lane].keep(tenants)
        bulk_left = slots if bulk is None else bulk.get(lane, slots)
        while shares := share(slots, tenants, seen.running, cap, turns[lane]):
            heads = _heads(session, lane, shares)
            found: list[Claimed] = []
            for tenant, count in shares.items():
                running = seen.running.get(tenant, 0)
                most = min(bulk_left, max(0, bulk_share(cap) - running))
                jobs, taken_bulk = _without_bulk(heads.get(tenant, ()), most)
                bulk_left -= taken_bulk
                seen.running[tenant] = running + len(jobs)
                if len(jobs) < count:
                    tenants.discard(tenant)
                found += jobs
            _take(session, journal, found, worker, moment + lease)
            slots -= len(found)
            claimed += found
    return Taken(claimed, seen.due, seen.cancelling)


def claim_one(
    session: Session, journal: Journal, job_id: str, *, worker: str, cap: int, lease: float
) -> Claimed | None:
    """Take this very job; None when it isn't queued any more, or its tenant has as many running as it may."""
    alone(session)
    row = session.execute(NAMED.on(session), {"id": job_id}).first()
    if row is None or session.execute(RUNNING_OF, {"tenant": row.tenant_id}).scalar_one() >= cap:
        return None
    job = Claimed._make(row)
    _take(session, journal, [job], worker, now() + lease)
    return job


def promote(session: Session, journal: Journal, moment: float) -> None:
    """Queue delayed jobs whose time has come."""
    due = list(session.execute(DUE.on(session), {"now": moment}).scalars())
    if due:
        journal.notice.tenants.update(session.execute(PROMOTE, {"ids": due, "now": moment}).scalars())


def beat(session: Session, worker: str, pairs: Sequence[tuple[str, int]], lease: float) -> dict[str, bool]:
    """Prolong the leases of (job, attempt); of each one still held: whether it shall be cancelled."""
    ids = [job_id for job_id, _ in held(session, worker, pairs)]
    rows = session.execute(BEAT, {"ids": ids, "lease_until": now() + lease}) if ids else ()
    return {row.id: bool(row.cancel_requested) for row in rows}


def held(session: Session, worker: str, pairs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bool]:
    """The fence: which of these (job, attempt) this worker still owns, and will until the transaction ends; and whether
    the job has children."""
    ids = [job_id for job_id, _ in pairs]
    if not ids:
        return {}
    rows = session.execute(HELD.on(session), {"ids": ids, "worker": worker}).all()
    found = {(job_id, attempt): bool(has_children) for job_id, attempt, has_children in rows}
    return {pair: found[pair] for pair in pairs if pair in found}


def _heads(session: Session, lane: Lane, shares: Mapping[str, int]) -> dict[str, list[Row[Any]]]:
    """Each tenant's next jobs, as many as its share."""
    if len(shares) == 1 or not is_postgresql(session):
        return {
            tenant: list(session.execute(HEADS_OF_ONE.on(session), {"lane": lane, "tenant": tenant, "count": count}))
            for tenant, count in shares.items()
        }
    wanted = {"lane": lane, "tenants": list(shares), "counts": list(shares.values())}
    heads: dict[str, list[Row[Any]]] = {}
    for row in session.execute(HEADS_OF_ALL, wanted):
        heads.setdefault(row.tenant_id, []).append(row)
    return heads


def _without_bulk(rows: Sequence[Row[Any]], most: int) -> tuple[list[Claimed], int]:
    """A tenant's next jobs, and how many of them are bulk: they come last, and no more than `most`."""
    urgent = sum(row.priority >= 0 for row in rows)
    rows = rows[: urgent + most]
    return [Claimed._make(row) for row in rows], max(0, len(rows) - urgent)


def _take(session: Session, journal: Journal, jobs: Sequence[Claimed], worker: str, lease_until: float) -> None:
    """What we found: nobody else can have taken it since.

    Each attempt's first event: `state` for the first, `reset` for a later one, which voids what came before.
    """
    moment, taken, logs = now(), [], []
    for job in jobs:
        taken.append({"id": job.id, "worker": worker, "lease_until": lease_until, "now": moment})
        data = {"state": "running", "attempt": job.attempt}
        type = "state" if job.attempt == 1 else "reset"
        logs.append((job.tenant, job.id, [stored(job.attempt, 0, type, data)]))
    journal.extend(logs, beside=(TAKE, taken))
    journal.notice.tenants.update(job.tenant for job in jobs)
