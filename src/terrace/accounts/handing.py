"""What a caller may hand on to an API key: nobody gives what they lack, and a key made by a key is no stronger."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from terrace.accounts.base import Caller
from terrace.accounts.scopes import covers, expand, lies_within
from terrace.accounts.store import membership
from terrace.accounts.tables import KeyRow
from terrace.errors import Denied, Missing


@dataclass(frozen=True, slots=True)
class Powers:
    """Of an API key. Empty means all that its owner may."""

    scopes: Sequence[str]
    models: Sequence[str]
    addresses: Sequence[str]
    expires_at: float | None

    @classmethod
    def of(cls, row: KeyRow) -> "Powers":
        return cls(row.scopes, row.models, row.addresses, row.expires_at)


def handed_on(session: Session, caller: Caller, wanted: Powers) -> Powers:
    """`wanted`; where it says nothing and a key asks, what that key has itself. Raises Denied."""
    maker = _maker(session, caller)
    if maker is not None:
        wanted = Powers(
            wanted.scopes or maker.scopes,
            wanted.models or maker.models,
            wanted.addresses or maker.addresses,
            maker.expires_at if wanted.expires_at is None else wanted.expires_at,
        )
    check(session, caller, wanted)
    return wanted


def check(session: Session, caller: Caller, powers: Powers) -> None:
    """Whether they may have them in hand. Raises Denied."""
    lacking = expand(powers.scopes) - caller.permissions
    if lacking:
        raise Denied(
            f"You cannot give what you may not do yourself: {', '.join(sorted(lacking))}.", code="scope_not_held"
        )
    for model in powers.models:
        if not all(covers(wall, model) for wall in caller.scope.models):
            raise Denied(f"You may not use all of {model!r} yourself.", code="model_not_held")
    maker = _maker(session, caller)
    if maker is not None and not _no_stronger(powers, Powers.of(maker)):
        raise Denied("A key can have or make no key that is stronger than itself.", code="stronger_key")


def check_owner(session: Session, caller: Caller, user_id: str | None) -> None:
    """Whether they may make a key that belongs to `user_id`. Whoever holds a key acts as that person and reads what is
    theirs alone, also when they have risen since: so nobody makes one for somebody else, but at the terminal.

    Raises Denied, Missing.
    """
    if user_id == caller.scope.user:
        return
    if caller.via != "terminal":
        raise Denied("You can make keys of your own only.", code="not_your_key")
    if user_id is None or membership(session, caller.scope.tenant, user_id) is None:
        raise Missing("There is no such member.", code="member_missing")


def _maker(session: Session, caller: Caller) -> KeyRow | None:
    return None if caller.scope.key is None else session.get(KeyRow, caller.scope.key)


def _no_stronger(powers: Powers, than: Powers) -> bool:
    """Scopes and models that are named have been held against what the caller has already."""
    return (
        (bool(powers.scopes) or not than.scopes)
        and (bool(powers.models) or not than.models)
        and (
            not than.addresses
            or (bool(powers.addresses) and all(lies_within(each, than.addresses) for each in powers.addresses))
        )
        and (math.inf if powers.expires_at is None else powers.expires_at)
        <= (math.inf if than.expires_at is None else than.expires_at)
    )
