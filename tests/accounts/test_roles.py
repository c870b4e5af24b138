"""Who gives and takes roles. The table of what each may do is terrace.accounts.roles."""

import asyncio
import itertools

import pytest
from sqlmodel import Session
from tests.accounts.town import TERMINAL, Town, caller_of, key_of

from terrace.accounts.base import Caller
from terrace.accounts.roles import FAMILIES, PERMISSIONS, RANK, ROLES, Role, permissions
from terrace.accounts.tables import MembershipRow, UserRow
from terrace.errors import Conflict, Denied, Invalid, Missing
from terrace.types import DEFAULT_TENANT, Scope


def test_a_higher_role_may_all_that_a_lower_one_may() -> None:
    by_rank = sorted(RANK, key=lambda role: RANK[role])
    for lower, higher in itertools.pairwise(by_rank):
        assert ROLES[lower] < ROLES[higher]


def test_only_operators_run_the_installation() -> None:
    assert all("operator" not in ROLES[role] for role in ROLES)
    assert permissions("owner", operator=True) == PERMISSIONS
    assert FAMILIES["admin"] <= PERMISSIONS


async def test_nobody_gives_or_takes_a_role_above_their_own(town: Town) -> None:
    acme = await town.tenant("Acme")
    callers: dict[Role, Caller] = {"admin": await _member(town, acme, "alf", "admin")}
    callers["owner"] = await _member(town, acme, "olga", "owner")
    for n, (by, before, after) in enumerate(itertools.product(callers, RANK, RANK)):
        whom = await _member(town, acme, f"n{n}", before)
        if RANK[by] >= max(RANK[before], RANK[after]):
            member = await town.people.set_role(callers[by], f"usr_n{n}", after)
            assert (member.role, member.user.id) == (after, f"usr_n{n}")
            assert await town.role(whom) == after
        else:
            with pytest.raises(Denied):
                await town.people.set_role(callers[by], f"usr_n{n}", after)
            assert await town.role(whom) == before


async def test_nobody_removes_a_role_above_their_own(town: Town) -> None:
    acme = await town.tenant("Acme")
    admin = await _member(town, acme, "alf", "admin")
    await _member(town, acme, "olga", "owner")
    for role in RANK:
        whom = await _member(town, acme, role, role)
        if role == "owner":
            with pytest.raises(Denied):
                await town.people.remove_member(admin, f"usr_{role}")
            assert await town.role(whom) == role
        else:
            await town.people.remove_member(admin, f"usr_{role}")
            assert await town.role(whom) is None


async def test_a_key_takes_and_gives_no_administration_that_it_lacks(town: Town) -> None:
    acme = await town.tenant("Acme")
    owner, whom = await _member(town, acme, "by", "owner"), await _member(town, acme, "whom", "member")
    narrow = key_of(owner, "members")
    await town.people.set_role(narrow, whom.scope.user or "", "viewer")
    with pytest.raises(Denied):
        await town.people.set_role(narrow, whom.scope.user or "", "admin")
    with pytest.raises(Denied):
        await town.people.remove_member(narrow, owner.scope.user or "")


async def test_a_tenant_keeps_an_owner(town: Town) -> None:
    acme = await town.tenant("Acme")
    ada = await _member(town, acme, "ada", "owner")
    for attempt in (town.people.set_role(ada, "usr_ada", "admin"), town.people.remove_member(ada, "usr_ada")):
        with pytest.raises(Conflict) as told:
            await attempt
        assert told.value.code == "last_owner"
        assert "Make another member an owner first" in told.value.message
    await town.people.set_role(ada, "usr_ada", "owner")  # which changes nothing


async def test_two_owners_who_demote_each_other_leave_one(town: Town) -> None:
    acme = await town.tenant("Acme")
    ada, bob = await _member(town, acme, "ada", "owner"), await _member(town, acme, "bob", "owner")
    answers = await asyncio.gather(
        town.people.set_role(ada, "usr_bob", "member"),
        town.people.set_role(bob, "usr_ada", "member"),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Conflict) for each in answers) == 1
    assert sorted([await town.role(ada), await town.role(bob)], key=str) == ["member", "owner"]


async def test_an_owner_who_cannot_log_in_is_none(town: Town) -> None:
    acme = await town.tenant("Acme")
    ada = await _member(town, acme, "ada", "owner")
    await _member(town, acme, "bob", "owner")
    await town.people.disable(TERMINAL, "usr_bob", True)
    with pytest.raises(Conflict):
        await town.people.remove_member(ada, "usr_ada")


async def test_members_of_other_tenants_are_not_there(town: Town) -> None:
    acme, globex = await town.tenant("Acme"), await town.tenant("Globex")
    ada = await _member(town, acme, "ada", "owner")
    await _member(town, globex, "bob", "member")
    for wild in ("usr_bob", "usr_none", "\ud800"):
        with pytest.raises(Missing):
            await town.people.set_role(ada, wild, "viewer")
        with pytest.raises(Missing):
            await town.people.remove_member(ada, wild)
    members, _ = await town.people.members(ada.scope)
    assert [member.user.id for member in members] == ["usr_ada"]


async def test_what_is_no_role_is_told(town: Town) -> None:
    acme = await town.tenant("Acme")
    ada = await _member(town, acme, "ada", "owner")
    with pytest.raises(Invalid) as told:
        await town.people.set_role(ada, "usr_ada", "king")  # type: ignore[arg-type]
    assert "viewer, member, admin, owner" in told.value.message


async def test_members_come_in_pages(town: Town) -> None:
    acme = await town.tenant("Acme")
    for n in range(7):
        await _member(town, acme, f"n{n}", "member")
    seen, cursor = [], None
    while True:
        page, cursor = await town.people.members(Scope(acme), limit=3, cursor=cursor)
        seen += [member.user.id for member in page]
        if cursor is None:
            break
    assert seen == [f"usr_n{n}" for n in range(7)]
    for limit in (0, 201):
        with pytest.raises(Invalid):
            await town.people.members(Scope(acme), limit=limit)
    assert (await town.people.members(Scope(DEFAULT_TENANT), cursor="\ud800"))[0] == []


async def _member(town: Town, tenant: str, name: str, role: Role) -> Caller:
    """Somebody who belongs to it, without the work of registering."""

    def insert(session: Session) -> None:
        email = f"{name}@example.org"
        session.add(UserRow(id=f"usr_{name}", name=name, email=email, email_key=email, created_at=1.0))
        session.flush()
        session.add(MembershipRow(tenant_id=tenant, user_id=f"usr_{name}", role=role, created_at=1.0))

    await town.database.write(insert)
    return caller_of(await town.people.get(TERMINAL, f"usr_{name}"), role, tenant)
