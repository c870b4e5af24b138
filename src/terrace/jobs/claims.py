"""Who runs what: fair claiming, leases, heartbeats, and the workers that hold them.

Claiming asks the index of queued jobs once for each tenant that has any (a skip scan), so its cost depends on the
number of tenants and of free slots, never on how many jobs wait.

Work in bulk (a priority below zero) leaves a part of the slots, and of its tenant's share, to everything else: who asks
something while ten thousand messages are written finds a place at once.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import bindparam, text
from sqlmodel import Session

from terrace.jobs.base import Lane
from terrace.jobs.journal import Journal, stored
from terrace.types import Scope, now

PROMOTE_BATCH = 1000
BULK_SHARE = 0.8  # of the slots, and of a tenant's cap, that jobs of a priority below zero may fill
PAIRS = 500  # (id, attempt) pairs in one statement

PROMOTE = text(
    "UPDATE jobs SET state = 'queued', updated_at = :now WHERE id IN ("
    f"SELECT id FROM jobs WHERE state = 'waiting' AND run_at <= :now ORDER BY run_at LIMIT {PROMOTE_BATCH}) "
    "RETURNING tenant_id"
)
NEXT_DUE = text("SELECT run_at FROM jobs WHERE state = 'waiting' AND run_at IS NOT NULL ORDER BY run_at LIMIT 1")
TENANTS = text(
    "WITH RECURSIVE waiting(tenant) AS ("
    "SELECT (SELECT tenant_id FROM jobs WHERE state = 'queued' AND lane = :lane ORDER BY tenant_id LIMIT 1) "
    "UNION ALL SELECT (SELECT tenant_id FROM jobs WHERE state = 'queued' AND lane = :lane "
    "AND tenant_id > waiting.tenant ORDER BY tenant_id LIMIT 1) FROM waiting WHERE waiting.tenant IS NOT NULL) "
    "SELECT tenant FROM waiting WHERE tenant IS NOT NULL"
)
RUNNING = text("SELECT tenant_id, COUNT(*) AS n FROM jobs WHERE state = 'running' GROUP BY tenant_id")
HEADS = text(
    "SELECT id, tenant_id, user_id, key_id, kind, attempt, failures, crashes, run_at, parent_id, payload, priority "
    "FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = :tenant "
    "ORDER BY priority DESC, run_at, id LIMIT :limit"
)
TAKE = text(
    "UPDATE jobs SET state = 'running', attempt = :attempt, worker_id = :worker, lease_until = :lease_until, "
    "started_at = :now, updated_at = :now, progress = NULL WHERE id = :id AND state = 'queued'"
)
BEAT = (
    "UPDATE jobs SET lease_until = :lease_until WHERE (id, attempt) IN (VALUES {pairs}) AND state = 'running' "
    "AND worker_id = :worker RETURNING id, cancel_requested"
)
CANCELLING = text("SELECT id FROM jobs WHERE state = 'running' AND worker_id = :worker AND cancel_requested")
HELD = text("SELECT id, attempt FROM jobs WHERE id IN :ids AND state = 'running' AND worker_id = :worker").bindparams(
    bindparam("ids", expanding=True)
)


class Claimed(NamedTuple):
    """A job that is ours to run until its lease ends."""

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

    @property
    def scope(self) -> Scope:
        """On whose behalf it runs."""
        return Scope(self.tenant, self.user, self.key, self.id)


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
) -> list[Claimed]:
    """Take at most `free` jobs of each lane, of a priority below zero at most `bulk` (where it is told).

    Delayed jobs whose time has come are queued first."""
    moment = now()
    journal.notice.tenants.update(session.execute(PROMOTE, {"now": moment}).scalars())
    claimed: list[Claimed] = []
    running: dict[str, int] | None = None
    for lane, slots in free.items():
        tenants = set(session.execute(TENANTS, {"lane": lane}).scalars()) if slots else set()
        if not tenants:
            continue
        turns[lane].keep(tenants)
        if running is None:
            running = {row.tenant_id: row.n for row in session.execute(RUNNING)}
        bulk_left = slots if bulk is None else bulk.get(lane, slots)
        while shares := share(slots, tenants, running, cap, turns[lane]):
            taken = 0
            for tenant, count in shares.items():
                most = min(bulk_left, max(0, bulk_share(cap) - running.get(tenant, 0)))
                found, taken_bulk = _heads(session, lane, tenant, count, most)
                bulk_left -= taken_bulk
                running[tenant] = running.get(tenant, 0) + len(found)
                taken += len(found)
                if len(found) < count:
                    tenants.discard(tenant)
                claimed += found
                _take(session, found, worker, moment + lease, moment)
            slots -= taken
    _announce(journal, claimed)
    return claimed


def next_due(session: Session) -> float | None:
    """When the next delayed job may run."""
    due = session.execute(NEXT_DUE).scalar()
    return None if due is None else float(due)


def beat(session: Session, worker: str, pairs: Sequence[tuple[str, int]], lease: float) -> dict[str, bool]:
    """Prolong the leases of (job, attempt); of each one still held: whether it shall be cancelled."""
    held: dict[str, bool] = {}
    for start in range(0, len(pairs), PAIRS):
        part = pairs[start : start + PAIRS]
        marks = ", ".join(f"(:i{n}, :a{n})" for n in range(len(part)))
        values: dict[str, object] = {"lease_until": now() + lease, "worker": worker}
        for n, (job_id, attempt) in enumerate(part):
            values |= {f"i{n}": job_id, f"a{n}": attempt}
        rows = session.execute(text(BEAT.format(pairs=marks)), values)
        held |= {row.id: bool(row.cancel_requested) for row in rows}
    return held


def held(session: Session, worker: str, pairs: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """The fence: which of these (job, attempt) this worker still owns."""
    rows = session.execute(HELD, {"ids": [job_id for job_id, _ in pairs], "worker": worker})
    return {(row.id, row.attempt) for row in rows} & set(pairs)


def cancelling(session: Session, worker: str) -> list[str]:
    """This worker's jobs that shall stop."""
    return list(session.execute(CANCELLING, {"worker": worker}).scalars())


def _heads(session: Session, lane: Lane, tenant: str, count: int, bulk: int) -> tuple[list[Claimed], int]:
    """A tenant's next jobs, and how many of them are bulk: they come last, and no more than `bulk`."""
    rows = session.execute(HEADS, {"lane": lane, "tenant": tenant, "limit": count}).all()
    urgent = sum(row.priority >= 0 for row in rows)
    rows = rows[: urgent + bulk]
    return [
        Claimed(
            row.id, row.tenant_id, row.user_id, row.key_id, row.kind, lane, row.attempt + 1,
            row.failures, row.crashes, row.run_at, row.parent_id, row.payload,
        )
        for row in rows
    ], len(rows) - urgent  # fmt: skip


def _take(session: Session, jobs: Sequence[Claimed], worker: str, lease_until: float, moment: float) -> None:
    if jobs:
        fixed = {"worker": worker, "lease_until": lease_until, "now": moment}
        session.execute(TAKE, [{"id": job.id, "attempt": job.attempt, **fixed} for job in jobs])


def _announce(journal: Journal, claimed: Sequence[Claimed]) -> None:
    """Each attempt's first event: `state` for the first, `reset` for a later one, which voids what came before."""
    logs = []
    for job in claimed:
        data = {"state": "running", "attempt": job.attempt}
        type = "state" if job.attempt == 1 else "reset"
        logs.append((job.tenant, job.id, [stored(job.attempt, 0, type, data)]))
    journal.extend(logs)
    journal.notice.tenants.update(job.tenant for job in claimed)
