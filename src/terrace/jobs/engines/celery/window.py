"""What is published and not begun: about twice what the workers can run, in the order in which it shall begin.

The broker never holds the backlog, so that a job that comes later and is more urgent does not wait behind it. A message
may be lost with the broker or a worker; then its row stays queued, and it is published again after a while.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import bindparam, text
from sqlmodel import Session

from terrace.jobs import claims, outlook
from terrace.jobs.base import Lane
from terrace.jobs.claims import Turns
from terrace.jobs.engines.celery.serving import Workers
from terrace.jobs.journal import Journal
from terrace.types import now

DEPTH = 2  # published jobs for each slot
AGAIN_FACTOR = 2.0  # a message may only wait behind others: each time it is given longer before it counts as lost
AGAIN_MAX = 60  # times the first wait
SLICE = 500  # ids in one statement

STILL = text("SELECT id, attempt FROM jobs WHERE id IN :ids AND state = 'queued'").bindparams(
    bindparam("ids", expanding=True)
)
HEADS = text(
    "SELECT id, kind, attempt, priority FROM jobs WHERE state = 'queued' AND lane = :lane AND tenant_id = :tenant "
    "ORDER BY priority DESC, run_at, id LIMIT :count"
)
RUNNING_BULK = text("SELECT lane, COUNT(*) AS n FROM jobs WHERE state = 'running' AND priority < 0 GROUP BY lane")


class Message(NamedTuple):
    """On its way, as far as we know."""

    job_id: str
    attempt: int  # attempts there had been: one that is queued anew needs another message
    kind: str
    lane: Lane
    tenant: str
    bulk: bool
    wait: float  # seconds until it counts as lost
    lost_at: float  # by a monotonic clock


class Plan(NamedTuple):
    publish: list[Message]
    on_way: dict[str, Message]  # then
    due: float | None  # when the next delayed job may run, seconds since the epoch


class Window:
    """Knows what is on its way. `patience` is for how many seconds a message counts as so the first time."""

    def __init__(self, cap: int, patience: float) -> None:
        self._cap = cap
        self._patience = patience
        self._turns: dict[Lane, Turns] = {"io": Turns(), "cpu": Turns()}
        self._on_way: dict[str, Message] = {}

    def keep(self, plan: Plan) -> None:
        """The plan was carried out."""
        self._on_way = plan.on_way

    def lose(self) -> None:
        """The broker was away: whatever it held may be gone."""
        self._on_way = {}

    def plan(self, session: Session, journal: Journal, workers: Workers, at: float) -> Plan:
        """What to publish now: what seems lost, then what comes next. Where nobody serves a lane, messages only wait.

        Delayed jobs whose time has come are queued first.
        """
        claims.promote(session, journal, now())
        still = _still(session, self._on_way)
        on_way = {each: message for each, message in self._on_way.items() if still.get(each) == message.attempt}
        late = [each for each in on_way.values() if each.lost_at <= at and each.lane in workers.serve]
        publish = [self._again(message, at) for message in late]
        on_way.update((message.job_id, message) for message in publish)
        running = Counter({row.tenant_id: row.n for row in session.execute(outlook.RUNNING)})
        bulk = Counter({row.lane: row.n for row in session.execute(RUNNING_BULK)})
        running.update(message.tenant for message in on_way.values())
        bulk.update(message.lane for message in on_way.values() if message.bulk)
        for lane, count in workers.slots.items():
            most = claims.bulk_share(count) - bulk[lane]
            publish += self._next(session, lane, count, most, running, on_way, at)
        return Plan(publish, on_way, outlook.next_due(session))

    def _again(self, message: Message, at: float) -> Message:
        wait = min(message.wait * AGAIN_FACTOR, self._patience * AGAIN_MAX)
        return message._replace(wait=wait, lost_at=at + wait)

    def _next(
        self,
        session: Session,
        lane: Lane,
        slots: int,
        bulk: int,
        running: Counter[str],
        on_way: dict[str, Message],
        at: float,
    ) -> list[Message]:
        """The coming jobs of a lane, tenants in turn as `claims.claim` has them, of bulk at most `bulk`."""
        known = Counter(message.tenant for message in on_way.values() if message.lane == lane)
        free = slots * DEPTH - known.total()
        tenants = set(session.execute(outlook.TENANTS, {"lane": lane}).scalars()) if free > 0 else set()
        turns = self._turns[lane]
        turns.keep(tenants)
        chosen: list[Message] = []
        while free > 0 and (shares := claims.share(free, tenants, running, self._cap, turns)):
            for tenant, count in shares.items():
                wanted = {"lane": lane, "tenant": tenant, "count": count + known[tenant]}
                rows = [row for row in session.execute(HEADS, wanted) if row.id not in on_way][:count]
                urgent = [row for row in rows if row.priority >= 0]
                most = max(0, min(bulk, claims.bulk_share(self._cap) - running[tenant]))
                taken = rows[: len(urgent) + most]
                bulk -= len(taken) - len(urgent)
                for row in taken:
                    wait = self._patience
                    message = Message(row.id, row.attempt, row.kind, lane, tenant, row.priority < 0, wait, at + wait)
                    on_way[row.id] = message
                    chosen.append(message)
                running[tenant] += len(taken)
                known[tenant] += len(taken)
                free -= len(taken)
                if len(taken) < count:
                    tenants.discard(tenant)
        return chosen


def _still(session: Session, ids: Iterable[str]) -> dict[str, int]:
    """Which of the jobs are queued, and after how many attempts."""
    wanted: Sequence[str] = list(ids)
    parts = (wanted[start : start + SLICE] for start in range(0, len(wanted), SLICE))
    return {row.id: row.attempt for part in parts for row in session.execute(STILL, {"ids": part})}
