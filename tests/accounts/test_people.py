"""How people come in, are seen, and go."""

import asyncio
import json
from dataclasses import replace

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session, col, select
from tests.accounts.town import PASSWORD, TERMINAL, Town, caller_of, key_of

from terrace import settings
from terrace.accounts import store
from terrace.accounts.base import LOCAL, Caller
from terrace.accounts.naming import email_address, email_key, person_name
from terrace.accounts.naming import key_of as key_of_name
from terrace.accounts.passwords import Passwords
from terrace.accounts.tables import (
    AuditRow,
    IdentityRow,
    InvitationRow,
    KeyRow,
    LimitRow,
    MembershipRow,
    ResetRow,
    SessionRow,
    UserRow,
)
from terrace.errors import Conflict, Denied, Invalid, Limited, Missing, TerraceError
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

# -- names and addresses


NO_ADDRESSES = (
    *("", "ada", "ada@", "@example.org", "a@b@c", "a b@example.org", "ada@exa mple.org", "ada@example..org"),
    *(".a@example.org", "a,b@example.org", "ada@-example.org", "a\u202e@example.org", "\ud800@example.org"),
    *("ada\n@example.org", "ada@example.org\r\nBcc: all@example.org", "a\0@example.org"),
    *("a" * 65 + "@example.org", "ada@" + "a" * 64 + ".org", "ada@" + "a." * 130 + "org", "x" * 10**6 + "@example.org"),
)


@pytest.mark.parametrize("email", NO_ADDRESSES)
def test_what_is_no_address_is_told(email: str) -> None:
    with pytest.raises(Invalid) as told:
        email_key(email)
    assert told.value.code == "bad_email"


@pytest.mark.parametrize(
    "email",
    ["ada@example.org", "jörg@bücher.example", "用户@例子.公司", "संपर्क@डाटामेल.भारत", "o'neil+tag@sub.example.org"],
)
def test_international_addresses_are_kept(email: str) -> None:
    assert email_address(f" {email} ") == email


def test_case_and_forms_of_letters_tell_no_addresses_apart() -> None:
    assert email_key("ADA@Example.ORG") == email_key("ada@example.org") == email_key("ａｄａ＠example.org")
    assert email_key("STRASSE@example.org") == email_key("straße@example.org")


@hypothesis.settings(deadline=None)
@given(st.text() | st.emails() | st.builds("{}@{}.org".format, st.text(min_size=1), st.text(min_size=1)))
def test_any_text_is_an_address_or_invalid(text: str) -> None:
    try:
        shown, key = email_address(text), email_key(text)
    except Invalid:
        return
    assert shown.count("@") == key.count("@") == 1
    assert "\n" not in shown
    assert key.encode()
    assert key_of_name(key) == key
    assert email_key(shown) == email_key(shown.upper().lower()) or not shown.isascii()


@hypothesis.settings(deadline=None)
@given(st.text())
def test_any_text_is_a_name_or_invalid(text: str) -> None:
    try:
        name = person_name(text)
    except Invalid:
        return
    assert 0 < len(name) <= 100
    assert name.encode()
    assert "\n" not in name
    assert person_name(name) == name


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\0b", "\u202eevil", "x" * 101, "\ud800", "\u200d", "x" * 10**6])
def test_names_are_one_visible_line(name: str) -> None:
    with pytest.raises(Invalid):
        person_name(name)


# -- the first account


async def test_the_first_account_owns_the_default_tenant_and_adopts_what_was_there(town: Town) -> None:
    assert not await town.people.exists()
    user = await town.people.register("Olga", "olga@example.org", PASSWORD, caller=LOCAL, near=True)
    owner = caller_of(user, "owner")
    assert user.has_password
    assert await town.people.exists()
    assert town.adopted == [owner.scope.user]
    assert town.changes == 1
    [(tenant, role)] = await town.people.tenants_of(owner.scope.user or "")
    assert (tenant.id, role) == (DEFAULT_TENANT, "owner")


@pytest.mark.both
async def test_two_first_visits_at_once_make_one_owner(town: Town) -> None:
    answers = await asyncio.gather(
        *(town.people.register(f"N{n}", f"n{n}@example.org", PASSWORD, caller=LOCAL, near=True) for n in range(4))
    )
    roles = [role for user in answers for _, role in await town.people.tenants_of(user.id)]
    assert sorted(roles) == ["member", "member", "member", "owner"]
    assert len(town.adopted) == 1


async def test_two_first_visits_at_once_from_afar_let_one_in(database: Database, passwords: Passwords) -> None:
    town = Town(database, settings.Accounts(), passwords, loopback=False)
    answers = await asyncio.gather(
        *(
            town.people.register(
                "N", f"n{n}@example.org", PASSWORD, setup_code=town.people.setup_code, caller=None, near=False
            )
            for n in range(3)
        ),
        return_exceptions=True,
    )
    refused = [each for each in answers if isinstance(each, Denied)]
    assert len(refused) == 2
    assert {each.code for each in refused} == {"registration_closed"}


async def test_from_elsewhere_the_first_account_needs_the_setup_code(town: Town) -> None:
    for code in (None, "", "WRONG234", "\ud800", town.people.setup_code[:-1]):
        with pytest.raises(Denied) as told:
            await town.people.register(
                "Eve", "eve@example.org", PASSWORD, setup_code=code, caller=LOCAL, near=False, address="192.0.2.1"
            )
        assert told.value.code == "setup_code_wrong"
    spoken = f" {town.people.setup_code[:4].lower()}-{town.people.setup_code[4:]} "
    user = await town.people.register("Olga", "olga@example.org", PASSWORD, setup_code=spoken, caller=None, near=False)
    assert (await town.people.tenants_of(user.id))[0][1] == "owner"


async def test_the_setup_code_cannot_be_guessed_at(town: Town) -> None:
    async def guess(address: str, code: str = "WRONG234") -> TerraceError:
        with pytest.raises(TerraceError) as told:
            await town.people.register(
                "Eve", "eve@example.org", PASSWORD, setup_code=code, caller=None, near=False, address=address
            )
        return told.value

    for n in range(10):
        assert isinstance(await guess(f"2001:db8::{n}"), Denied)  # all of one network
    late = await guess("2001:db8::ffff", town.people.setup_code)
    assert isinstance(late, Limited)
    assert late.retry_after
    assert isinstance(await guess("192.0.2.1"), Denied)  # others still may try


async def test_the_terminal_needs_no_setup_code(town: Town) -> None:
    user = await town.people.register("Olga", "olga@example.org", PASSWORD, caller=TERMINAL, near=False)
    assert (await town.people.tenants_of(user.id))[0][1] == "owner"


async def test_whoever_is_invited_into_another_tenant_first_owns_that_one_only(town: Town) -> None:
    acme = await town.tenant("Acme")
    ada = await town.person("Ada", "owner", acme)
    assert [(tenant.id, role) for tenant, role in await town.people.tenants_of(ada.scope.user or "")] == [
        (acme, "owner")
    ]
    assert town.adopted == []
    olga = await town.person("Olga", "owner")  # the first owner of `default` adopts, however they came
    assert town.adopted == [olga.scope.user]


# -- registration


@pytest.mark.parametrize(
    ("registration", "loopback", "mode"),
    [
        ("auto", True, "open"),
        ("auto", False, "invite"),
        ("open", False, "open"),
        ("invite", True, "invite"),
        ("closed", True, "closed"),
    ],
)
async def test_who_may_register(
    database: Database, passwords: Passwords, registration: str, loopback: bool, mode: str
) -> None:
    options = settings.Accounts.model_validate({"registration": registration})
    town = Town(database, options, passwords, loopback=loopback)
    await town.owner()
    assert town.people.registration == mode
    attempt = town.people.register("Ada", "ada@example.org", PASSWORD, caller=None, near=True)
    if mode == "open":
        [(tenant, role)] = await town.people.tenants_of((await attempt).id)
        assert (tenant.id, role) == (DEFAULT_TENANT, "member")
    else:
        with pytest.raises(Denied) as told:
            await attempt
        assert told.value.code == "registration_closed"
    await town.person("Ina")  # the invited always may


async def test_an_operator_makes_accounts_where_registration_is_closed(
    database: Database, passwords: Passwords
) -> None:
    town = Town(database, settings.Accounts(registration="closed"), passwords)
    olga = await town.owner()
    acme = await town.tenant("Acme")
    there = replace(TERMINAL, scope=Scope(acme))
    ada = await town.people.register("Ada", "ada@example.org", PASSWORD, caller=there, near=False)
    assert [tenant.id for tenant, _ in await town.people.tenants_of(ada.id)] == [acme]
    await town.people.register("Bob", "bob@example.org", PASSWORD, caller=olga, near=False)
    nowhere = replace(TERMINAL, scope=Scope("tnt_nowhere"))
    with pytest.raises(Missing):
        await town.people.register("Cyd", "cyd@example.org", PASSWORD, caller=nowhere, near=False)


@pytest.mark.both
async def test_an_address_has_one_account_however_it_is_written_and_whoever_is_quicker(town: Town) -> None:
    await town.owner()
    answers = await asyncio.gather(
        *(
            town.people.register("Ada", email, PASSWORD, caller=None, near=True)
            for email in ("ada@example.org", "ADA@example.org", " Ada@Example.Org ", "ａda@example.org")
        ),
        return_exceptions=True,
    )
    refused = [each for each in answers if isinstance(each, Conflict)]
    assert len(refused) == 3
    assert {each.code for each in refused} == {"email_taken"}


async def test_whoever_asks_which_addresses_are_taken_is_slowed_down(database: Database, passwords: Passwords) -> None:
    town = Town(database, settings.Accounts(address_attempts=3), passwords)
    await town.owner()

    async def ask(address: str) -> TerraceError:
        with pytest.raises(TerraceError) as told:
            await town.people.register("E", "olga@example.org", PASSWORD, caller=None, near=True, address=address)
        return told.value

    assert [(await ask("192.0.2.1")).code for _ in range(4)] == ["email_taken"] * 3 + ["too_many_attempts"]
    assert (await ask("192.0.2.2")).code == "email_taken"


async def test_a_refused_password_makes_no_account(town: Town) -> None:
    for password in ("short", "password1", "olga@example.org", "Olga@Example.org", "x" * 1025):
        with pytest.raises(Invalid):
            await town.people.register("Olga", "olga@example.org", password, caller=LOCAL, near=True)
        assert not await town.people.exists()


async def test_an_oidc_provider_vouches_for_a_person_without_a_password(town: Town) -> None:
    who = {"issuer": "https://id.example.org", "subject": "7"}
    with pytest.raises(Denied):  # never the first account
        await town.people.sign_up("Ada", "ada@example.org", **who)
    await town.owner()
    ada = await town.people.sign_up("Ada", "ada@example.org", **who)
    assert not ada.has_password
    identity = await town.database.read(lambda session: session.exec(select(IdentityRow)).one())
    assert (identity.user_id, identity.issuer, identity.subject) == (ada.id, "https://id.example.org", "7")


# -- seeing and changing


async def test_one_sees_oneself_and_those_who_manage_see_their_members(town: Town) -> None:
    olga, acme, globex = await town.owner(), await town.tenant("Acme"), await town.tenant("Globex")
    ada, adam = await town.person("Ada", "admin", acme), await town.person("Adam", "member", acme)
    bob = await town.person("Bob", "owner", globex)

    async def sees(caller: Caller, whom: Caller) -> bool:
        try:
            return (await town.people.get(caller, whom.scope.user or "")).id == whom.scope.user
        except Missing:
            return False

    assert await sees(adam, adam)
    assert await sees(ada, adam)
    assert await sees(olga, adam)
    assert await sees(TERMINAL, bob)
    assert not await sees(adam, ada)
    assert not await sees(ada, bob)
    assert not await sees(bob, ada)
    assert not await sees(ada, olga)
    for wild in ("usr_none", "", "\0", "\ud800", "x" * 10_000):
        with pytest.raises(Missing):
            await town.people.get(olga, wild)


async def test_one_renames_oneself_and_nobody_else(town: Town) -> None:
    olga, admin, ada = await town.owner(), await town.person("Alf", "admin"), await town.person("Ada")
    her = ada.scope.user or ""
    assert (await town.people.rename(ada, her, " Ada  Lovelace ")).name == "Ada Lovelace"
    with pytest.raises(Denied):
        await town.people.rename(admin, her, "Eve")
    with pytest.raises(Missing):
        await town.people.rename(ada, admin.scope.user or "", "Eve")
    with pytest.raises(Denied):  # a key that leaks is not the person
        await town.people.rename(key_of(ada, "chat"), her, "Eve")
    assert (await town.people.rename(olga, her, "Ada L.")).name == "Ada L."


async def test_a_disabled_person_is_logged_out_and_their_invitations_are_void(town: Town) -> None:
    olga, ada = await town.owner(), await town.person("Ada", "admin")
    her = ada.scope.user or ""
    await town.database.write(_give_belongings, her)
    _, token = await town.people.invite(ada)
    assert (await town.people.disable(olga, her, True)).disabled
    with pytest.raises(Missing):
        await town.people.look(token)
    session = await town.database.read(lambda session: session.exec(select(SessionRow)).one())
    assert session.revoked_at is not None
    assert not (await town.people.disable(olga, her, False)).disabled
    with pytest.raises(Denied):
        await town.people.disable(ada, her, False)
    with pytest.raises(Conflict):  # who would enable them again?
        await town.people.disable(olga, olga.scope.user or "", True)


# -- going


def _give_belongings(session: Session, user_id: str) -> None:
    common = {"created_at": 1.0, "expires_at": 9e9}
    session.add(
        SessionRow(id="ses_1", tenant_id=DEFAULT_TENANT, user_id=user_id, refresh_hash="x", last_used_at=1.0, **common)
    )
    session.add(
        KeyRow(id="key_1", tenant_id=DEFAULT_TENANT, user_id=user_id, name="k", secret_hash="x", hint="x", **common)
    )
    session.add(ResetRow(id="rst_1", user_id=user_id, secret_hash="x", **common))
    session.add(IdentityRow(issuer="https://id.example.org", subject="1", user_id=user_id, created_at=1.0))
    for kind, subject in (("user", user_id), ("key", "key_1")):
        session.add(
            LimitRow(
                tenant_id=DEFAULT_TENANT,
                subject_kind=kind,
                subject_id=subject,
                name="documents",
                value=1,
                set_by="x",
                set_at=1,
            )
        )


async def test_erasing_a_person_leaves_nothing_but_ids_in_the_audit_log(town: Town) -> None:
    await town.owner()
    philomena = await town.person("Philomena")  # no id or hash holds that by chance
    her = philomena.scope.user or ""
    await town.database.write(_give_belongings, her)
    acme = await town.tenant("Acme")
    await town.people.invite(TERMINAL, email="philomena@example.org", tenant_id=acme)
    await town.people.erase(philomena, her)
    assert town.erased == [her]

    def left(session: Session) -> str:
        tables = (UserRow, MembershipRow, IdentityRow, ResetRow, SessionRow, KeyRow, LimitRow, InvitationRow)
        rows = [row.model_dump() for table in tables for row in session.exec(select(table)).all()]
        return json.dumps(rows)

    kept = await town.database.read(left)
    assert her not in kept
    assert "philomena" not in kept.lower()
    entries, _ = await town.audit.list(Scope(), limit=200)
    assert entries[0].action == "user.erased"
    assert entries[0].subject == her
    assert "philomena" not in str(entries).lower()
    with pytest.raises(Missing):
        await town.people.get(TERMINAL, her)


async def test_only_the_person_and_operators_erase_an_account(town: Town) -> None:
    olga, ada, admin = await town.owner(), await town.person("Ada"), await town.person("Alf", "admin")
    with pytest.raises(Denied):
        await town.people.erase(admin, ada.scope.user or "")
    with pytest.raises(Missing):
        await town.people.erase(ada, admin.scope.user or "")
    with pytest.raises(Denied):
        await town.people.erase(key_of(ada, "chat"), ada.scope.user or "")
    await town.people.erase(olga, ada.scope.user or "")
    assert town.erased == [ada.scope.user]


async def test_the_last_owner_of_a_tenant_is_not_erased(town: Town) -> None:
    olga, acme = await town.owner(), await town.tenant("Acme")
    ada = await town.person("Ada", "owner", acme)
    for caller, whom in ((olga, olga), (ada, ada), (olga, ada)):
        with pytest.raises(Conflict) as told:
            await town.people.erase(caller, whom.scope.user or "")
        assert told.value.code == "last_owner"
    assert town.erased == []  # the rooms were not asked, or it was undone
    await town.person("Ann", "owner", acme)
    await town.people.erase(ada, ada.scope.user or "")


async def test_what_a_room_cannot_erase_stops_the_whole(database: Database, passwords: Passwords) -> None:
    town = Town(database, settings.Accounts(), passwords)
    await town.owner()
    ada = await town.person("Ada")

    def fails(session: Session, user_id: str) -> None:
        raise Conflict("not now")

    town.people._erase = [fails]
    with pytest.raises(Conflict):
        await town.people.erase(ada, ada.scope.user or "")
    assert (await town.people.get(ada, ada.scope.user or "")).name == "Ada"


async def test_every_change_of_who_may_what_is_told_once_it_is_durable(town: Town) -> None:
    olga = await town.owner()
    ada = await town.person("Ada")
    before = town.changes
    await town.people.set_role(olga, ada.scope.user or "", "viewer")
    await town.people.disable(olga, ada.scope.user or "", True)
    await town.people.remove_member(olga, ada.scope.user or "")
    await town.people.erase(olga, ada.scope.user or "")
    assert town.changes == before + 4
    with pytest.raises(Missing):
        await town.people.remove_member(olga, "usr_none")
    assert town.changes == before + 4  # what failed changed nothing


async def test_an_id_is_kept_for_ever_in_the_audit_log(town: Town) -> None:
    ada = caller_of(await town.people.register("A", "a@example.org", PASSWORD, caller=LOCAL, near=True), "owner")
    rows = await town.database.read(lambda session: session.exec(select(AuditRow).order_by(col(AuditRow.id))).all())
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        (ada.scope.user, "user.registered", ada.scope.user)
    ]
    assert await town.database.read(lambda session: store.user_by_email(session, "a@example.org")) is not None
