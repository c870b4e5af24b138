"""Invitations: good once, for a while, until revoked, and for whom they name."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import Session, select
from tests.accounts.town import PASSWORD, TERMINAL, Town, caller_of, key_of

from terrace.accounts.base import LOCAL
from terrace.accounts.invitations import MAX_OPEN
from terrace.accounts.tables import InvitationRow
from terrace.errors import Conflict, Denied, Invalid, Missing, TerraceError, Unauthenticated
from terrace.types import DEFAULT_TENANT, Scope, moment, now

DAY = 86_400


async def test_an_invitation_tells_what_it_offers(town: Town) -> None:
    olga, acme = await town.owner(), await town.tenant("Acme")
    made, token = await town.people.invite(olga, email=" Ada@Example.org", role="admin", tenant_id=acme)
    assert token.startswith("tri_")
    assert made.id.startswith("inv_")
    seen = await town.people.look(f" {token}\n")
    assert seen == made
    assert (seen.tenant_id, seen.tenant_name, seen.email, seen.role) == (acme, "Acme", "ada@example.org", "admin")
    assert seen.invited_by == olga.scope.user
    assert abs(seen.expires_at - moment(now()) - timedelta(days=7)) < timedelta(minutes=1)


async def test_the_token_is_kept_nowhere(town: Town) -> None:
    olga = await town.owner()
    _, token = await town.people.invite(olga)
    secret = token.split("_", 2)[2]
    row = await town.database.read(lambda session: session.exec(select(InvitationRow)).one())
    assert secret not in str(row.model_dump())
    assert secret not in str(await town.audit.list(Scope()))


async def test_a_new_person_registers_with_it_once(town: Town) -> None:
    await town.owner()
    acme = await town.tenant("Acme")
    _, token = await town.people.invite(TERMINAL, role="admin", tenant_id=acme)

    async def register(n: int) -> str:
        user = await town.people.register(
            "Ada", f"ada{n}@example.org", PASSWORD, invitation=token, caller=None, near=False
        )
        return user.id

    answers = await asyncio.gather(*(register(n) for n in range(4)), return_exceptions=True)
    [joined] = [each for each in answers if isinstance(each, str)]
    assert all(isinstance(each, str | Missing) for each in answers)
    assert [(tenant.id, role) for tenant, role in await town.people.tenants_of(joined)] == [(acme, "admin")]
    with pytest.raises(Missing):
        await town.people.look(token)


async def test_a_registration_that_fails_leaves_the_invitation_good(town: Town) -> None:
    await town.owner()
    _, token = await town.people.invite(TERMINAL)
    with pytest.raises(Conflict):
        await town.people.register("O", "olga@example.org", PASSWORD, invitation=token, caller=None, near=False)
    with pytest.raises(Invalid):
        await town.people.register("Ada", "ada@example.org", "password", invitation=token, caller=None, near=False)
    assert await town.people.look(token)


async def test_whoever_has_an_account_accepts_it(town: Town) -> None:
    await town.owner()
    acme, ada = await town.tenant("Acme"), await town.person("Ada")
    _, token = await town.people.invite(TERMINAL, role="owner", tenant_id=acme)
    assert (await town.people.accept(ada, token)).id == acme
    tenants = await town.people.tenants_of(ada.scope.user or "")
    assert [(tenant.name, role) for tenant, role in tenants] == [("Acme", "owner"), ("Default", "member")]
    with pytest.raises(Missing):
        await town.people.accept(ada, token)
    _, again = await town.people.invite(TERMINAL, tenant_id=acme)
    with pytest.raises(Conflict) as told:
        await town.people.accept(ada, again)
    assert told.value.code == "already_member"
    assert await town.people.look(again)  # it was not used up


async def test_only_a_person_accepts(town: Town) -> None:
    await town.owner()
    ada = await town.person("Ada")
    _, token = await town.people.invite(TERMINAL, tenant_id=await town.tenant("Acme"))
    for nobody in (TERMINAL, LOCAL):
        with pytest.raises(Unauthenticated):
            await town.people.accept(nobody, token)
    with pytest.raises(Denied):
        await town.people.accept(key_of(ada, "chat"), token)


async def test_one_that_names_an_address_is_for_nobody_else(town: Town) -> None:
    await town.owner()
    eve, acme = await town.person("Eve"), await town.tenant("Acme")
    _, token = await town.people.invite(TERMINAL, email="ADA@example.org", tenant_id=acme)
    with pytest.raises(Denied) as told:
        await town.people.accept(eve, token)
    assert told.value.code == "invitation_not_yours"
    with pytest.raises(Denied):
        await town.people.register("Eve", "eve2@example.org", PASSWORD, invitation=token, caller=None, near=True)
    await town.people.register("Ada", "ada@EXAMPLE.org", PASSWORD, invitation=token, caller=None, near=False)


async def test_it_expires_and_is_revoked(town: Town) -> None:
    olga = await town.owner()
    (first, one), (_, another) = await town.people.invite(olga), await town.people.invite(olga)
    assert len(await town.people.invitations(olga.scope)) == 2
    await town.people.revoke_invitation(olga, first.id)
    with pytest.raises(Missing):
        await town.people.look(one)
    with pytest.raises(Missing):
        await town.people.revoke_invitation(olga, first.id)
    assert len(await town.people.invitations(olga.scope)) == 1
    town.clock.ahead = 7 * DAY + 1
    with pytest.raises(Missing):
        await town.people.look(another)
    assert await town.people.invitations(olga.scope) == []
    await town.people.invite(olga)
    rows = await town.database.read(lambda session: session.exec(select(InvitationRow)).all())
    assert len(rows) == 1  # what is over does not pile up


async def test_what_is_no_token_is_told(town: Town) -> None:
    for wild in ("", "tri_", "tri_x_y", "\0", "\ud800", "x" * 10**6):
        with pytest.raises(Missing) as told:
            await town.people.look(wild)
        assert told.value.code == "invitation_bad"


async def test_a_secret_of_another_invitation_does_not_fit(town: Town) -> None:
    olga = await town.owner()
    (_, one), (_, another) = await town.people.invite(olga), await town.people.invite(olga)
    with pytest.raises(Missing):
        await town.people.look(one[:30] + another[30:])


async def test_nobody_invites_above_their_own_rank(town: Town) -> None:
    olga, admin = await town.owner(), await town.person("Alf", "admin")
    await town.people.invite(admin, role="admin")
    with pytest.raises(Denied) as told:
        await town.people.invite(admin, role="owner")
    assert told.value.code == "role_above_yours"
    offer, _ = await town.people.invite(olga, role="owner")
    with pytest.raises(Denied):
        await town.people.revoke_invitation(admin, offer.id)
    with pytest.raises(Invalid):
        await town.people.invite(olga, role="king")  # type: ignore[arg-type]


async def test_a_key_gives_no_administration_that_it_lacks(town: Town) -> None:
    olga = await town.owner()
    narrow = key_of(olga, "members")
    await town.people.invite(narrow, role="member")
    for role in ("admin", "owner"):
        with pytest.raises(Denied):
            await town.people.invite(narrow, role=role)  # type: ignore[arg-type]


async def test_an_owner_elsewhere_makes_no_operator(town: Town) -> None:
    """Owning `default` is running the installation; only whoever does gives that."""
    await town.owner()
    almost = replace(await town.person("Ada", "owner"), permissions=frozenset({"members", "audit", "tenant"}))
    with pytest.raises(Denied):
        await town.people.invite(almost, role="owner")


async def test_tenants_see_and_touch_their_own_invitations_only(town: Town) -> None:
    await town.owner()
    acme, globex = await town.tenant("Acme"), await town.tenant("Globex")
    ada, bob = await town.person("Ada", "owner", acme), await town.person("Bob", "owner", globex)
    offer, _ = await town.people.invite(ada)
    assert await town.people.invitations(bob.scope) == []
    with pytest.raises(Missing):
        await town.people.revoke_invitation(bob, offer.id)
    for tenant in (acme, DEFAULT_TENANT, "tnt_none", "\ud800"):
        with pytest.raises(Missing):
            await town.people.invite(bob, tenant_id=tenant)
    await town.people.revoke_invitation(TERMINAL, offer.id)


async def test_nobody_joins_a_disabled_tenant(town: Town) -> None:
    await town.owner()
    acme, ada = await town.tenant("Acme"), await town.person("Ada")
    _, token = await town.people.invite(TERMINAL, tenant_id=acme)
    await town.tenants.change(TERMINAL, acme, disabled=True)
    with pytest.raises(Conflict):
        await town.people.accept(ada, token)
    with pytest.raises(Conflict):
        await town.people.register("Bob", "bob@example.org", PASSWORD, invitation=token, caller=None, near=True)
    with pytest.raises(Conflict):
        await town.people.invite(TERMINAL, tenant_id=acme)


async def test_who_loses_a_role_cannot_come_back_by_what_they_offered(town: Town) -> None:
    olga, ada = await town.owner(), await town.person("Ada", "owner")
    (_, high), (_, low) = await town.people.invite(ada, role="owner"), await town.people.invite(ada, role="viewer")
    await town.people.set_role(olga, ada.scope.user or "", "member")
    with pytest.raises(Missing):
        await town.people.look(high)
    assert await town.people.look(low)
    await town.people.remove_member(olga, ada.scope.user or "")
    with pytest.raises(Missing):
        await town.people.look(low)


async def test_a_member_needs_no_invitation(town: Town) -> None:
    olga = await town.owner()
    with pytest.raises(Conflict) as told:
        await town.people.invite(olga, email="olga@example.org")
    assert told.value.code == "already_member"


async def test_open_invitations_are_bounded(town: Town) -> None:
    olga = await town.owner()

    def fill(session: Session) -> None:
        for n in range(MAX_OPEN):
            session.add(
                InvitationRow(
                    id=f"inv_{n:026}",
                    tenant_id=DEFAULT_TENANT,
                    role="member",
                    secret_hash="x",
                    created_at=now(),
                    expires_at=now() + DAY,
                )
            )

    await town.database.write(fill)
    with pytest.raises(TerraceError) as told:
        await town.people.invite(olga)
    assert told.value.code == "too_many_invitations"
    assert len(await town.people.invitations(olga.scope)) == MAX_OPEN


async def test_before_the_first_account_one_invites_from_the_terminal(town: Town) -> None:
    _, token = await town.people.invite(TERMINAL, role="owner")
    user = await town.people.register("Olga", "olga@example.org", PASSWORD, invitation=token, caller=None, near=False)
    assert await town.role(caller_of(user, "owner")) == "owner"
    assert town.adopted == [user.id]
