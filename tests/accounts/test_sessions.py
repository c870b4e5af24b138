"""Logging in, staying logged in, and what ends it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import text as sql
from sqlmodel import select
from tests.accounts.identity import SECRET, Clock, add_tenant, add_user, caller_of, join, terminal
from tests.accounts.postbox import Postbox, postbox

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.base import LOCAL, Caller, Tokens
from terrace.accounts.families import MAX_SESSIONS
from terrace.accounts.gatekeeper import Gatekeeper
from terrace.accounts.keys import Keys
from terrace.accounts.mail import Mail
from terrace.accounts.passwords import Passwords
from terrace.accounts.resets import MAX_OPEN
from terrace.accounts.sessions import Sessions
from terrace.accounts.tables import SessionRow, UserRow
from terrace.accounts.throttle import Throttle
from terrace.accounts.tokens import AccessTokens
from terrace.errors import Conflict, Denied, Invalid, Limited, Missing, TerraceError, Unauthenticated
from terrace.storage import Database

OPTIONS = settings.Accounts()
PASSWORD, NEW = "plum-orbit-candle-41", "walnut-river-signal-77"
WEAK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # quick, and to be made anew at the first login


class House:
    """What the sessions work with."""

    def __init__(self, database: Database, passwords: Passwords, mail: Mail) -> None:
        self.database = database
        self.clock = Clock()
        self.audit = Audit(database)
        self.gate = Gatekeeper(database, OPTIONS, SECRET, loopback=False, clock=self.clock)
        self.throttle = Throttle(database, OPTIONS, clock=self.clock)
        self.sessions = Sessions(
            database,
            OPTIONS,
            SECRET,
            passwords,
            self.throttle,
            self.audit,
            mail,
            changed=self.gate.changed,
            clock=self.clock,
        )

    async def person(self, email: str = "ada@example.org", **more: Any) -> str:
        return await add_user(self.database, email, password_hash=WEAK.hash(PASSWORD), **more)

    async def login(self, email: str = "ada@example.org", password: str = PASSWORD, **more: Any) -> Tokens:
        return await self.sessions.login(email, password, **more)

    async def caller(self, tokens: Tokens) -> Caller:
        headers = {b"authorization": f"Bearer {tokens.access_token}".encode()}
        return self.gate.known(headers, "192.0.2.7") or await self.gate.authenticate(headers, "192.0.2.7")

    async def ended(self, tokens: Tokens) -> bool:
        """Neither its access token nor its refresh token is good."""
        codes = {await code_of(self.caller(tokens)), await code_of(self.sessions.refresh(tokens.refresh_token))}
        return codes == {"session_revoked"}

    async def execute(self, statement: str) -> None:
        await self.database.write(lambda session: session.connection().execute(sql(statement)) and None)
        self.gate.changed()


async def code_of(act: Any) -> str:
    try:
        await act
    except TerraceError as error:
        return error.code
    return ""


@pytest.fixture
async def box() -> AsyncIterator[Postbox]:
    async with postbox() as box:
        yield box


@pytest.fixture
async def house(database: Database, passwords: Passwords, box: Postbox) -> AsyncIterator[House]:
    house = House(database, passwords, Mail(box.options()))
    yield house
    await house.sessions.close()
    await house.gate.close()


# -- logging in


async def test_a_login_gives_tokens_that_let_in(house: House) -> None:
    user = await house.person()
    tokens = await house.login(" Ada@Example.ORG ", address="192.0.2.7", agent="A Browser/1.0\x1b[31m")
    assert (tokens.user.id, tokens.tenant.id, tokens.role) == (user, "default", "owner")
    assert tokens.expires_in == 15 * 60
    assert tokens.user.last_login_at is not None
    assert re.fullmatch(r"trr_[0-9a-z]{26}_1_[A-Za-z0-9_-]{43}", tokens.refresh_token)
    caller = await house.caller(tokens)
    assert (caller.scope.user, caller.scope.tenant, caller.via) == (user, "default", "session")
    assert tokens.csrf == house.gate.csrf(caller.session or "")
    [session] = await house.sessions.list(caller)
    assert (session.address, session.agent, session.current) == ("192.0.2.7", "A Browser/1.0[31m", True)
    claims = AccessTokens(SECRET, 15).verify(tokens.access_token)
    assert claims.session == session.id


async def test_secrets_are_kept_as_hashes_and_shown_nowhere(house: House, caplog: pytest.LogCaptureFixture) -> None:
    await house.person()
    tokens = await house.login()
    row = await house.database.read(lambda session: session.exec(select(SessionRow)).one().model_dump_json())
    secret = tokens.refresh_token.split("_", 3)[3]
    assert secret not in row
    await house.sessions.refresh(tokens.refresh_token)
    assert await code_of(house.sessions.refresh(tokens.refresh_token)) == "session_revoked"
    assert secret not in caplog.text
    assert "used twice" in caplog.text


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("ada@example.org", "wrong"),
        ("eve@example.org", PASSWORD),
        ("no address", PASSWORD),
        ("bob@example.org", PASSWORD),
        ("oidc@example.org", PASSWORD),
        ("ada@example.org", ""),
        ("ada@example.org", "x" * 100_000),
        ("\x00" * 999, "\ud800"),
    ],
    ids=["password", "unknown", "no address", "disabled", "without password", "empty", "huge", "wild"],
)
async def test_one_answer_for_whatever_is_wrong(house: House, email: str, password: str) -> None:
    await house.person()
    await house.person("bob@example.org")
    await add_user(house.database, "oidc@example.org")
    await house.execute("UPDATE users SET disabled_at = 1 WHERE email = 'bob@example.org'")
    with pytest.raises(Unauthenticated) as caught:
        await house.login(email, password)
    assert caught.value.code == "bad_login"
    assert caught.value.message == "The e-mail address or the password is wrong."


async def test_time_does_not_tell_whether_an_account_exists(house: House, passwords: Passwords) -> None:
    await add_user(house.database, "ada@example.org", password_hash=await passwords.hash(PASSWORD))
    await add_user(house.database, "oidc@example.org")

    emails = ("ada@example.org", "nobody@example.org", "oidc@example.org", "no address")
    times: dict[str, list[float]] = {email: [] for email in emails}

    for _ in range(6):
        for email in emails:
            began = time.process_time()  # what it costs: other programs add to how long it takes, for all alike
            assert await code_of(house.login(email, "wrong-but-long-enough")) == "bad_login"
            times[email].append(time.process_time() - began)
        house.clock.ahead += 1000  # nobody is slowed down
    known, *others = (min(times[email]) for email in emails)
    assert all(0.4 < other / known < 2.5 for other in others), times


async def test_guessing_is_slowed_down(house: House) -> None:
    await house.person()
    for _ in range(OPTIONS.login_attempts):
        assert await code_of(house.login(password="wrong", address="198.51.100.1")) == "bad_login"
    with pytest.raises(Limited) as caught:
        await house.login(address="198.51.100.2")
    assert caught.value.retry_after
    house.clock.ahead += 1000
    await house.login()


async def test_the_password_is_hashed_anew_when_the_parameters_are_others(house: House, passwords: Passwords) -> None:
    await house.person()

    async def hashed() -> str:
        return await house.database.read(lambda session: session.exec(select(UserRow.password_hash)).one() or "")

    assert passwords.needs_rehash(await hashed())
    await house.login()
    newer = await hashed()
    assert not passwords.needs_rehash(newer)
    await house.login()
    assert await hashed() == newer


async def test_a_password_the_rules_would_refuse_today_still_lets_in(house: House) -> None:
    await add_user(house.database, "old@example.org", password_hash=WEAK.hash("1234"))
    await house.login("old@example.org", "1234")


async def test_the_tenant_they_ask_for_or_worked_in_last(house: House) -> None:
    user = await house.person()
    await add_tenant(house.database, "tnt_a")
    await join(house.database, user, "tnt_a", "viewer")
    assert (await house.login()).tenant.id == "default"
    chosen = await house.login(tenant="tnt_a")
    assert (chosen.tenant.id, chosen.role) == ("tnt_a", "viewer")
    house.clock.ahead += 1
    assert (await house.login()).tenant.id == "tnt_a"
    await house.execute("UPDATE tenants SET disabled_at = 1 WHERE id = 'tnt_a'")
    assert (await house.login()).tenant.id == "default"
    assert await code_of(house.login(tenant="tnt_a")) == "tenant_disabled"
    assert await code_of(house.login(tenant="tnt_nobody")) == "not_a_member"
    await house.execute("DELETE FROM memberships")
    assert await code_of(house.login()) == "no_tenant"


async def test_somebody_who_showed_who_they_are_in_another_way(house: House) -> None:
    user = await house.person()
    assert (await house.caller(await house.sessions.open(user))).scope.user == user
    await house.execute("UPDATE users SET disabled_at = 1")
    assert await code_of(house.sessions.open(user)) == "account_disabled"


async def test_sessions_are_bounded(house: House) -> None:
    user = await house.person()
    first = await house.sessions.open(user)
    for _ in range(MAX_SESSIONS):
        house.clock.ahead += 0.001
        last = await house.sessions.open(user)
    assert await house.ended(first)
    assert len(await house.sessions.list(await house.caller(last))) == MAX_SESSIONS


# -- refreshing


async def test_a_refresh_token_is_good_once_and_reuse_ends_the_session(house: House) -> None:
    await house.person()
    first = await house.login()
    second = await house.sessions.refresh(first.refresh_token, address="192.0.2.9", agent="B")
    assert second.refresh_token.split("_")[2] == "2"
    [session] = await house.sessions.list(await house.caller(second))
    assert (session.address, session.agent) == ("192.0.2.9", "B")
    third = await house.sessions.refresh(second.refresh_token)
    await house.caller(third)
    assert await code_of(house.sessions.refresh(first.refresh_token)) == "session_revoked"
    for tokens in (first, second, third):
        assert await house.ended(tokens)
    lines, _ = await house.audit.list(terminal().scope, action="session.reused")
    assert [each.subject for each in lines] == [session.id]


async def test_other_sessions_live_on(house: House) -> None:
    await house.person()
    stolen, other = await house.login(), await house.login()
    await house.sessions.refresh(stolen.refresh_token)
    await code_of(house.sessions.refresh(stolen.refresh_token))
    await house.caller(other)
    await house.sessions.refresh(other.refresh_token)


@pytest.mark.both
async def test_two_at_the_very_same_time_never_both_win(house: House) -> None:
    await house.person()
    tokens = await house.login()
    codes = await asyncio.gather(*(code_of(house.sessions.refresh(tokens.refresh_token)) for _ in range(8)))
    assert sorted(codes) == ["", *["session_revoked"] * 7]


async def test_an_unused_session_expires_and_a_used_one_lives(house: House) -> None:
    await house.person()
    used, unused = await house.login(), await house.login()
    house.clock.ahead += 29 * 86_400
    used = await house.sessions.refresh(used.refresh_token)
    house.clock.ahead += 2 * 86_400
    assert await code_of(house.sessions.refresh(unused.refresh_token)) == "session_expired"
    await house.sessions.refresh(used.refresh_token)


@pytest.mark.parametrize("change", ["secret", "generation", "session", "short", "long", "wild"])
async def test_a_forged_refresh_token_does_nothing(house: House, change: str) -> None:
    await house.person()
    tokens = await house.login()
    kind, body, generation, secret = tokens.refresh_token.split("_", 3)
    forged = {
        "secret": f"{kind}_{body}_{generation}_{'A' * 43}",
        "generation": f"{kind}_{body}_2_{secret}",
        "session": f"{kind}_{'0' * 26}_{generation}_{secret}",
        "short": tokens.refresh_token[:-1],
        "long": tokens.refresh_token + "A",
        "wild": "\x00\ud800_" * 100,
    }[change]
    assert await code_of(house.sessions.refresh(forged)) == "refresh_invalid"
    await house.sessions.logout(None, forged)
    await house.sessions.refresh(tokens.refresh_token)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE users SET disabled_at = 1", "account_disabled"),
        ("UPDATE tenants SET disabled_at = 1", "tenant_disabled"),
        ("DELETE FROM memberships", "not_a_member"),
    ],
)
async def test_who_may_not_come_in_any_more_may_not_stay(house: House, statement: str, code: str) -> None:
    await house.person()
    tokens = await house.login()
    await house.execute(statement)
    assert await code_of(house.sessions.refresh(tokens.refresh_token)) == code
    assert await code_of(house.caller(tokens)) == code


# -- ending


@pytest.mark.parametrize("way", ["access", "refresh", "both", "used"])
async def test_logout_ends_it_at_once(house: House, way: str) -> None:
    await house.person()
    tokens, other = await house.login(), await house.login()
    caller = await house.caller(tokens)
    last = tokens
    if way == "used":
        last = await house.sessions.refresh(tokens.refresh_token)
    await house.sessions.logout(
        caller if way in ("access", "both") else None, tokens.refresh_token if way != "access" else None
    )
    assert await house.ended(last)
    await house.caller(other)
    await house.sessions.logout(None, None)


async def test_sessions_are_seen_and_ended_by_whose_they_are(house: House) -> None:
    await house.person()
    await house.person("bob@example.org")
    here, there = await house.login(), await house.login()
    bobs = await house.caller(await house.login("bob@example.org"))
    me = await house.caller(here)
    sessions = await house.sessions.list(me)
    assert {each.current for each in sessions} == {True, False}
    for each in sessions:
        assert await code_of(house.sessions.revoke(bobs, each.id)) == "session_missing"
    assert await code_of(house.sessions.revoke(me, "ses_\x00")) == "session_missing"
    await house.sessions.revoke(me, next(each.id for each in sessions if not each.current))
    assert await house.ended(there)
    assert len(await house.sessions.list(me)) == 1


async def test_a_key_is_no_login(house: House) -> None:
    owner = await caller_of(house.database, await house.person())
    _, text = await Keys(house.database, OPTIONS, house.audit).create(owner, name="a")
    by_key = await house.gate.authenticate({b"x-api-key": text.encode()}, "")
    for caller in (by_key, LOCAL, terminal()):
        for act in (
            house.sessions.list(caller),
            house.sessions.revoke(caller, "ses_x"),
            house.sessions.switch(caller, "default"),
            house.sessions.change_password(caller, PASSWORD, NEW),
        ):
            assert await code_of(act) == "login_needed"
    for caller in (by_key, LOCAL):
        assert await code_of(house.sessions.reset_link(caller, owner.scope.user or "")) == "login_needed"
    await house.sessions.logout(by_key)


async def test_switching_to_another_tenant(house: House) -> None:
    user = await house.person()
    await add_tenant(house.database, "tnt_a")
    await join(house.database, user, "tnt_a", "member")
    await add_tenant(house.database, "tnt_b")
    before = await house.login()
    after = await house.sessions.switch(await house.caller(before), "tnt_a")
    caller = await house.caller(after)
    assert (caller.scope.tenant, caller.role, after.tenant.id) == ("tnt_a", "member", "tnt_a")
    assert "operator" not in caller.permissions
    assert (await house.sessions.refresh(after.refresh_token)).tenant.id == "tnt_a"
    for unknown in ("tnt_b", "tnt_c", "\x00"):
        assert await code_of(house.sessions.switch(caller, unknown)) == "tenant_missing"
    assert await code_of(house.sessions.refresh(before.refresh_token)) == "session_revoked"


# -- passwords


async def test_a_new_password_ends_the_other_sessions(house: House) -> None:
    await house.person()
    here, there = await house.login(), await house.login()
    caller = await house.caller(here)
    link = await house.sessions.reset_link(terminal(), caller.scope.user or "")
    assert await code_of(house.sessions.change_password(caller, "wrong", NEW)) == "wrong_password"
    assert await code_of(house.sessions.change_password(caller, PASSWORD, "short")) == "password_short"
    await house.sessions.change_password(caller, PASSWORD, NEW)
    assert await house.ended(there)
    await house.caller(here)
    await house.sessions.refresh(here.refresh_token)
    assert await code_of(house.sessions.reset(link, NEW)) == "reset_invalid"
    assert await code_of(house.login()) == "bad_login"
    await house.login(password=NEW)
    lines, _ = await house.audit.list(caller.scope)
    assert [each.action for each in lines] == ["password.changed", "user.reset_link"]


async def test_guessing_the_current_password_is_slowed_down_too(house: House) -> None:
    await house.person()
    caller = await house.caller(await house.login())
    for _ in range(OPTIONS.login_attempts):
        assert await code_of(house.sessions.change_password(caller, "wrong", NEW)) == "wrong_password"
    with pytest.raises(Limited):
        await house.sessions.change_password(caller, PASSWORD, NEW)


async def test_who_has_no_password_gets_one_by_link(house: House) -> None:
    user = await add_user(house.database, "ada@example.org")
    caller = await house.caller(await house.sessions.open(user))
    with pytest.raises(Conflict):
        await house.sessions.change_password(caller, "", NEW)
    await house.sessions.reset(await house.sessions.reset_link(terminal(), user), NEW)
    await house.login(password=NEW)


async def test_a_link_is_good_once_and_ends_all_sessions(house: House) -> None:
    user = await house.person()
    tokens = await house.login()
    token = await house.sessions.reset_link(terminal(), user)
    other = await house.sessions.reset_link(terminal(), user)
    assert re.fullmatch(r"trp_[0-9a-z]{26}_[A-Za-z0-9_-]{43}", token)
    with pytest.raises(Invalid):
        await house.sessions.reset(token, "short")
    await house.sessions.reset(token, NEW, address="192.0.2.7")
    assert await house.ended(tokens)
    await house.login(password=NEW)
    for used in (token, other, token[:-1] + "A", "trp_x", ""):
        with pytest.raises(Missing):
            await house.sessions.reset(used, PASSWORD)
    lines, _ = await house.audit.list(terminal().scope, action="password")
    assert [(each.action, each.actor, each.address) for each in lines] == [("password.reset", user, "192.0.2.7")]


async def test_a_link_expires(house: House) -> None:
    token = await house.sessions.reset_link(terminal(), await house.person())
    house.clock.ahead += 24 * 3600 + 1
    assert await code_of(house.sessions.reset(token, NEW)) == "reset_invalid"


async def test_of_two_who_use_a_link_at_once_one_wins(house: House) -> None:
    token = await house.sessions.reset_link(terminal(), await house.person())
    codes = await asyncio.gather(*(code_of(house.sessions.reset(token, f"{NEW}-{n}")) for n in range(3)))
    assert sorted(codes) == ["", "reset_invalid", "reset_invalid"]


async def test_who_may_make_a_link_for_whom(house: House) -> None:
    """Whoever holds it becomes that person."""
    owner = await house.person()
    admin = await house.person("adm@example.org", role="admin")
    member = await house.person("mem@example.org", role="member")
    await add_tenant(house.database, "tnt_a")
    stranger = await house.person("str@example.org", tenant="tnt_a")
    by_admin = await caller_of(house.database, admin)
    by_stranger = await caller_of(house.database, stranger, "tnt_a")
    await house.sessions.reset_link(by_admin, member)
    assert await code_of(house.sessions.reset_link(by_admin, owner)) == "above_you"
    assert await code_of(house.sessions.reset_link(by_admin, stranger)) == "user_missing"
    assert await code_of(house.sessions.reset_link(by_admin, "usr_nobody")) == "user_missing"
    assert await code_of(house.sessions.reset_link(by_stranger, owner)) == "user_missing"
    await join(house.database, owner, "tnt_a", "member")
    assert await code_of(house.sessions.reset_link(by_stranger, owner)) == "belongs_elsewhere"
    await house.sessions.reset_link(await caller_of(house.database, owner), stranger)


# -- having forgotten it


async def test_a_link_comes_by_mail(house: House, box: Postbox) -> None:
    await house.person()
    await house.sessions.forgot("ADA@example.org", "https://ai.example.org/")
    async with asyncio.timeout(20):
        mail = await box.came.get()
    assert mail["To"] == "ada@example.org"
    found = re.search(r"https://ai\.example\.org/reset#(trp_\S+)", mail.get_content())
    assert found is not None
    await house.sessions.reset(found[1], NEW)
    await house.login(password=NEW)


async def test_nobody_learns_whether_an_account_exists(house: House, box: Postbox) -> None:
    """The answer comes before anybody has looked."""
    await house.person()
    await house.person("bob@example.org")
    await house.execute("UPDATE users SET disabled_at = 1 WHERE email = 'bob@example.org'")
    for email in ("nobody@example.org", "bob@example.org", "ada@example.org"):
        await house.sessions.forgot(email, "https://ai.example.org")
        assert box.came.empty()
        async with asyncio.timeout(20):
            await asyncio.gather(*house.sessions._mails)
    assert box.recipients == ["ada@example.org"]


async def test_nobody_is_flooded_with_mails(house: House, box: Postbox) -> None:
    await house.person()
    for _ in range(MAX_OPEN + 3):
        await house.sessions.forgot("ada@example.org", "https://ai.example.org")
        await asyncio.gather(*house.sessions._mails)
    assert len(box.recipients) == MAX_OPEN


async def test_a_mail_that_cannot_be_sent_is_logged_without_its_secret(
    database: Database, passwords: Passwords, caplog: pytest.LogCaptureFixture
) -> None:
    async with postbox() as box:
        away = box.options(user="terrace", password=SecretStr("letter-opener"))
    house = House(database, passwords, Mail(away))
    await house.person()
    await house.sessions.forgot("ada@example.org", "https://ai.example.org")
    await asyncio.gather(*house.sessions._mails)
    assert "could not be sent" in caplog.text
    assert "trp_" not in caplog.text
    assert "letter-opener" not in caplog.text


async def test_without_a_mail_server_the_answer_is_the_same(database: Database, passwords: Passwords) -> None:
    house = House(database, passwords, Mail(settings.SMTP()))
    await house.person()
    await house.sessions.forgot("ada@example.org", "https://ai.example.org")
    assert not house.sessions._mails
    with pytest.raises(Invalid):
        await house.sessions.forgot("no address", "https://ai.example.org")
    with pytest.raises(Denied):
        await house.sessions.list(LOCAL)
