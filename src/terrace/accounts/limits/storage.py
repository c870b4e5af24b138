"""Limits of what is kept: counted where it is kept, in the very transaction that adds to it."""

from sqlmodel import Session

from terrace.accounts.limits import store
from terrace.accounts.limits.meters import Rule
from terrace.accounts.limits.refusals import limited, shown
from terrace.accounts.limits.store import Stored
from terrace.types import Scope

_COUNTED = "terrace.limits.stored"


class _Share:
    """A limit and what is used of it, with what this transaction adds."""

    def __init__(self, rule: Rule, used: int) -> None:
        self.rule = rule
        self.used = used

    def check(self, added: int) -> None:
        rule = self.rule
        if self.used + added <= rule.value:
            return
        have = f"{shown(rule.name, self.used)} are there and this adds {added:,}."
        if added > rule.value:
            raise limited(rule, self.used, f"{have} It can never fit; have the limit raised.")
        raise limited(rule, self.used, f"{have} Delete documents, or have the limit raised.")


def admit(session: Session, scope: Scope, stored: Stored, *, documents: int, bytes: int) -> None:
    """Raises Limited before anything is counted. A batch reads its limits and counts what there is once."""
    counted: dict[Scope, list[_Share]] = session.info.setdefault(_COUNTED, {})
    if scope not in counted:
        counted[scope] = _shares(session, scope, stored)
    added = {"documents": documents, "stored_bytes": bytes}
    for share in counted[scope]:
        share.check(added[share.rule.name])
    for share in counted[scope]:
        share.used += added[share.rule.name]


def _shares(session: Session, scope: Scope, stored: Stored) -> list[_Share]:
    rules = store.storage_rules(session, scope)
    have = {subject: stored(session, subject) for subject in {rule.subject for rule in rules}}
    return [_Share(rule, have[rule.subject][rule.name == "stored_bytes"]) for rule in rules]
