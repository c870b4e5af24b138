"""Tenants: each has its own people, documents, models, limits and bill."""

from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import func
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from terrace.accounts import erasing, store
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Tenant
from terrace.accounts.erasing import EraseTenant
from terrace.accounts.naming import key_of, tenant_name
from terrace.accounts.paging import check_limit
from terrace.accounts.tables import MembershipRow, TenantRow
from terrace.errors import Conflict, Denied, Invalid, Missing, bad_cursor
from terrace.storage import Database, after_commit
from terrace.types import DEFAULT_TENANT, new_id, now

P = ParamSpec("P")
R = TypeVar("R")

MAX_PATTERNS = 100
MAX_PATTERN = 200  # characters
MAX_QUERY = 100


class Tenants:
    """`erase` are the rooms' own: what goes with a tenant. `changed` is called once something is durable that decides
    what a caller may do."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        erase: Sequence[EraseTenant] = (),
        *,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._audit = audit
        self._erase = erase
        self._changed = changed

    async def create(self, caller: Caller, name: str, models: Sequence[str] = ()) -> Tenant:
        """`models`: patterns such as `openai/*`; none allows every model. Raises Invalid, Conflict."""
        name, patterns = tenant_name(name), _patterns(models)
        return await self._change(_create, self._audit, caller, name, patterns)

    async def list(self, *, q: str = "", limit: int = 50, cursor: str | None = None) -> tuple[list[Tenant], str | None]:
        """By name, those with `q` in it, with the cursor of what follows. Raises Invalid."""
        check_limit(limit)
        found = await self._database.read(_page, _words(q), limit, _after(cursor))
        following = _cursor(found[limit - 1].name) if len(found) > limit else None
        return found[:limit], following

    async def get(self, tenant_id: str) -> Tenant:
        """Raises Missing."""
        found = await self._database.read(_get, tenant_id)
        if found is None and tenant_id == DEFAULT_TENANT:  # nothing has needed its row yet
            found = store.to_tenant(await self._database.write(store.default_tenant))
        if found is None:
            raise _missing()
        return found

    async def change(
        self,
        caller: Caller,
        tenant_id: str,
        *,
        name: str | None = None,
        models: Sequence[str] | None = None,
        disabled: bool | None = None,
    ) -> Tenant:
        """What is None stays. An owner may rename their own; the rest is for operators. A disabled tenant's people and
        keys can do nothing there. Raises Invalid, Missing, Denied, Conflict."""
        given = None if name is None else tenant_name(name)
        patterns = None if models is None else _patterns(models)
        return await self._change(_alter, self._audit, caller, tenant_id, given, patterns, disabled)

    async def delete(self, caller: Caller, tenant_id: str) -> None:
        """With all that is in it; its people keep their accounts. Raises Missing, Conflict (`default` stays)."""
        await self._change(_delete, self._audit, self._erase, caller, tenant_id)

    async def _change(self, work: Callable[Concatenate[Session, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        def changing(session: Session) -> R:
            result = work(session, *args, **kwargs)
            after_commit(session, self._changed)
            return result

        return await self._database.write(changing)


def _create(session: Session, audit: Audit, caller: Caller, name: str, models: list[str]) -> Tenant:
    row = TenantRow(id=new_id("tnt"), name=name, name_key=key_of(name), models=models, created_at=now())
    _save(session, row)
    audit.record(session, caller, "tenant.created", row.id, tenant=row.id, name=name)
    return store.to_tenant(row)


def _page(session: Session, words: str, limit: int, after: str | None) -> list[Tenant]:
    """One more than `limit` where there are more."""
    found = select(TenantRow)
    if words:
        found = found.where(col(TenantRow.name_key).contains(words, autoescape=True))
    if after is not None:
        found = found.where(col(TenantRow.name_key) > after)
    rows = session.exec(found.order_by(col(TenantRow.name_key)).limit(limit + 1)).all()
    return _with_members(session, rows)


def _get(session: Session, tenant_id: str) -> Tenant | None:
    row = store.tenant(session, tenant_id)
    return None if row is None else _with_members(session, [row])[0]


def _alter(
    session: Session,
    audit: Audit,
    caller: Caller,
    tenant_id: str,
    name: str | None,
    models: list[str] | None,
    disabled: bool | None,
) -> Tenant:
    row = _find(session, caller, tenant_id)
    if "operator" not in caller.permissions and (models is not None or disabled is not None):
        raise Denied("Only an operator decides on a tenant's models, and whether it is open.", code="not_permitted")
    if disabled and row.id == DEFAULT_TENANT:
        raise Conflict("The tenant `default` cannot be disabled: operators belong to it.", code="default_tenant")
    changed: dict[str, Any] = {}
    if name is not None and name != row.name:
        changed["name"] = row.name = name
        row.name_key = key_of(name)
    if models is not None and models != row.models:
        changed["models"] = row.models = models
    if disabled is not None and disabled != (row.disabled_at is not None):
        changed["disabled"] = disabled
        row.disabled_at = now() if disabled else None
    if changed:
        _save(session, row)
        audit.record(session, caller, "tenant.changed", row.id, tenant=row.id, **changed)
    return _with_members(session, [row])[0]


def _delete(session: Session, audit: Audit, rooms: Sequence[EraseTenant], caller: Caller, tenant_id: str) -> None:
    row = _find(session, caller, tenant_id, lock=True)
    if row.id == DEFAULT_TENANT:
        raise Conflict("The tenant `default` cannot be deleted: operators belong to it.", code="default_tenant")
    audit.record(session, caller, "tenant.deleted", row.id, tenant=row.id, name=row.name)
    erasing.erase_tenant(session, rooms, row)


def _find(session: Session, caller: Caller, tenant_id: str, *, lock: bool = False) -> TenantRow:
    """Raises Missing, also for what is not the caller's business."""
    if tenant_id == caller.scope.tenant or "operator" in caller.permissions:
        if tenant_id == DEFAULT_TENANT:
            return store.default_tenant(session)
        row = store.tenant(session, tenant_id, lock=lock)
        if row is not None:
            return row
    raise _missing()


def _save(session: Session, row: TenantRow) -> None:
    """Raises Conflict."""
    taken = Conflict("There is a tenant of that name. Take another.", code="tenant_name_taken")
    same = select(TenantRow.id).where(TenantRow.name_key == row.name_key, TenantRow.id != row.id)
    with session.no_autoflush:
        reserved = row.name_key == DEFAULT_TENANT and row.id != DEFAULT_TENANT  # that one may have no row yet
        if reserved or session.exec(same).first() is not None:
            raise taken
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:  # on a database with several writers, somebody was quicker
        raise taken from error


def _with_members(session: Session, rows: Sequence[TenantRow]) -> list[Tenant]:
    counted = (
        select(MembershipRow.tenant_id, func.count())
        .where(col(MembershipRow.tenant_id).in_([row.id for row in rows]))
        .group_by(col(MembershipRow.tenant_id))
    )
    counts = dict(session.exec(counted).all())
    return [store.to_tenant(row, counts.get(row.id, 0)) for row in rows]


def _patterns(models: Sequence[str]) -> list[str]:
    """Each once. Raises Invalid."""
    patterns = list(dict.fromkeys(models[: MAX_PATTERNS + 1]))
    if len(patterns) > MAX_PATTERNS or not all(_is_pattern(each) for each in patterns):
        raise Invalid(
            f"Name at most {MAX_PATTERNS} models, each a name or a pattern such as `openai/*`.", code="bad_models"
        )
    return patterns


def _is_pattern(text: str) -> bool:
    return 0 < len(text) <= MAX_PATTERN and text.isprintable() and not any(each.isspace() for each in text)


def _words(q: str) -> str:
    return key_of(q[:MAX_QUERY].encode(errors="ignore").decode().replace("\0", "").strip())


def _cursor(name: str) -> str:
    return urlsafe_b64encode(key_of(name).encode()).decode().rstrip("=")


def _after(cursor: str | None) -> str | None:
    """Raises Invalid."""
    if cursor is None:
        return None
    try:
        name = b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode().replace("\0", "")
        if not name:
            raise ValueError("nobody has no name")
    except ValueError as error:
        raise bad_cursor() from error
    return name


def _missing() -> Missing:
    return Missing("No such tenant.", code="tenant_missing")
