"""Rows in, words out: sync functions for `Database.read` and `write`, each within its scope."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, cast

from sqlalchemy import ColumnElement, delete, func, insert, update
from sqlmodel import Session, col, select

from terrace.accounts.limits.base import Subject
from terrace.accounts.tables import KeyRow, MembershipRow, UserRow
from terrace.batches.base import FINAL, Batch, Endpoint, File, LineError, Purpose, Status, Usage
from terrace.batches.tables import BatchFileRow, BatchLineRow, BatchRow
from terrace.errors import Conflict, Missing
from terrace.knowledge.store import trash
from terrace.types import Scope, new_id, now

Order = Literal["asc", "desc"]
RECORDS = 100  # read at a time: each may be large
DROPPED = 1000  # deleted at a time


class Record(NamedTuple):
    """An answer as a line of a file, without the line's end."""

    number: int
    good: bool
    text: str
    usage: Usage


# -- files


def file(session: Session, scope: Scope, file_id: str) -> BatchFileRow:
    """Raises Missing; what has expired is gone."""
    row = session.exec(select(BatchFileRow).where(BatchFileRow.id == file_id, *_kept(scope))).one_or_none()
    if row is None:
        raise Missing(f"No such File object: {file_id[:100]}", code="file_missing", param="id")
    return row


def input_file(session: Session, row: BatchRow) -> BatchFileRow:
    """What an open batch reads, even past its time. Raises Missing."""
    wanted = (BatchFileRow.id == row.input_file_id, BatchFileRow.tenant_id == row.tenant_id)
    if (found := session.exec(select(BatchFileRow).where(*wanted)).one_or_none()) is None:
        raise Missing("The input file of this batch is gone.", code="file_missing")
    return found


def show(session: Session, scope: Scope, file_id: str) -> File:
    return shown(file(session, scope, file_id))


def shown(row: BatchFileRow) -> File:
    return File(row.id, row.name, cast("Purpose", row.purpose), row.bytes, row.created_at, row.expires_at)


def files(
    session: Session, scope: Scope, *, purpose: str | None, after: str | None, limit: int, order: Order
) -> list[File]:
    where = _kept(scope)
    if purpose is not None:
        where.append(col(BatchFileRow.purpose) == purpose)
    if after is not None:
        where.append(_beyond(BatchFileRow.id, after, order))
    rows = session.exec(select(BatchFileRow).where(*where).order_by(_sorted(BatchFileRow.id, order)).limit(limit))
    return [shown(row) for row in rows]


def count_files(session: Session, scope: Scope) -> int:
    return session.exec(select(func.count()).select_from(BatchFileRow).where(*_kept(scope))).one()


def add_file(
    session: Session,
    scope: Scope,
    file_id: str,
    name: str,
    purpose: Purpose,
    size: int,
    blob: str,
    expires_at: float | None,
) -> File:
    row = BatchFileRow(
        id=file_id, tenant_id=scope.tenant, user_id=scope.user, key_id=scope.key, purpose=purpose, name=name,
        bytes=size, blob=blob, created_at=now(), expires_at=expires_at,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return shown(row)


def remove_file(session: Session, scope: Scope, file_id: str) -> None:
    """Raises Missing, or Conflict while a batch still reads it."""
    row = file(session, scope, file_id)
    open_ = col(BatchRow.status).notin_(FINAL)
    reading = select(BatchRow.id).where(BatchRow.input_file_id == file_id, open_, *_own(BatchRow, scope))
    if (batch_id := session.exec(reading).first()) is not None:
        raise Conflict(f"{batch_id} still reads this file. Cancel it first, or wait for its end.", code="file_in_use")
    drop_file(session, row)


def drop_file(session: Session, row: BatchFileRow) -> None:
    trash(session, Scope(row.tenant_id), row.blob)
    session.delete(row)


def expired_files(session: Session, moment: float, limit: int) -> Sequence[BatchFileRow]:
    """Of every tenant, but those that an open batch reads."""
    reading = select(BatchRow.input_file_id).where(col(BatchRow.status).notin_(FINAL))
    return session.exec(
        select(BatchFileRow)
        .where(col(BatchFileRow.expires_at) < moment, col(BatchFileRow.id).notin_(reading))
        .limit(limit)
    ).all()


def known_blobs(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of these keys that are a file's."""
    return set(session.exec(select(BatchFileRow.blob).where(col(BatchFileRow.blob).in_(keys))))


def stored(session: Session, subject: Subject) -> int:
    """Bytes of a tenant's files, or of those that a user or key of it has sent or was given."""
    query = select(func.coalesce(func.sum(col(BatchFileRow.bytes)), 0)).where(BatchFileRow.tenant_id == subject.tenant)
    if subject.kind != "tenant":
        owner = BatchFileRow.user_id if subject.kind == "user" else BatchFileRow.key_id
        query = query.where(col(owner) == subject.id)
    return int(session.exec(query).one())


# -- batches


def batch(session: Session, scope: Scope, batch_id: str) -> BatchRow:
    """Raises Missing."""
    row = session.exec(select(BatchRow).where(BatchRow.id == batch_id, *_own(BatchRow, scope))).one_or_none()
    if row is None:
        raise Missing(f"No batch found with id {batch_id[:100]!r}.", code="batch_missing", param="batch_id")
    return row


def of_job(session: Session, scope: Scope, batch_id: str) -> BatchRow:
    """For its job, which may have begun before whose it is was changed. Raises Missing when it was deleted."""
    row = session.exec(
        select(BatchRow).where(BatchRow.id == batch_id, BatchRow.tenant_id == scope.tenant)
    ).one_or_none()
    if row is None:
        raise Missing("This batch was deleted.", code="batch_missing")
    return row


def read(session: Session, scope: Scope, batch_id: str) -> Batch:
    return told(batch(session, scope, batch_id))


def told(row: BatchRow) -> Batch:
    over = row.status in FINAL
    return Batch(
        id=row.id,
        endpoint=cast("Endpoint", row.endpoint),
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=cast("Status", row.status),
        metadata=row.labels,
        model=row.model,
        errors=tuple(LineError(**each) for each in row.errors),
        total=row.total,
        completed=row.completed,
        failed=row.failed,
        usage=Usage(row.input_tokens, row.cached_tokens, row.output_tokens),
        output_file_id=row.output_file_id if over else None,
        error_file_id=row.error_file_id if over else None,
        job_id=row.job_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        times=cast("Mapping[Status, float]", row.reached),
    )


def batches(session: Session, scope: Scope, *, after: str | None, limit: int) -> list[Batch]:
    """Newest first."""
    where = _own(BatchRow, scope)
    if after is not None:
        where.append(col(BatchRow.id) < after)
    rows = session.exec(select(BatchRow).where(*where).order_by(col(BatchRow.id).desc()).limit(limit))
    return [told(row) for row in rows]


def count_open(session: Session, scope: Scope) -> int:
    """Of the whole tenant."""
    open_ = (col(BatchRow.tenant_id) == scope.tenant, col(BatchRow.status).notin_(FINAL))
    return session.exec(select(func.count()).select_from(BatchRow).where(*open_)).one()


def add_batch(session: Session, scope: Scope, **values: Any) -> BatchRow:
    row = BatchRow(
        id=new_id("batch"), tenant_id=scope.tenant, user_id=scope.user, status="validating", created_at=now(), **values
    )
    session.add(row)
    session.flush()
    return row


def move(session: Session, row: BatchRow, status: Status, **values: Any) -> BatchRow:
    """To a state, and when."""
    row.status = status
    row.reached = {**row.reached, status: now()}
    for name, value in values.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    return row


def cancel(session: Session, row: BatchRow) -> BatchRow:
    """What is under way may end, nothing else begins."""
    return row if row.status != "in_progress" else move(session, row, "cancelling")


def fail(session: Session, row: BatchRow, errors: Sequence[LineError]) -> BatchRow:
    return move(session, row, "failed", errors=[asdict(error) for error in errors])


def shut_out(session: Session, scope: Scope) -> bool:
    """Whether whoever made it may do nothing here any more: disabled, no member any longer, or their key revoked."""
    key = session.get(KeyRow, scope.key) if scope.key else None
    if key is not None and key.revoked_at is not None:
        return True
    person = session.get(UserRow, scope.user) if scope.user else None
    if person is None:  # on a machine without accounts, or at its terminal
        return False
    return person.disabled_at is not None or session.get(MembershipRow, (scope.tenant, person.id)) is None


# -- answers


def answered(session: Session, scope: Scope, batch_id: str) -> set[int]:
    """The numbers of the lines that have an answer."""
    return set(session.exec(select(BatchLineRow.number).where(*_of(scope, batch_id))))


def keep(session: Session, scope: Scope, batch_id: str, records: Sequence[Record]) -> None:
    rows = [
        {"batch_id": batch_id, "number": each.number, "tenant_id": scope.tenant, "good": each.good, "record": each.text}
        for each in records
    ]
    session.execute(insert(BatchLineRow), rows)
    good = sum(each.good for each in records)
    used = sum((each.usage for each in records), Usage())
    session.execute(
        update(BatchRow)
        .where(col(BatchRow.id) == batch_id, col(BatchRow.tenant_id) == scope.tenant)
        .values(
            completed=col(BatchRow.completed) + good,
            failed=col(BatchRow.failed) + len(records) - good,
            input_tokens=col(BatchRow.input_tokens) + used.input_tokens,
            cached_tokens=col(BatchRow.cached_tokens) + used.cached_tokens,
            output_tokens=col(BatchRow.output_tokens) + used.output_tokens,
        )
    )


def records(session: Session, scope: Scope, batch_id: str, good: bool, after: int) -> list[tuple[int, str]]:
    """The next ones, in the order of the lines."""
    query = select(BatchLineRow.number, BatchLineRow.record).where(
        *_of(scope, batch_id), BatchLineRow.good == good, BatchLineRow.number > after
    )
    return [(number, text) for number, text in session.exec(query.order_by(col(BatchLineRow.number)).limit(RECORDS))]


def drop_records(session: Session, scope: Scope, batch_id: str) -> int:
    """Some of them; how many went."""
    some = select(BatchLineRow.number).where(*_of(scope, batch_id)).limit(DROPPED)
    numbers = list(session.exec(some))
    session.execute(delete(BatchLineRow).where(*_of(scope, batch_id), col(BatchLineRow.number).in_(numbers)))
    return len(numbers)


# -- whose


def _own(table: "type[BatchFileRow] | type[BatchRow]", scope: Scope) -> list[ColumnElement[bool]]:
    user = col(table.user_id)
    return [col(table.tenant_id) == scope.tenant, user.is_(None) if scope.user is None else user == scope.user]


def _kept(scope: Scope) -> list[ColumnElement[bool]]:
    expiry = col(BatchFileRow.expires_at)
    return [*_own(BatchFileRow, scope), expiry.is_(None) | (expiry > now())]


def _of(scope: Scope, batch_id: str) -> list[ColumnElement[bool]]:
    return [col(BatchLineRow.tenant_id) == scope.tenant, col(BatchLineRow.batch_id) == batch_id]


def _beyond(column: Any, id: str, order: Order) -> ColumnElement[bool]:
    found: ColumnElement[bool] = col(column) > id if order == "asc" else col(column) < id
    return found


def _sorted(column: Any, order: Order) -> Any:
    return col(column).asc() if order == "asc" else col(column).desc()
