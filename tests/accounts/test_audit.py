"""The audit log: every act, in the act's own transaction, never changed, read by its own tenant."""

from dataclasses import replace

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session
from tests.accounts.town import TERMINAL, Town, key_of

from terrace.accounts.audit import Audit
from terrace.accounts.base import LOCAL, Caller
from terrace.accounts.roles import ROLES
from terrace.accounts.tables import AuditRow
from terrace.errors import Conflict, Invalid
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

ADA = Caller(Scope("acme", "usr_ada"), ROLES["owner"], "owner", "session", address="192.0.2.7")


@pytest.fixture
def audit(database: Database) -> Audit:
    return Audit(database)


async def test_a_line_tells_who_did_what_to_whom_from_where(database: Database, audit: Audit) -> None:
    with_key = key_of(ADA, "members")
    for caller in (ADA, with_key, replace(TERMINAL, scope=Scope("acme")), replace(LOCAL, scope=Scope("acme"))):
        await database.write(audit.record, caller, "key.created", "key_7", scopes=["chat"])
    lines, _ = await audit.list(Scope("acme"))
    assert sorted((line.actor, line.key_id or "", line.address) for line in lines) == [
        ("local", "", ""),
        ("terminal", "", ""),
        ("usr_ada", "", "192.0.2.7"),
        ("usr_ada", "key_1", ""),
    ]
    assert all(line.id.startswith("aud_") and line.detail == {"scopes": ["chat"]} for line in lines)


async def test_an_act_that_fails_leaves_no_line_and_none_lacks_its_line(database: Database, audit: Audit) -> None:
    def fails(session: Session) -> None:
        audit.record(session, ADA, "key.created", "key_7")
        raise Conflict("no")

    with pytest.raises(Conflict):
        await database.write(fails)
    assert await audit.list(Scope("acme")) == ([], None)


@pytest.mark.both
async def test_nobody_changes_or_deletes_a_line(database: Database, audit: Audit) -> None:
    await database.write(audit.record, ADA, "key.created", "key_7")
    for statement in (update(AuditRow).values(actor="usr_eve"), delete(AuditRow)):
        with pytest.raises(IntegrityError, match="append-only"):
            await database.write(lambda session, statement=statement: session.exec(statement))
    [line] = (await audit.list(Scope("acme")))[0]
    assert line.actor == "usr_ada"


async def test_a_tenant_reads_its_own_lines_page_by_page(database: Database, audit: Audit) -> None:
    bob = replace(ADA, scope=Scope("globex", "usr_bob"))
    for n in range(7):
        await database.write(audit.record, ADA, "key.created" if n % 2 else "keyring.made", f"key_{n}")
        await database.write(audit.record, bob, "key.created", f"key_bob{n}")
    seen, cursor = [], None
    while True:
        page, cursor = await audit.list(Scope("acme"), limit=3, cursor=cursor)
        seen += [line.id for line in page]
        assert not any("bob" in line.subject for line in page)
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 7
    assert seen == sorted(seen, reverse=True)
    for action, count in (("key.created", 3), ("key", 3), ("keyring", 4), ("ke", 0), ("%", 0), ("\ud800", 0)):
        assert len((await audit.list(Scope("acme"), action=action))[0]) == count
    for limit in (0, 201):
        with pytest.raises(Invalid):
            await audit.list(Scope("acme"), limit=limit)
    assert (await audit.list(Scope("acme"), cursor="\ud800"))[0] == []


async def test_of_what_happened_in_one_millisecond_the_later_stands_first(database: Database, audit: Audit) -> None:
    def many(session: Session) -> None:
        for n in range(50):
            audit.record(session, ADA, "key.created", f"key_{n}")

    await database.write(many)
    assert [line.subject for line in (await audit.list(Scope("acme")))[0]] == [f"key_{n}" for n in reversed(range(50))]


async def test_what_is_done_to_another_tenant_is_in_both_logs(town: Town) -> None:
    olga = await town.owner()
    acme = (await town.tenants.create(olga, "Acme")).id
    await town.people.invite(olga, tenant_id=acme)
    theirs, _ = await town.audit.list(Scope(acme))
    assert [(line.actor, line.action) for line in theirs] == [
        (olga.scope.user, "invitation.created"),
        (olga.scope.user, "tenant.created"),
    ]
    ours, _ = await town.audit.list(Scope(DEFAULT_TENANT))
    assert [line.action for line in ours] == ["invitation.created", "tenant.created", "user.registered"]
    assert [line.detail.get("in_tenant") for line in ours] == ["Acme", "Acme", None]
    assert all("in_tenant" not in line.detail for line in theirs)


async def test_every_administrative_act_has_its_line_and_no_line_a_name(town: Town) -> None:
    olga, ada = await town.owner(), await town.person("Philomena")
    acme, her = await town.tenant("Acme"), ada.scope.user or ""
    offer, _ = await town.people.invite(olga, email="carl@example.org")
    await town.people.revoke_invitation(olga, offer.id)
    _, token = await town.people.invite(olga, tenant_id=acme)
    await town.people.accept(ada, token)
    await town.people.rename(ada, her, "Adelheid")
    await town.people.set_role(olga, her, "admin")
    await town.people.disable(olga, her, True)
    await town.people.disable(olga, her, False)
    await town.people.remove_member(olga, her)
    await town.people.erase(olga, her)
    await town.tenants.change(olga, acme, name="Acme AG", disabled=True)
    await town.tenants.delete(olga, acme)
    lines, _ = await town.audit.list(Scope(DEFAULT_TENANT), limit=200)
    assert {line.action for line in lines} == {
        "user.registered",
        "user.renamed",
        "user.disabled",
        "user.enabled",
        "user.erased",
        "invitation.created",
        "invitation.revoked",
        "member.role_changed",
        "member.removed",
        "tenant.created",
        "tenant.changed",
        "tenant.deleted",
    }
    # Where else somebody belongs is no business of a tenant.
    joined = [line for line in (await town.audit.list(Scope(acme)))[0] if line.action == "member.joined"]
    assert [line.actor for line in joined] == [her]
    told = str(lines).lower()
    assert not any(name in told for name in ("philomena", "adelheid", "olga", "carl", "example.org"))
