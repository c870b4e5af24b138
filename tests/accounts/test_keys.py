"""API keys: shown once, never stronger than whoever made them, rotated and revoked."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text as sql
from sqlmodel import Session, select
from tests.accounts.identity import Clock, add_tenant, add_user, caller_of, join, terminal

from terrace import settings
from terrace.accounts import store
from terrace.accounts.audit import Audit
from terrace.accounts.base import LOCAL, Caller
from terrace.accounts.callers import of_key
from terrace.accounts.credentials import parse_key
from terrace.accounts.keys import MAX_KEYS, Keys
from terrace.accounts.roles import FAMILIES, PERMISSIONS
from terrace.accounts.scopes import comes_from, covers, expand
from terrace.accounts.tables import KeyRow
from terrace.errors import Conflict, Denied, Invalid, Missing, TerraceError, Unauthenticated
from terrace.storage import Database
from terrace.types import moment, new_id, now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> Keys:
    return Keys(database, settings.Accounts(), Audit(database), clock=clock)


@pytest.fixture
async def ada(database: Database) -> Caller:
    """Owner of tenant `default`."""
    return await caller_of(database, await add_user(database, "ada@example.org"))


@pytest.fixture
async def bob(database: Database, ada: Caller) -> Caller:
    """Member of the same."""
    return await caller_of(database, await add_user(database, "bob@example.org", role="member"))


async def holder(database: Database, text: str, address: str = "192.0.2.7", at: float | None = None) -> Caller:
    shown = parse_key(text)
    assert shown is not None
    return await database.read(of_key, shown, address, now() if at is None else at)


async def refusal(database: Database, text: str, **kwargs: Any) -> str:
    with pytest.raises((Unauthenticated, Denied)) as caught:
        await holder(database, text, **kwargs)
    return caught.value.code


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(keys: Keys, database: Database, ada: Caller) -> None:
    key, text = await keys.create(ada, name="  billing   app ")
    assert re.fullmatch(r"trc_[0-9a-z]{26}_[A-Za-z0-9_-]{43}", text)
    assert text.startswith(f"trc_{key.id.removeprefix('key_')}_")
    assert key.name == "billing app"
    assert key.hint == text[-4:]
    row = await database.read(lambda session: session.exec(select(KeyRow)).one().model_dump_json())
    assert text.rsplit("_", 1)[0] not in row
    assert text[31:] not in row
    assert text[31:] not in repr([await keys.get(ada, key.id), await Audit(database).list(ada.scope)])


async def test_it_may_do_what_its_owner_may(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    _, hers = await keys.create(ada, name="a")
    _, his = await keys.create(bob, name="b")
    assert (await holder(database, hers)).permissions == PERMISSIONS
    assert (await holder(database, his)).permissions == bob.permissions
    assert (await holder(database, his)).via == "key"


async def test_scopes_narrow_it_and_families_stand_for_several(keys: Keys, database: Database, ada: Caller) -> None:
    _, text = await keys.create(ada, name="a", scopes=["chat", "documents"])
    assert (await holder(database, text)).permissions == {"chat", "documents:read", "documents:write"}


async def test_when_its_owner_may_less_so_may_the_key(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    key, text = await keys.create(bob, name="b", scopes=["chat", "documents:read"])

    def demote(session: Session) -> None:
        row = store.membership(session, "default", bob.scope.user or "")
        assert row is not None
        row.role = "viewer"
        session.add(row)

    await database.write(demote)
    assert (await holder(database, text)).permissions == {"documents:read"}
    demoted = await caller_of(database, bob.scope.user or "")
    assert (await keys.change(demoted, key.id, name="still mine")).name == "still mine"


@pytest.mark.parametrize("scope", ["operator", "admin", "members", "audit"])
async def test_nobody_gives_a_scope_they_lack(keys: Keys, bob: Caller, scope: str) -> None:
    with pytest.raises(Denied) as caught:
        await keys.create(bob, name="b", scopes=["chat", scope])
    assert caught.value.code == "scope_not_held"
    key, _ = await keys.create(bob, name="b", scopes=["chat"])
    with pytest.raises(Denied):
        await keys.change(bob, key.id, scopes=[scope])


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"scopes": ["everything"]}, "bad_scope"),
        ({"scopes": [""]}, "bad_scope"),
        ({"models": [""]}, "bad_model_pattern"),
        ({"models": ["a\nb"]}, "bad_model_pattern"),
        ({"models": ["a" * 201]}, "bad_model_pattern"),
        ({"models": [f"m{n}" for n in range(101)]}, "too_many_items"),
        ({"addresses": ["somewhere"]}, "bad_address"),
        ({"addresses": ["10.0.0.1/8"]}, "bad_address"),
        ({"addresses": ["10.0.0.0/33"]}, "bad_address"),
        ({"name": ""}, "bad_key_name"),
        ({"name": "a" * 101}, "bad_key_name"),
        ({"name": "a\x1b[31mb"}, "bad_key_name"),
        ({"expires_at": moment(1.0)}, "bad_expiry"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(keys: Keys, ada: Caller, given: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        await keys.create(ada, **{"name": "a", **given})
    assert caught.value.code == code
    key, _ = await keys.create(ada, name="a")
    with pytest.raises(Invalid):
        await keys.change(ada, key.id, **given)


async def test_a_key_made_by_a_key_is_no_stronger(keys: Keys, database: Database, ada: Caller) -> None:
    until = moment(now() + 1000)
    _, text = await keys.create(
        ada, name="a", scopes=["chat", "keys"], models=["openai/*"], addresses=["192.0.2.0/24"], expires_at=until
    )
    strong, _ = await keys.create(ada, name="strong")
    weak = await holder(database, text)
    child, _ = await keys.create(weak, name="child")
    assert (child.scopes, child.models, child.addresses) == (("chat", "keys"), ("openai/*",), ("192.0.2.0/24",))
    assert child.expires_at == until
    assert child.user_id == ada.scope.user
    narrower, _ = await keys.create(
        weak,
        name="narrow",
        scopes=["chat"],
        models=["openai/gpt-*"],
        addresses=["192.0.2.7"],
        expires_at=moment(now() + 9),
    )
    assert narrower.models == ("openai/gpt-*",)
    wider: list[dict[str, Any]] = [
        {"scopes": ["documents:read"]},
        {"models": ["*"]},
        {"models": ["openai*"]},
        {"models": ["anthropic/claude"]},
        {"addresses": ["192.0.0.0/16"]},
        {"addresses": ["2001:db8::/32"]},
        {"expires_at": moment(now() + 2000)},
    ]
    for each in wider:
        with pytest.raises(Denied):
            await keys.create(weak, **{"name": "wide", **each})
        with pytest.raises(Denied):
            await keys.change(weak, child.id, **each)
    for unlimited in ({"scopes": []}, {"models": []}, {"addresses": []}, {"expires_at": None}):
        with pytest.raises(Denied):
            await keys.change(weak, child.id, **unlimited)  # type: ignore[arg-type]
    with pytest.raises(Denied):
        await keys.rotate(weak, strong.id)
    with pytest.raises(Denied):
        await keys.change(weak, strong.id, name="mine now")
    await keys.rotate(weak, child.id)


async def test_the_tenants_models_and_the_keys_are_both_walls(keys: Keys, database: Database, ada: Caller) -> None:
    await add_tenant(database, "tnt_a", "openai/*", "quote/*")
    user = await add_user(database, "eve@example.org", tenant="tnt_a")
    eve = await caller_of(database, user, "tnt_a")
    _, text = await keys.create(eve, name="e", models=["openai/gpt-4o"])
    assert (await holder(database, text)).scope.models == (
        frozenset({"openai/*", "quote/*"}),
        frozenset({"openai/gpt-4o"}),
    )
    assert "operator" not in (await holder(database, text)).permissions
    for pattern in ("anthropic/*", "*", "o*"):
        with pytest.raises(Denied):
            await keys.create(eve, name="e", models=[pattern])


async def test_it_expires(keys: Keys, database: Database, ada: Caller) -> None:
    key, text = await keys.create(ada, name="a", expires_at=moment(now() + 60))
    assert (await holder(database, text)).expires == key.expires_at.timestamp()  # type: ignore[union-attr]
    assert await refusal(database, text, at=now() + 61) == "key_expired"
    await keys.change(ada, key.id, expires_at=None)
    await holder(database, text, at=now() + 61)


async def test_only_from_the_addresses_named(keys: Keys, database: Database, ada: Caller) -> None:
    _, text = await keys.create(ada, name="a", addresses=["192.0.2.0/24", "2001:db8::1"])
    for good in ("192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1"):
        await holder(database, text, address=good)
    for bad in ("192.0.3.7", "2001:db8::2", "", "unix"):
        assert await refusal(database, text, address=bad) == "address_not_allowed"


async def test_a_wrong_secret_tells_nothing_about_the_key(keys: Keys, database: Database, ada: Caller) -> None:
    key, text = await keys.create(ada, name="a")
    await keys.revoke(ada, key.id)
    wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
    unknown = f"trc_{new_id('key').removeprefix('key_')}_{text[31:]}"
    assert await refusal(database, wrong) == await refusal(database, unknown) == "key_invalid"
    assert await refusal(database, text) == "key_revoked"


async def test_rotation_with_overlap(keys: Keys, database: Database, ada: Caller, clock: Clock) -> None:
    key, first = await keys.create(ada, name="a")
    rotated, second = await keys.rotate(ada, key.id, overlap=60)
    assert rotated.id == key.id
    assert rotated.hint == second[-4:]
    assert (await holder(database, first)).expires == pytest.approx(now() + 60, abs=5)
    assert (await holder(database, second)).expires == float("inf")
    assert await refusal(database, first, at=now() + 61) == "key_rotated"
    _, third = await keys.rotate(ada, key.id)
    await holder(database, third)
    assert await refusal(database, first) == await refusal(database, second) == "key_invalid"


@pytest.mark.parametrize("overlap", [-1.0, 1e9, float("nan"), float("inf")])
async def test_an_overlap_has_bounds(keys: Keys, ada: Caller, overlap: float) -> None:
    key, _ = await keys.create(ada, name="a")
    with pytest.raises(Invalid):
        await keys.rotate(ada, key.id, overlap)


async def test_revoking_ends_both_secrets_and_stays(keys: Keys, database: Database, ada: Caller) -> None:
    key, first = await keys.create(ada, name="a")
    _, second = await keys.rotate(ada, key.id, overlap=600)
    await keys.revoke(ada, key.id)
    await keys.revoke(ada, key.id)
    assert await refusal(database, second) == "key_revoked"
    assert await refusal(database, first) == "key_invalid"
    assert (await keys.get(ada, key.id)).revoked_at is not None
    for act in (keys.rotate(ada, key.id), keys.change(ada, key.id, name="again")):
        with pytest.raises(Conflict):
            await act


async def test_members_see_their_own_and_admins_all(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    mine, _ = await keys.create(ada, name="hers")
    his, _ = await keys.create(bob, name="his")
    assert [each.id for each in (await keys.list(bob))[0]] == [his.id]
    assert [each.id for each in (await keys.list(ada, all=True))[0]] == [his.id, mine.id]
    with pytest.raises(Denied):
        await keys.list(bob, all=True)
    for act in (keys.get(bob, mine.id), keys.revoke(bob, mine.id), keys.rotate(bob, mine.id)):
        with pytest.raises(Missing):
            await act
    for taken in (keys.rotate(ada, his.id), keys.change(ada, his.id, name="x")):
        with pytest.raises(Denied):
            await taken
    await keys.revoke(ada, his.id)
    await add_tenant(database, "tnt_b")
    elsewhere = await caller_of(database, await add_user(database, "x@example.org", tenant="tnt_b"), "tnt_b")
    assert (await keys.list(elsewhere, all=True))[0] == []
    with pytest.raises(Missing):
        await keys.get(elsewhere, mine.id)


@pytest.mark.both
async def test_pages(keys: Keys, ada: Caller) -> None:
    made = [(await keys.create(ada, name=str(n)))[0].id for n in range(5)]
    first, cursor = await keys.list(ada, limit=3)
    second, end = await keys.list(ada, limit=3, cursor=cursor)
    assert [each.id for each in (*first, *second)] == made[::-1]
    assert end is None
    for limit in (0, 201):
        with pytest.raises(Invalid):
            await keys.list(ada, limit=limit)
    assert (await keys.list(ada, cursor="\x00'; drop"))[0] == []


async def test_a_key_for_somebody_else(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    """At the terminal alone: whoever holds a key reads what is its owner's alone."""
    key, text = await keys.create(terminal(), name="for bob", user_id=bob.scope.user)
    assert key.user_id == bob.scope.user
    assert (await holder(database, text)).permissions == bob.permissions
    with pytest.raises(Missing):
        await keys.create(terminal(), name="nobody", user_id="usr_nobody")
    admin = await caller_of(database, await add_user(database, "adm@example.org", role="admin"))
    _, hers = await keys.create(ada, name="a")
    for maker in (ada, admin, await holder(database, hers)):
        with pytest.raises(Denied) as caught:
            await keys.create(maker, name="for bob", user_id=bob.scope.user)
        assert caught.value.code == "not_your_key"


async def test_keys_of_the_terminal_belong_to_nobody(keys: Keys, database: Database) -> None:
    """Also on a server that has no account yet."""
    key, text = await keys.create(terminal(), name="deploy", scopes=["chat"])
    assert key.user_id is None
    caller = await holder(database, text)
    assert (caller.scope.user, caller.permissions) == (None, {"chat"})
    _, all_of_it = await keys.create(terminal(), name="all")
    assert (await holder(database, all_of_it)).permissions == PERMISSIONS
    await add_tenant(database, "tnt_a")
    _, elsewhere = await keys.create(terminal("tnt_a"), name="all")
    assert "operator" not in (await holder(database, elsewhere)).permissions


async def test_local_mode_needs_no_keys(keys: Keys) -> None:
    with pytest.raises(Conflict) as caught:
        await keys.create(LOCAL, name="a")
    assert caught.value.code == "local_mode"


async def test_there_is_a_most(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    at = now()

    def fill(session: Session) -> None:
        session.add_all(
            KeyRow(
                id=new_id("key"), tenant_id="default", user_id=ada.scope.user, name="x", secret_hash="x", hint="x",
                created_at=at,
            )
            for _ in range(MAX_KEYS - 1)
        )  # fmt: skip

    await database.write(fill)
    last, _ = await keys.create(ada, name="the last")
    with pytest.raises(Conflict):
        await keys.create(ada, name="one too many")
    await keys.create(bob, name="his first")
    await keys.revoke(ada, last.id)
    await keys.create(ada, name="room again")


async def test_every_act_has_a_line_in_the_audit_log(keys: Keys, database: Database, ada: Caller) -> None:
    key, _ = await keys.create(ada, name="a")
    await keys.change(ada, key.id, name="b")
    await keys.rotate(ada, key.id)
    await keys.revoke(ada, key.id)
    lines, _ = await Audit(database).list(ada.scope)
    assert [each.action for each in lines] == ["key.revoked", "key.rotated", "key.changed", "key.created"]
    assert {each.subject for each in lines} == {key.id}


async def test_those_who_cached_it_hear_of_it_after_the_commit_only(database: Database, ada: Caller) -> None:
    heard: list[int] = []
    keys = Keys(database, settings.Accounts(), Audit(database), changed=lambda: heard.append(1))
    key, _ = await keys.create(ada, name="a")
    await keys.revoke(ada, key.id)
    assert len(heard) == 2
    with pytest.raises(TerraceError):
        await keys.rotate(ada, key.id)
    assert len(heard) == 2


async def test_disabled_people_and_tenants(keys: Keys, database: Database, ada: Caller, bob: Caller) -> None:
    await add_tenant(database, "tnt_a")
    await join(database, bob.scope.user or "", "tnt_a", "owner")
    _, there = await keys.create(await caller_of(database, bob.scope.user or "", "tnt_a"), name="there")
    _, here = await keys.create(bob, name="here")

    async def set_(table: str, column: str, where: str, value: str) -> None:
        await database.write(
            lambda session: (
                session.connection().execute(sql(f"UPDATE {table} SET {column} = 1.0 WHERE {where} = :v"), {"v": value})
                and None
            )
        )

    await set_("tenants", "disabled_at", "id", "tnt_a")
    assert await refusal(database, there) == "tenant_disabled"
    await holder(database, here)
    await set_("users", "disabled_at", "id", bob.scope.user or "")
    assert await refusal(database, here) == "account_disabled"


# -- words of keys


def test_families_are_made_of_permissions() -> None:
    assert expand(FAMILIES) == frozenset().union(*FAMILIES.values())
    assert expand(["chat", "gone since"]) == {"chat"}


@given(
    wall=st.from_regex(r"\A[ab*/.]{0,6}\Z"),
    pattern=st.from_regex(r"\A[ab*/.]{0,6}\Z"),
    fill=st.lists(st.text("ab/", max_size=3)),
)
def test_what_a_wall_covers_it_lets_through(wall: str, pattern: str, fill: list[str]) -> None:
    """Whatever a covered pattern's stars stand for, the wall matches it too."""
    if covers([wall], pattern):
        fills = iter([*fill, *[""] * 20])
        name = "".join(next(fills) if each == "*" else each for each in pattern)
        assert covers([wall], name)


@given(address=st.text(max_size=50))
def test_no_address_breaks_it(address: str) -> None:
    assert isinstance(comes_from(address, ["0.0.0.0/0", "::/0"]), bool)
