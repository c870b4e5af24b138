"""How messages go from `waiting` to their end, a campaign's window kept full. Functions inside a transaction.

Nobody feeds a campaign but the transactions that end its messages (and those that start or resume it): what is at work
and what is counted change together or not at all, so whatever is killed leaves a campaign that goes on by itself.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import msgspec
from sqlalchemy import RowMapping, text
from sqlmodel import Session

from terrace.campaigns.runs.base import PRIORITY, WRITE, Emitter, MessageState, Reason
from terrace.errors import TerraceError
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, now

REFILL = 8  # an eighth of the window free is fed in one go
IN_ROW = 20  # failures in a row after which a campaign waits for a person

TALLY = (
    "id, tenant_id, user_id, key_id, state, name, webhook, concurrency, job_id, total, writing, done, failed, skipped, "
    "in_row, seq, spent"
)
MESSAGE = text(
    "SELECT id, campaign_id, contact_id, state, job_id, reserved, attempt, cost, text IS NOT NULL AS written "
    "FROM campaign_messages WHERE tenant_id = :tenant AND id = :id"
)
BUMP = text(
    "UPDATE campaigns SET writing = writing - 1, done = done + :done, failed = failed + :failed, "
    "skipped = skipped + :skipped, seq = seq + :ended, spent = spent + :cost, reserved = reserved - :reserved, "
    "in_row = CASE WHEN :written = 1 THEN 0 ELSE in_row + :failed END, unpriced = unpriced + :unpriced, "
    "input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens, updated_at = :now "
    f"WHERE id = :id AND tenant_id = :tenant RETURNING {TALLY}"
)
END = text(
    "UPDATE campaign_messages SET state = :state, seq = :seq, text = :text, sources = :sources, model = :model, "
    "error = :error, cost = cost + :cost, reserved = 0, unpriced = unpriced + :unpriced, "
    "input_tokens = input_tokens + :input_tokens, output_tokens = output_tokens + :output_tokens, edited_at = NULL, "
    "approved_at = NULL, finished_at = :now WHERE id = :id"
)
END_AS_IT_WAS = text(
    "UPDATE campaign_messages SET state = 'done', seq = :seq, error = :error, cost = cost + :cost, reserved = 0, "
    "unpriced = unpriced + :unpriced, input_tokens = input_tokens + :input_tokens, "
    "output_tokens = output_tokens + :output_tokens WHERE id = :id"
)
HAND_BACK = text(
    "UPDATE campaign_messages SET state = 'waiting', job_id = NULL, cost = cost + :cost, reserved = 0, "
    "unpriced = unpriced + :unpriced, input_tokens = input_tokens + :input_tokens, "
    "output_tokens = output_tokens + :output_tokens WHERE id = :id"
)
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
    """How a message ends. `spent` None: whoever knew is dead, and all that was reserved counts as spent."""

    state: MessageState
    spent: Spent | None = NOTHING
    text: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    model: str | None = None
    error: Reason | None = None


@dataclass(frozen=True, slots=True)
class Steps:
    """`told` hears which campaign changed, after the commit."""

    jobs: Queue
    emitter: Emitter
    told: "Told"

    def end(self, session: Session, scope: Scope, message_id: str, job_id: str, ending: Ending) -> None:
        """Once: a message that this job no longer has stays as it is. Then the window is filled."""
        row = _held(session, scope, message_id, job_id)
        if row is None:
            return
        keeps = ending.state != "done" and bool(row["written"])  # written again in vain: the text stays
        state = "done" if keeps else ending.state
        tally = _bump(session, scope, row, state, ending, counts=ending.text is not None)
        spent = asdict(_spent(row, ending))
        values = {"id": row["id"], "seq": tally["seq"], "error": _json(ending.error), **spent}
        if keeps:
            session.execute(END_AS_IT_WAS, values)
        else:
            sources = _encode(ending.sources).decode() if ending.sources else None
            session.execute(
                END, {**values, "state": state, "text": ending.text, "sources": sources, "model": ending.model,
                      "now": now()},
            )  # fmt: skip
        self._tell_message(session, scope, tally, row, state, ending)
        if tally["state"] == "running" and state == "failed" and tally["in_row"] >= IN_ROW:
            why = ending.error.message if ending.error else "no reason is known"
            tally = self.pause(session, tally, Reason("failing", f"The last {tally['in_row']} messages failed: {why}"))
        self.feed(session, tally)

    def hand_back(
        self, session: Session, scope: Scope, message_id: str, job_id: str, spent: Spent | None,
        reason: Reason | None = None,
    ) -> None:  # fmt: skip
        """It was not written, and waits again. With a reason the campaign is paused for it."""
        row = _held(session, scope, message_id, job_id)
        if row is None:
            return
        if row["written"]:  # it was to be written again
            self.end(session, scope, message_id, job_id, Ending("failed", spent, error=reason))
            return
        ending = Ending("waiting", spent)
        tally = _bump(session, scope, row, "waiting", ending, counts=False)
        session.execute(HAND_BACK, {"id": row["id"], **asdict(_spent(row, ending))})
        if reason is not None and tally["state"] == "running":
            tally = self.pause(session, tally, reason)
        self.feed(session, tally)

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

    def _tell_message(
        self, session: Session, scope: Scope, tally: RowMapping, row: RowMapping, state: str, ending: Ending
    ) -> None:
        data = {
            "campaign_id": tally["id"],
            "message_id": row["id"],
            "contact_id": row["contact_id"],
            "state": state,
            "model": ending.model,
            "cost": (row["cost"] + _spent(row, ending).cost) / PICODOLLARS,
            "error": None if ending.error is None else asdict(ending.error),
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
    row = _held(session, scope, message_id, job_id)
    if row is None:
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


def _held(session: Session, scope: Scope, message_id: str, job_id: str) -> RowMapping | None:
    row = session.execute(MESSAGE, {"tenant": scope.tenant, "id": message_id}).mappings().first()
    return row if row is not None and row["state"] == "writing" and row["job_id"] == job_id else None


def _bump(session: Session, scope: Scope, row: RowMapping, state: str, ending: Ending, *, counts: bool) -> RowMapping:
    values: dict[str, Any] = {name: int(state == name) for name in ("done", "failed", "skipped")}
    values |= {"ended": int(state != "waiting"), "written": int(counts), "now": now(), "reserved": row["reserved"]}
    values |= {"id": row["campaign_id"], "tenant": scope.tenant, **asdict(_spent(row, ending))}
    return session.execute(BUMP, values).mappings().one()


def _spent(row: RowMapping, ending: Ending) -> Spent:
    return Spent(cost=row["reserved"]) if ending.spent is None else ending.spent


def _set_state(
    session: Session, campaign_id: str, state: str, reason: Reason | None, finished: float | None = None
) -> None:
    values = {"id": campaign_id, "state": state, "reason": _json(reason), "finished": finished, "now": now()}
    session.execute(STATE, values)


def _again(session: Session, tally: RowMapping) -> RowMapping:
    return tally_of(session, Scope(tally["tenant_id"]), tally["id"])


def _json(reason: Reason | None) -> str | None:
    return None if reason is None else _encode(asdict(reason)).decode()
