"""Limits as they are kept, and as they are asked for."""

import math
from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import cast, get_args

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from terrace.accounts.limits.base import LimitName, Subject, SubjectKind
from terrace.accounts.limits.meters import Rule
from terrace.accounts.limits.refusals import MONEY
from terrace.accounts.tables import KeyRow, LimitRow, MembershipRow, TenantRow
from terrace.errors import Invalid, Missing
from terrace.telemetry.calls import PICODOLLARS
from terrace.types import Scope, now

NAMES: tuple[LimitName, ...] = get_args(LimitName)
MAX_COUNT = 10**15
MAX_DOLLARS = 1_000_000

Values = dict[LimitName, int | None]
Stored = Callable[[Session, Subject], tuple[int, int]]
"""How many documents and bytes a tenant, user or key has stored; `terrace.knowledge.store.stored` is one."""


def parsed(text: str, tenant: str) -> Subject:
    """`tenant`, `user:usr_...` or `key:key_...` within a tenant. Raises Invalid."""
    kind, _, id = text.partition(":")
    if text == "tenant" or (kind in ("user", "key") and 0 < len(id) <= 64):
        return Subject(tenant, cast("SubjectKind", kind), id)
    raise Invalid("Say whose limits: `tenant`, `user:<id>` or `key:<id>`.", code="bad_subject")


def named(subject: Subject) -> str:
    """What `parsed` reads."""
    return f"{subject.kind}:{subject.id}" if subject.id else subject.kind


def checked(values: Mapping[LimitName, float | None]) -> Values:
    """As they are kept. Raises Invalid naming what is wrong."""
    unknown = [str(name)[:100] for name in values if name not in NAMES]
    if unknown:
        raise Invalid(f"There is no limit called {unknown[0]!r}. Known: {', '.join(NAMES)}.", code="unknown_limit")
    return {name: None if value is None else _checked(name, value) for name, value in values.items()}


def _checked(name: LimitName, value: float) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name in MONEY:
        if not number or not 1e-6 <= value <= MAX_DOLLARS:
            raise Invalid(f"{name} is an amount of dollars from 0.000001 to {MAX_DOLLARS:,}.", code="bad_limit")
        exact = Decimal(str(value)) * PICODOLLARS
        return int(exact.to_integral_value(ROUND_HALF_EVEN))
    if not number or value != int(value) or not 1 <= value <= MAX_COUNT:
        raise Invalid(f"{name} is a whole number from 1 to {MAX_COUNT:,}; leave it out to have none.", code="bad_limit")
    return int(value)


def put(session: Session, subject: Subject, values: Values, by: str) -> None:
    """Raises Missing when the tenant has no such user or key."""
    _find(session, subject)
    for name, value in values.items():
        row = session.get(LimitRow, (subject.tenant, subject.kind, subject.id, name))
        if value is None:
            if row is not None:
                session.delete(row)
            continue
        if row is None:
            row = LimitRow(
                tenant_id=subject.tenant, subject_kind=subject.kind, subject_id=subject.id,
                name=name, value=value, set_by=by, set_at=now(),
            )  # fmt: skip
        row.value, row.set_by, row.set_at = value, by, now()
        session.add(row)
    session.flush()


def _find(session: Session, subject: Subject) -> None:
    if subject.kind == "user":
        found = session.get(MembershipRow, (subject.tenant, subject.id)) is not None
    elif subject.kind == "key":
        mine = (KeyRow.id == subject.id, KeyRow.tenant_id == subject.tenant)
        found = session.exec(select(KeyRow.id).where(*mine)).first() is not None
    else:
        found = True
    if not found:
        raise Missing(f"There is no such {subject.kind} in this tenant.", code=f"{subject.kind}_missing")


def everything(session: Session) -> list[Rule]:
    return [_rule(row) for row in session.exec(select(LimitRow))]


def closed(session: Session) -> frozenset[str]:
    """Tenants that are disabled."""
    return frozenset(session.exec(select(TenantRow.id).where(col(TenantRow.disabled_at).is_not(None))))


def fingerprint(session: Session) -> tuple[object, ...]:
    """Changes whenever a limit does, or a tenant is disabled or let in again."""
    counted = select(func.count(), func.max(LimitRow.set_at), func.sum(LimitRow.value))
    return (*session.exec(counted).one(), closed(session))


def storage_rules(session: Session, scope: Scope) -> list[Rule]:
    """The caller's limits of what is stored, as they are in this very transaction."""
    rows = session.exec(
        select(LimitRow).where(
            LimitRow.tenant_id == scope.tenant, col(LimitRow.name).in_(("documents", "stored_bytes"))
        )
    )
    wanted = set(subjects(scope))
    return [rule for rule in map(_rule, rows) if rule.subject in wanted]


def subjects(scope: Scope) -> list[Subject]:
    """Whose limits hold for a caller."""
    found = [Subject(scope.tenant)]
    if scope.user is not None:
        found.append(Subject(scope.tenant, "user", scope.user))
    if scope.key is not None:
        found.append(Subject(scope.tenant, "key", scope.key))
    return found


def erase_user(session: Session, user_id: str) -> None:
    """The limits of a person who is gone."""
    session.execute(delete(LimitRow).where(col(LimitRow.subject_kind) == "user", col(LimitRow.subject_id) == user_id))


def erase_tenant(session: Session, scope: Scope) -> None:
    session.execute(delete(LimitRow).where(col(LimitRow.tenant_id) == scope.tenant))


def _rule(row: LimitRow) -> Rule:
    subject = Subject(row.tenant_id, cast("SubjectKind", row.subject_kind), row.subject_id)
    return Rule(subject, cast("LimitName", row.name), row.value, row.set_by, row.set_at)
