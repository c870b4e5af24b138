"""What was done by whom: one line an administrative act, written in the act's own transaction, never changed after.

Lines outlive people and tenants, so they hold ids and never names or e-mail addresses of people.
"""

from typing import Any

from sqlalchemy import or_
from sqlmodel import Session, col, select

from terrace.accounts.base import AuditEntry, Caller
from terrace.accounts.paging import check_limit
from terrace.accounts.store import plain
from terrace.accounts.tables import AuditRow, TenantRow
from terrace.storage import Database
from terrace.types import Scope, moment, new_id, now

MAX_ADDRESS = 64


class Audit:
    def __init__(self, database: Database) -> None:
        self._database = database

    def record(
        self, session: Session, caller: Caller, action: str, subject: str, *, tenant: str | None = None, **detail: Any
    ) -> None:
        """`tenant` is whom it was done to; it goes into that tenant's log and, where that is another, the caller's.

        The caller's line then says in `in_tenant` what that tenant was called.
        """
        for tenant_id in {caller.scope.tenant, tenant or caller.scope.tenant}:
            elsewhere = {"in_tenant": _called(session, tenant)} if tenant and tenant_id != tenant else {}
            session.add(
                AuditRow(
                    id=new_id("aud"),
                    tenant_id=tenant_id,
                    at=now(),
                    actor=actor(caller),
                    key_id=caller.scope.key,
                    action=action,
                    subject=subject,
                    detail={**detail, **elsewhere},
                    address=caller.address[:MAX_ADDRESS],
                )
            )

    async def note(self, caller: Caller, action: str, subject: str, *, tenant: str | None = None) -> None:
        """`record` of an act that changes nothing, and so has no transaction of its own."""
        await self._database.write(lambda session: self.record(session, caller, action, subject, tenant=tenant))

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None, action: str | None = None
    ) -> tuple[list[AuditEntry], str | None]:
        """Newest first, with the cursor of what follows. `action` is one such as `key.created`, or a kind such as
        `key`."""
        check_limit(limit)
        rows = await self._database.read(_page, scope, limit, cursor, action)
        return [_told(row) for row in rows[:limit]], rows[limit - 1].id if len(rows) > limit else None


def actor(caller: Caller) -> str:
    """A user's id; `local` before anybody logs in; else `terminal`, which also makes the keys that are nobody's."""
    return caller.scope.user or ("local" if caller.via == "local" else "terminal")


def _called(session: Session, tenant: str) -> str:
    row = session.get(TenantRow, tenant)
    return row.name if row is not None else tenant


def _page(session: Session, scope: Scope, limit: int, cursor: str | None, action: str | None) -> list[AuditRow]:
    wanted = [col(AuditRow.tenant_id) == scope.tenant]
    if cursor is not None:
        wanted.append(col(AuditRow.id) < plain(cursor))
    if action is not None:
        name = plain(action)
        wanted.append(or_(col(AuditRow.action) == name, col(AuditRow.action).startswith(f"{name}.", autoescape=True)))
    return list(session.exec(select(AuditRow).where(*wanted).order_by(col(AuditRow.id).desc()).limit(limit + 1)).all())


def _told(row: AuditRow) -> AuditEntry:
    return AuditEntry(row.id, moment(row.at), row.actor, row.action, row.subject, row.detail, row.address, row.key_id)
