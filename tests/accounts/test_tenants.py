"""Tenants: made, found, changed and deleted."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import insert
from sqlmodel import Session, select
from tests.accounts.town import TERMINAL, Town

from terrace.accounts.base import Caller
from terrace.accounts.roles import ROLES
from terrace.accounts.tables import (
    AuditRow,
    InvitationRow,
    KeyRow,
    LimitRow,
    MembershipRow,
    SessionRow,
    TenantRow,
    UserRow,
)
from terrace.errors import Conflict, Denied, Invalid, Missing
from terrace.types import DEFAULT_TENANT, Scope

MODELS = ("openai/*", "quote")


async def test_a_tenant_is_made_and_told(town: Town) -> None:
    acme = await town.tenants.create(TERMINAL, "  Acme  GmbH ", MODELS)
    assert acme.id.startswith("tnt_")
    assert (acme.name, acme.models, acme.disabled, acme.members) == ("Acme GmbH", MODELS, False, 0)
    await town.person("Ada", "owner", acme.id)
    assert (await town.tenants.get(acme.id)).members == 1


@pytest.mark.both
async def test_names_are_unique_whatever_their_case_and_whoever_is_quicker(town: Town) -> None:
    names = ("Acme", "ACME", "acme ", "Ａcme")
    answers = await asyncio.gather(*(town.tenants.create(TERMINAL, name) for name in names), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, Conflict)]
    assert [each.code for each in refused] == ["tenant_name_taken"] * 3
    with pytest.raises(Conflict):  # kept for the tenant that the first account will own
        await town.tenants.create(TERMINAL, "Default")
    globex = await town.tenant("Globex")
    with pytest.raises(Conflict):
        await town.tenants.change(TERMINAL, globex, name="aCME")
    await town.tenants.change(TERMINAL, globex, name="GLOBEX")


async def test_bad_names_and_patterns_are_told(town: Town) -> None:
    for name in ("", " ", "a\nb", "\0", "x" * 101, "\ud800", "x" * 10**6):
        with pytest.raises(Invalid) as told:
            await town.tenants.create(TERMINAL, name)
        assert told.value.code == "bad_tenant_name"
    for models in (("",), ("a b",), ("x" * 201,), ("a\n",), tuple(f"m{n}" for n in range(101))):
        with pytest.raises(Invalid) as told:
            await town.tenants.create(TERMINAL, "Acme", models)
        assert told.value.code == "bad_models"
    assert await town.tenants.list() == ([], None)


async def test_the_default_tenant_is_always_there_and_stays(town: Town) -> None:
    assert (await town.tenants.get(DEFAULT_TENANT)).name == "Default"
    with pytest.raises(Conflict):
        await town.tenants.delete(TERMINAL, DEFAULT_TENANT)
    with pytest.raises(Conflict):
        await town.tenants.change(TERMINAL, DEFAULT_TENANT, disabled=True)
    assert (await town.tenants.change(TERMINAL, DEFAULT_TENANT, name="House")).name == "House"
    await town.owner()
    assert (await town.tenants.get(DEFAULT_TENANT)).members == 1


async def test_operators_change_all_and_owners_their_own_name(town: Town) -> None:
    acme, globex = await town.tenant("Acme"), await town.tenant("Globex")
    owner = Caller(Scope(acme, "usr_ada"), ROLES["owner"], "owner", "session")
    assert (await town.tenants.change(owner, acme, name="Acme AG")).name == "Acme AG"
    with pytest.raises(Denied):
        await town.tenants.change(owner, acme, models=["*"])
    with pytest.raises(Denied):
        await town.tenants.change(owner, acme, disabled=False)
    with pytest.raises(Missing):
        await town.tenants.change(owner, globex, name="Mine")
    with pytest.raises(Missing):
        await town.tenants.delete(owner, globex)
    before = town.changes
    await town.tenants.change(TERMINAL, acme, name="Acme AG")  # which changes nothing
    last = (await town.audit.list(Scope(acme)))[0][0]
    assert (last.action, last.actor, last.detail) == ("tenant.changed", "usr_ada", {"name": "Acme AG"})
    changed = await town.tenants.change(TERMINAL, globex, models=MODELS, disabled=True)
    assert (changed.models, changed.disabled) == (MODELS, True)
    assert not (await town.tenants.change(TERMINAL, globex, models=(), disabled=False)).disabled
    assert town.changes == before + 3


async def test_what_is_not_there_is_missing(town: Town) -> None:
    for wild in ("tnt_none", "", "\0", "\ud800", "x" * 10_000):
        for attempt in (
            town.tenants.get(wild),
            town.tenants.change(TERMINAL, wild, name="X"),
            town.tenants.delete(TERMINAL, wild),
        ):
            with pytest.raises(Missing):
                await attempt


def _furnish(session: Session, tenant: str, user: str) -> None:
    ids: dict[str, Any] = {"tenant_id": tenant, "user_id": user, "created_at": 1.0, "expires_at": 9e9}
    session.add(SessionRow(id=f"ses_{tenant}", refresh_hash="x", last_used_at=1.0, **ids))
    session.add(KeyRow(id=f"key_{tenant}", name="k", secret_hash="x", hint="x", **ids))
    session.add(
        LimitRow(
            tenant_id=tenant, subject_kind="tenant", subject_id="", name="documents", value=1, set_by="x", set_at=1.0
        )
    )


@pytest.mark.both
async def test_deleting_one_takes_all_that_is_its_own(town: Town) -> None:
    acme, globex = await town.tenant("Acme"), await town.tenant("Globex")
    ada, bob = await town.person("Ada", "owner", acme), await town.person("Bob", "owner", globex)
    for tenant, user in ((acme, ada), (globex, bob)):
        await town.people.invite(TERMINAL, tenant_id=tenant)
        await town.database.write(_furnish, tenant, user.scope.user or "")
    await town.tenants.delete(TERMINAL, acme)
    assert town.erased == [acme]

    def left(session: Session) -> list[str]:
        tables = (MembershipRow, InvitationRow, KeyRow, LimitRow, SessionRow)
        return [row.tenant_id for table in tables for row in session.exec(select(table)).all()]

    kept = await town.database.read(left)
    assert acme not in kept
    assert kept.count(globex) == 5
    assert (await town.people.get(ada, ada.scope.user or "")).name == "Ada"  # people keep their accounts
    assert await town.people.tenants_of(ada.scope.user or "") == []
    with pytest.raises(Missing):
        await town.tenants.get(acme)
    lines = await town.database.read(
        lambda session: session.exec(select(AuditRow.action).where(AuditRow.tenant_id == acme)).all()
    )
    assert {"tenant.created", "user.registered", "tenant.deleted"} <= set(lines)
    assert (await town.tenants.create(TERMINAL, "Acme")).id != acme  # its name is free again


async def test_a_tenant_that_a_room_cannot_erase_stays(town: Town) -> None:
    acme = await town.tenant("Acme")

    def fails(session: Session, scope: Scope) -> None:
        raise Conflict("not now")

    town.tenants._erase = [fails]
    with pytest.raises(Conflict):
        await town.tenants.delete(TERMINAL, acme)
    assert (await town.tenants.get(acme)).name == "Acme"


async def test_they_are_listed_by_name_in_pages(town: Town) -> None:
    names = [f"Firm {n:02}" for n in range(25)] + ["émile", "Zürich", "50% off", "a_b"]
    for name in names:
        await town.tenants.create(TERMINAL, name)
    seen, cursor = [], None
    while True:
        page, cursor = await town.tenants.list(limit=7, cursor=cursor)
        seen += [tenant.name for tenant in page]
        if cursor is None:
            break
    assert sorted(seen) == sorted(names)
    assert seen == sorted(seen, key=str.casefold)

    async def found(q: str) -> list[str]:
        return [tenant.name for tenant in (await town.tenants.list(q=q))[0]]

    assert await found("FIRM 0") == [f"Firm {n:02}" for n in range(10)]
    assert await found("ZÜR") == ["Zürich"]
    assert await found("0%") == ["50% off"]
    assert await found("A_") == ["a_b"]
    assert await found("nowhere") == []
    assert await found("\0\ud800") == await found("")
    for bad in ("%", "\ud800", "abc", "Ã"):
        with pytest.raises(Invalid):
            await town.tenants.list(cursor=bad)
    with pytest.raises(Invalid):
        await town.tenants.list(limit=0)


async def test_ten_thousand_are_listed_quickly(town: Town) -> None:
    def fill(session: Session) -> None:
        numbers = [f"{n:05}" for n in range(10_000)]
        session.execute(
            insert(TenantRow),
            [
                {"id": f"tnt_{n}", "name": f"Firm {n}", "name_key": f"firm {n}", "models": [], "created_at": 1.0}
                for n in numbers
            ],
        )
        session.add(UserRow(id="usr_ada", name="Ada", email="a@b", email_key="a@b", created_at=1.0))
        session.flush()
        session.execute(
            insert(MembershipRow),
            [{"tenant_id": f"tnt_{n}", "user_id": "usr_ada", "role": "owner", "created_at": 1.0} for n in numbers[::2]],
        )

    await town.database.write(fill)
    page, cursor = await town.tenants.list(limit=200)
    for q in ("", "999"):
        start = time.process_time()
        for _ in range(5):
            page, _ = await town.tenants.list(q=q, limit=200, cursor=cursor if not q else None)
        assert (time.process_time() - start) / 5 < 0.1
        assert {tenant.members for tenant in page} == {0, 1}
