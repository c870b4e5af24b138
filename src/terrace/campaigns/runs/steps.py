"""How messages go from `waiting` to their end, a campaign's window kept full. Functions inside a transaction.

Nobody feeds a campaign but the transactions that end its messages (and those that start or resume it): what is at work
and what is counted change together or not at all, so whatever is killed leaves a campaign that goes on by itself.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Protocol

import msgspec
from sqlalchemy import RowMapping, String, bindparam, text
from sqlmodel import Session

from terrace.campaigns.runs.base import PRIORITY, WRITE, Emitter, MessageState, Reason
from terrace.errors import TerraceError
from terrace.jobs.base import Kept
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, now

REFILL = 8  # an eighth of the window free is fed in one go
IN_ROW = 20  # failures in a row after which a campaign waits for a person

TALLY = (
    "id, tenant_id, user_id, key_id, state, name, webhook, concurrency, job_id, total, writing, done, failed, skipped, "
    "in_row, seq, spent"
)
MESSAGES = text(
    "SELECT id, campaign_id, contact_id, state, job_id, reserved, attempt, cost, text IS NOT NULL AS written "
    "FROM campaign_messages WHERE tenant_id = :tenant AND id IN :ids"
).bindparams(bindparam("ids", expanding=True, type_=String))
BUMP = text(
    "UPDATE campaigns SET writing = writing - :ended, done = done + :done, failed = failed + :failed, "
    "skipped = skipped + :skipped, seq = seq + :ended - :waiting, spent = spent + :cost, "
    "reserved = reserved - :reserved, in_row = CASE WHEN :written > 0 THEN 0 ELSE in_row + :failed END, "
    "unpriced = unpriced + :unpriced, input_tokens = input_tokens + :input_tokens, "
    "output_tokens = output_tokens + :output_tokens, updated_at = :now "
    f"WHERE id = :id AND tenant_id = :tenant RETURNING {TALLY}"
)
_SPENT = (
    "cost = cost + :cost, reserved = 0, unpriced = unpriced + :unpriced, input_tokens = input_tokens + :input_tokens, "
    "output_tokens = output_tokens + :output_tokens"
)
END = text(
    "UPDATE campaign_messages SET state = :state, seq = :seq, text = :text, sources = :sources, model = :model, "
    f"error = :error, {_SPENT}, edited_at = NULL, approved_at = NULL, finished_at = :now WHERE id = :id"
)
END_AS_IT_WAS = text(
    f"UPDATE campaign_messages SET state = 'done', seq = :seq, error = :error, {_SPENT} WHERE id = :id"
)
HAND_BACK = text(f"UPDATE campaign_messages SET state = 'waiting', job_id = NULL, {_SPENT} WHERE id = :id")
NEXT = text(
    "SELECT id FROM campaign_messages WHERE campaign_id = :id AND state = 'waiting' AND tenant_id = :tenant "
    "ORDER BY id LIMIT :limit"
)
FED = text("UPDATE campaign_messages SET state = 'writing', job_id = :job WHERE id = :id")
WRITING = text(f"UPDATE campaigns SET writing = writing + :more WHERE id = :id RETURNING {TALLY}")
STATE = text(
    "UPDATE campaigns SET state = :state, reason = :reason, finished_at = :finished, updated_at = :now WHERE id = :id"
)
RESERVE = text(
    "UPDATE campaigns SET reserved = reserved + :amount WHERE id = :id AND tenant_id = :tenant "
    "AND (budget IS NULL OR spent + reserved + preview_reserved + :amount <= budget)"
)
RESERVED = text("UPDATE campaign_messages SET reserved = reserved + :amount, attempt = :attempt WHERE id = :id")
SETTLE_CAMPAIGN = text(
    "UPDATE campaigns SET spent = spent + :cost, reserved = reserved - :reserved, unpriced = unpriced + :unpriced, "
    "input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens "
    "WHERE id = :id AND tenant_id = :tenant"
)
SETTLE_MESSAGE = text(
    "UPDATE campaign_messages SET cost = cost + :cost, reserved = reserved - :reserved, "
    "unpriced = unpriced + :unpriced, input_tokens = input_tokens + :input_tokens, "
    "output_tokens = output_tokens + :output_tokens WHERE id = :id"
)

_encode = msgspec.json.Encoder().encode


class Queue(Protocol):
    """Jobs, as campaigns need them: `terrace.jobs.service.JobService` is one."""

    def enqueue_many(
        self,
        session: Session,
        scope: Scope,
        kind: str,
        payloads: list[dict[str, Any]],
        *,
        priority: int = 0,
        delay: float = 0.0,
        parent_id: str | None = None,
    ) -> list[str]: ...

    def conclude(self, session: Session, scope: Scope, job_id: str, result: dict[str, Any]) -> None: ...
    def tell_progress(self, session: Session, scope: Scope, job_id: str, done: int, total: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Spent:
    """What calls came to. `cost` in picodollars; `unpriced` calls are not in it."""

    cost: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


NOTHING = Spent()


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt at a message ends it: written, failed, skipped, or, not written, `waiting` again. `spent` None:
    whoever knew is dead, and all that was reserved counts as spent. `pauses`: for this error the campaign waits too."""

    message_id: str
    state: MessageState
    spent: Spent | None = NOTHING
    text: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    error: Reason | None = None
    pauses: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    """A message that its job had, and what becomes of it."""

    row: RowMapping
    ending: Ending

    @property
    def state(self) -> str:
        """One that was written again in vain keeps its text."""
        return "done" if self.row["written"] else self.ending.state

    @property
    def spent(self) -> Spent:
        return Spent(cost=self.row["reserved"]) if self.ending.spent is None else self.ending.spent


@dataclass(frozen=True, slots=True)
class Steps:
    """`told` hears which campaign changed."""

    jobs: Queue
    emitter: Emitter
    told: "Told"

    def keep(self, session: Session, kept: Sequence[Kept]) -> None:
        """What jobs that end together made of their messages: each `value` is an Ending. A message that its job no
        longer has stays as it is. Then the windows of their campaigns are filled."""
        for tenant, campaign_id, ended in _held_by(session, kept):
            tally = _bump(session, tenant, campaign_id, ended)
            _write(session, tally, ended)
            for each in ended:
                if each.ending.state != "waiting":
                    self._tell_message(session, tally, each)
            if tally["state"] == "running" and (reason := _why_pause(tally, ended)) is not None:
                tally = self.pause(session, tally, reason)
            self.feed(session, tally)

    def end(self, session: Session, scope: Scope, job_id: str, ending: Ending) -> None:
        """As `keep` of one."""
        self.keep(session, [Kept(scope, job_id, ending)])

    def pause(self, session: Session, tally: RowMapping, reason: Reason | None) -> RowMapping:
        """Nothing new begins; what is being written is finished."""
        _set_state(session, tally["id"], "paused", reason)
        return _again(session, tally)

    def feed(self, session: Session, tally: RowMapping) -> None:
        """Fill the window, or, when nothing is at work any more, see whether all is done."""
        scope = scope_of(tally)
        self.told(session, tally["id"])
        free = tally["concurrency"] - tally["writing"]
        if tally["state"] == "running" and free > 0 and (free * REFILL >= tally["concurrency"] or not tally["writing"]):
            found = session.execute(NEXT, {"id": tally["id"], "tenant": scope.tenant, "limit": free}).scalars().all()
            if found:
                tally = self._put_in(session, tally, found)
        if not tally["writing"]:
            self._rest(session, scope, tally)

    def put_in(self, session: Session, tally: RowMapping, message_ids: list[str], **payload: Any) -> RowMapping:
        """These messages, now. Raises Limited (too many jobs), Conflict."""
        scope = scope_of(tally)
        payloads = [{"message_id": each, **payload} for each in message_ids]
        parent = tally["job_id"] if tally["state"] == "running" else None
        jobs = self.jobs.enqueue_many(session, scope, WRITE, payloads, priority=PRIORITY, parent_id=parent)
        session.execute(FED, [{"id": each, "job": job} for each, job in zip(message_ids, jobs, strict=True)])
        return session.execute(WRITING, {"id": tally["id"], "more": len(jobs)}).mappings().one()

    def _put_in(self, session: Session, tally: RowMapping, found: Any) -> RowMapping:
        try:
            fed = self.put_in(session, tally, list(found))
        except TerraceError as error:  # it raises before it writes
            if tally["writing"]:
                return tally  # there may be room when the next one ends
            return self.pause(session, tally, Reason(error.code, error.message))
        ended = fed["done"] + fed["failed"] + fed["skipped"]
        if fed["job_id"]:
            self.jobs.tell_progress(session, scope_of(fed), fed["job_id"], ended, fed["total"])
        return fed

    def _rest(self, session: Session, scope: Scope, tally: RowMapping) -> None:
        """Nothing is at work any more: the stretch is over, and, unless it was stopped, the campaign."""
        if tally["state"] == "running":
            _set_state(session, tally["id"], "finished", None, finished=now())
            self._tell(session, tally, "campaign.finished", {"state": "finished", **summary(tally)})
        if tally["job_id"]:
            self.jobs.conclude(session, scope, tally["job_id"], {"campaign_id": tally["id"], **summary(tally)})

    def _tell_message(self, session: Session, tally: RowMapping, each: _Ended) -> None:
        data = {
            "message_id": each.row["id"],
            "contact_id": each.row["contact_id"],
            "state": each.state,
            "model": each.ending.model,
            "cost": (each.row["cost"] + each.spent.cost) / PICODOLLARS,
            "error": None if each.ending.error is None else asdict(each.ending.error),
        }
        self._tell(session, tally, "campaign.message", data)

    def _tell(self, session: Session, tally: RowMapping, type: str, data: dict[str, Any]) -> None:
        """To the tenant's endpoints, and at the end to the campaign's own address."""
        scope = scope_of(tally)
        data = {"campaign_id": tally["id"], "name": tally["name"], **data}
        self.emitter.emit(session, scope, type, data)
        if tally["webhook"]:
            self.emitter.send_to(session, scope, tally["webhook"], type, data)


class Told(Protocol):
    def __call__(self, session: Session, campaign_id: str) -> None: ...


def reserve(session: Session, scope: Scope, campaign_id: str, message_id: str, attempt: int, amount: int) -> bool:
    """Keep so much of the budget free for a message; False when it would be exceeded."""
    where = {"id": campaign_id, "tenant": scope.tenant, "amount": amount}
    if not session.execute(RESERVE, where).rowcount:  # type: ignore[attr-defined]
        return False
    session.execute(RESERVED, {"id": message_id, "amount": amount, "attempt": attempt})
    return True


def settle(
    session: Session, scope: Scope, message_id: str, job_id: str, attempt: int, spent: Spent | None = None
) -> None:
    """This attempt of the message's job is over, and another may follow. What it reserved is free again; where nobody
    knows what was spent, it counts as spent. An attempt that another has settled leaves the reservation alone."""
    row = session.execute(MESSAGES, {"tenant": scope.tenant, "ids": [message_id]}).mappings().first()
    if row is None or not _has(row, job_id):
        return
    reserved = row["reserved"] if row["attempt"] == attempt else 0
    values = {**asdict(spent or Spent(cost=reserved)), "reserved": reserved}
    session.execute(SETTLE_CAMPAIGN, {"id": row["campaign_id"], "tenant": scope.tenant, **values})
    session.execute(SETTLE_MESSAGE, {"id": row["id"], **values})


def tally_of(session: Session, scope: Scope, campaign_id: str) -> RowMapping:
    found = session.execute(
        text(f"SELECT {TALLY} FROM campaigns WHERE id = :id AND tenant_id = :tenant"),
        {"id": campaign_id, "tenant": scope.tenant},
    )
    return found.mappings().one()


def scope_of(tally: Mapping[Any, Any]) -> Scope:
    """Who pays for a campaign."""
    return Scope(tally["tenant_id"], tally["user_id"], tally["key_id"])


def summary(tally: Mapping[Any, Any]) -> dict[str, Any]:
    counts = {name: tally[name] for name in ("total", "done", "failed", "skipped")}
    return {**counts, "cost": tally["spent"] / PICODOLLARS}


def _has(row: RowMapping, job_id: str) -> bool:
    return bool(row["state"] == "writing" and row["job_id"] == job_id)


def _held_by(session: Session, kept: Sequence[Kept]) -> Iterator[tuple[str, str, list[_Ended]]]:
    """(tenant, campaign, its messages) of those that their jobs have."""
    for tenant in sorted({each.scope.tenant for each in kept}):
        ours = {each.value.message_id: each for each in kept if each.scope.tenant == tenant}
        rows = session.execute(MESSAGES, {"tenant": tenant, "ids": list(ours)}).mappings().all()
        campaigns: dict[str, list[_Ended]] = {}
        for row in rows:
            if _has(row, ours[row["id"]].job_id):
                campaigns.setdefault(row["campaign_id"], []).append(_Ended(row, ours[row["id"]].value))
        for campaign_id in sorted(campaigns):  # in one order, so that no two wait for each other
            yield tenant, campaign_id, campaigns[campaign_id]


def _bump(session: Session, tenant: str, campaign_id: str, ended: Sequence[_Ended]) -> RowMapping:
    states = Counter(each.state for each in ended)
    values: dict[str, Any] = {state: states[state] for state in ("done", "failed", "skipped", "waiting")}
    values |= {name: sum(getattr(each.spent, name) for each in ended) for name in Spent.__slots__}
    values |= {
        "ended": len(ended),
        "written": sum(each.ending.text is not None for each in ended),
        "reserved": sum(each.row["reserved"] for each in ended),
    }
    values |= {"id": campaign_id, "tenant": tenant, "now": now()}
    return session.execute(BUMP, values).mappings().one()


def _write(session: Session, tally: RowMapping, ended: Sequence[_Ended]) -> None:
    """The rows of the messages, in the order of the feed."""
    written, vain, back = [], [], []
    numbers = count(tally["seq"] - sum(each.state != "waiting" for each in ended) + 1)
    moment = now()
    for each in ended:
        ending, spent = each.ending, each.spent
        values: dict[str, Any] = {name: getattr(spent, name) for name in Spent.__slots__}
        values["id"] = each.row["id"]
        if each.state == "waiting":
            back.append(values)
            continue
        values |= {"seq": next(numbers), "error": _json(ending.error)}
        if each.row["written"] and ending.state != "done":
            vain.append(values)
            continue
        sources = _encode(ending.sources).decode() if ending.sources else None
        values |= {"state": ending.state, "text": ending.text, "sources": sources, "model": ending.model, "now": moment}
        written.append(values)
    for statement, rows in ((END, written), (END_AS_IT_WAS, vain), (HAND_BACK, back)):
        if rows:
            session.execute(statement, rows)


def _why_pause(tally: RowMapping, ended: Sequence[_Ended]) -> Reason | None:
    for each in ended:
        if each.ending.pauses:
            return each.ending.error
    if tally["in_row"] < IN_ROW:
        return None
    why = next((each.ending.error.message for each in ended if each.ending.error), "no reason is known")
    return Reason("failing", f"The last {tally['in_row']} messages failed: {why}")


def _set_state(
    session: Session, campaign_id: str, state: str, reason: Reason | None, finished: float | None = None
) -> None:
    values = {"id": campaign_id, "state": state, "reason": _json(reason), "finished": finished, "now": now()}
    session.execute(STATE, values)


def _again(session: Session, tally: RowMapping) -> RowMapping:
    return tally_of(session, Scope(tally["tenant_id"]), tally["id"])


def _json(reason: Reason | None) -> str | None:
    return None if reason is None else _encode(asdict(reason)).decode()
