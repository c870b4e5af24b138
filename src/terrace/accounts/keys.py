"""API keys: made, shown once, listed, narrowed, rotated, revoked."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, Literal

from sqlalchemy import bindparam, func, or_, update
from sqlmodel import Session, col, select

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller, Key
from terrace.accounts.credentials import digest, key_text, new_secret
from terrace.accounts.handing import Powers, check, check_owner, handed_on
from terrace.accounts.paging import check_limit
from terrace.accounts.scopes import networks_of, patterns_of, scopes_of
from terrace.accounts.store import default_tenant, plain
from terrace.accounts.tables import KeyRow
from terrace.errors import Conflict, Denied, Invalid, Missing
from terrace.storage import Database, after_commit
from terrace.types import DEFAULT_TENANT, Scope, moment, new_id, now

MAX_KEYS = 1000  # good ones a person may have in a tenant
MAX_NAME = 100
MAX_OVERLAP = 30 * 86_400.0  # seconds
HINT_CHARS = 4


class Unchanged(Enum):
    KEEP = "keep"


KEEP: Final = Unchanged.KEEP
"""For `change`, where None takes the date away."""


class Keys:
    """`changed` is called once a change is committed: `Gatekeeper.changed`."""

    def __init__(
        self,
        database: Database,
        options: settings.Accounts,
        audit: Audit,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._settings = options
        self._audit = audit
        self._changed = changed
        self._clock = clock

    async def create(
        self,
        caller: Caller,
        *,
        name: str,
        scopes: Iterable[str] = (),
        models: Iterable[str] = (),
        addresses: Iterable[str] = (),
        expires_at: datetime | None = None,
        user_id: str | None = None,
    ) -> tuple[Key, str]:
        """The key, and what its holder sends: shown here and never again.

        `user_id`: a member of the tenant, for whom the terminal makes it. Raises Invalid, Denied, Missing, Conflict.
        """
        if caller.via == "local":
            raise Conflict(
                "Nobody needs a key yet: on this machine every request is let in. "
                "Keys are made once there is an account.",
                code="local_mode",
            )
        wanted = Powers(
            scopes_of(scopes),
            patterns_of(models),
            networks_of(addresses),
            None if expires_at is None else self._future(expires_at),
        )
        return await self._database.write(self._create, caller, _name(name), wanted, user_id or caller.scope.user)

    async def list(
        self, caller: Caller, *, all: bool = False, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Key], str | None]:
        """Newest first, with the cursor of what follows: one's own, or everybody's with `members`. Raises Denied."""
        check_limit(limit)
        if all and "members" not in caller.permissions:
            raise Denied("You can see keys of your own only.", code="not_permitted", permission="members")
        rows = await self._database.read(_page, caller.scope, all, limit, cursor)
        return [to_key(row) for row in rows[:limit]], rows[limit - 1].id if len(rows) > limit else None

    async def get(self, caller: Caller, key_id: str) -> Key:
        """One's own, or anybody's with `members`. Raises Missing."""
        return to_key(await self._database.read(_seen, caller, key_id))

    async def change(
        self,
        caller: Caller,
        key_id: str,
        *,
        name: str | None = None,
        scopes: Iterable[str] | None = None,
        models: Iterable[str] | None = None,
        addresses: Iterable[str] | None = None,
        expires_at: datetime | Literal[Unchanged.KEEP] | None = KEEP,
    ) -> Key:
        """What is None stays as it is. Raises Missing, Denied, Invalid, Conflict."""
        changes: dict[str, Any] = {}
        if scopes is not None:
            changes["scopes"] = scopes_of(scopes)
        if models is not None:
            changes["models"] = patterns_of(models)
        if addresses is not None:
            changes["addresses"] = networks_of(addresses)
        if expires_at is not KEEP:
            changes["expires_at"] = None if expires_at is None else self._future(expires_at)
        return await self._database.write(self._change, caller, key_id, None if name is None else _name(name), changes)

    async def revoke(self, caller: Caller, key_id: str) -> None:
        """One's own, or anybody's with `members`; twice is no mistake. Raises Missing."""
        await self._database.write(self._revoke, caller, key_id)

    async def rotate(self, caller: Caller, key_id: str, overlap: float = 0.0) -> tuple[Key, str]:
        """A new secret, shown once; the old one is good for `overlap` seconds more, one older still no longer.

        Raises Missing, Denied, Invalid, Conflict.
        """
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid("The old key may be good for 0 seconds to 30 days more.", code="bad_overlap")
        return await self._database.write(self._rotate, caller, key_id, overlap)

    # -- transactions

    def _create(
        self, session: Session, caller: Caller, name: str, wanted: Powers, user_id: str | None
    ) -> tuple[Key, str]:
        check_owner(session, caller, user_id)
        powers = handed_on(session, caller, wanted)
        if caller.scope.tenant == DEFAULT_TENANT:
            default_tenant(session)
        at = self._clock()
        if _live(session, caller.scope, user_id, at) >= MAX_KEYS:
            raise Conflict(f"There are {MAX_KEYS} keys already. Revoke one first.", code="too_many_keys")
        row_id = new_id("key")
        secret = new_secret()
        row = KeyRow(
            id=row_id,
            tenant_id=caller.scope.tenant,
            user_id=user_id,
            name=name,
            scopes=list(powers.scopes),
            models=list(powers.models),
            addresses=list(powers.addresses),
            secret_hash=digest(secret),
            hint=secret[-HINT_CHARS:],
            created_at=at,
            expires_at=powers.expires_at,
        )
        session.add(row)
        self._told(session, caller, "key.created", row, name=name, scopes=row.scopes, models=row.models, user=user_id)
        return to_key(row), key_text(row.id, secret)

    def _change(self, session: Session, caller: Caller, key_id: str, name: str | None, changes: dict[str, Any]) -> Key:
        """`changes`: of what `Powers` has."""
        row = self._mine(session, caller, key_id)
        if caller.scope.key is not None:  # before anything is changed: the key may be the very one that asks
            check(session, caller, replace(Powers.of(row), **changes))
        else:  # what is left as it is need not be in their hands any more to be narrowed
            check(session, caller, Powers(changes.get("scopes", ()), changes.get("models", ()), (), None))
        changed = changes if name is None else {**changes, "name": name}
        row.sqlmodel_update(changed)
        session.add(row)
        self._told(session, caller, "key.changed", row, changed=sorted(changed))
        return to_key(row)

    def _revoke(self, session: Session, caller: Caller, key_id: str) -> None:
        row = _seen(session, caller, key_id)
        if row.revoked_at is None:
            row.revoked_at = self._clock()
            row.previous_hash = row.previous_until = None
            session.add(row)
            self._told(session, caller, "key.revoked", row)

    def _rotate(self, session: Session, caller: Caller, key_id: str, overlap: float) -> tuple[Key, str]:
        row = self._mine(session, caller, key_id)
        at = self._clock()
        if row.expires_at is not None and row.expires_at <= at:
            raise Conflict("This key has expired. Give it another date first, or make a new one.", code="key_expired")
        if caller.scope.key is not None:
            check(session, caller, Powers.of(row))
        secret = new_secret()
        row.previous_hash, row.previous_until = (row.secret_hash, at + overlap) if overlap else (None, None)
        row.secret_hash, row.hint = digest(secret), secret[-HINT_CHARS:]
        session.add(row)
        self._told(session, caller, "key.rotated", row, overlap=overlap)
        return to_key(row), key_text(row.id, secret)

    def _mine(self, session: Session, caller: Caller, key_id: str) -> KeyRow:
        """To be changed: a good one of their own; the terminal's may be anybody's."""
        row = _seen(session, caller, key_id)
        if row.user_id != caller.scope.user and caller.via != "terminal":
            raise Denied("This key is somebody else's: you can see and revoke it only.", code="not_your_key")
        if row.revoked_at is not None:
            raise Conflict("This key was revoked. Make a new one.", code="key_revoked")
        return row

    def _told(self, session: Session, caller: Caller, action: str, row: KeyRow, **detail: Any) -> None:
        self._audit.record(session, caller, action, row.id, **detail)
        after_commit(session, self._changed)

    def _future(self, given: datetime) -> float:
        at = (given if given.tzinfo else given.replace(tzinfo=UTC)).timestamp()
        if at <= self._clock():
            raise Invalid("A key's last day must be in the future.", code="bad_expiry")
        return at


def to_key(row: KeyRow) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        user_id=row.user_id,
        scopes=tuple(row.scopes),
        models=tuple(row.models),
        addresses=tuple(row.addresses),
        created_at=moment(row.created_at),
        expires_at=_moment(row.expires_at),
        last_used_at=_moment(row.last_used_at),
        revoked_at=_moment(row.revoked_at),
        hint=row.hint,
    )


def mark_used(session: Session, used: Mapping[str, float]) -> None:
    """When keys were used last. Another process may have seen a later use."""
    keys: Any = KeyRow.__table__  # type: ignore[attr-defined]
    later = or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < bindparam("moment"))
    statement = update(keys).where(keys.c.id == bindparam("key"), later).values(last_used_at=bindparam("moment"))
    session.connection().execute(statement, [{"key": key, "moment": at} for key, at in used.items()])


def _seen(session: Session, caller: Caller, key_id: str) -> KeyRow:
    wanted = [col(KeyRow.id) == plain(key_id), col(KeyRow.tenant_id) == caller.scope.tenant]
    if "members" not in caller.permissions:
        wanted.append(col(KeyRow.user_id) == caller.scope.user)
    row = session.exec(select(KeyRow).where(*wanted)).one_or_none()
    if row is None:
        raise Missing("There is no such key.", code="key_missing")
    return row


def _page(session: Session, scope: Scope, all: bool, limit: int, cursor: str | None) -> list[KeyRow]:
    wanted = [col(KeyRow.tenant_id) == scope.tenant]
    if not all:
        wanted.append(col(KeyRow.user_id) == scope.user)
    if cursor is not None:
        wanted.append(col(KeyRow.id) < plain(cursor))
    return list(session.exec(select(KeyRow).where(*wanted).order_by(col(KeyRow.id).desc()).limit(limit + 1)).all())


def _live(session: Session, scope: Scope, user_id: str | None, at: float) -> int:
    return session.exec(
        select(func.count())
        .select_from(KeyRow)
        .where(
            KeyRow.tenant_id == scope.tenant,
            col(KeyRow.user_id) == user_id,
            col(KeyRow.revoked_at).is_(None),
            or_(col(KeyRow.expires_at).is_(None), col(KeyRow.expires_at) > at),
        )
    ).one()


def _moment(at: float | None) -> datetime | None:
    return None if at is None else moment(at)


def _name(given: str) -> str:
    name = " ".join(given.split())
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise Invalid(f"A key's name is one line of 1 to {MAX_NAME} visible characters.", code="bad_key_name")
    return name
