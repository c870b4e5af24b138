"""Contacts one by one: added, found, changed, listed, with what was said to them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.campaigns.contacts.conftest import Room

from terrace.campaigns.base import Turn, field_name, is_field
from terrace.campaigns.contacts import leaving
from terrace.errors import Conflict, Invalid, Missing
from terrace.types import Scope

AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


async def test_a_contact_is_added_found_changed_and_deleted(room: Room, scope: Scope, other: Scope) -> None:
    made = await room.contacts.create(
        scope, name=" Ada  Lovelace ", email="Ada@Example.org", fields={"city": "London"}, lists=["VIPs", "All"]
    )
    assert (made.key, made.name, made.email) == ("ada@example.org", "Ada Lovelace", "Ada@Example.org")
    for q in ("lovelace", "ADA@", "vel"):
        found, _ = await room.contacts.list(scope, q=q, list_id="vips")
        assert [each.id for each in found] == [made.id]
    assert (await room.contacts.list(scope, q="100%"))[0] == []
    changed = await room.contacts.change(scope, made.id, fields={"city": "", "plan": "gold"}, lists=["All"])
    assert (changed.fields, len(changed.list_ids)) == ({"plan": "gold"}, 1)
    moved = await room.contacts.change(scope, made.id, email="ada@new.org")
    assert (moved.key, moved.email) == ("ada@new.org", "ada@new.org")
    for act in (room.contacts.get, room.contacts.remove, room.contacts.change):
        with pytest.raises(Missing):
            await act(other, made.id)
    await room.contacts.remove(scope, made.id)
    with pytest.raises(Missing):
        await room.contacts.get(scope, made.id)


async def test_a_key_is_one_persons(room: Room, scope: Scope, other: Scope) -> None:
    await room.contacts.create(scope, email="ada@example.org")
    second = await room.contacts.create(scope, email="alan@example.org")
    with pytest.raises(Conflict):
        await room.contacts.create(scope, email="ADA@example.org")
    with pytest.raises(Conflict):
        await room.contacts.change(scope, second.id, email="ada@example.org")
    await room.contacts.create(other, email="ada@example.org")
    kept = await room.contacts.create(scope, key="42", email="ada@example.org")
    assert (await room.contacts.change(scope, kept.id, email="x@example.org")).key == "42"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "key_missing"),
        ({"email": "ada"}, "bad_email"),
        ({"email": "ada@@example.org"}, "bad_email"),
        ({"email": "a b@example.org"}, "bad_email"),
        ({"key": "x" * 321}, "key_too_long"),
        ({"key": "1", "name": "x" * 301}, "name_too_long"),
        ({"key": "1", "fields": {"Big City": "x"}}, "bad_field"),
        ({"key": "1", "fields": {"email": "x"}}, "bad_field"),
        ({"key": "1", "fields": {"note": "x" * 20_001}}, "field_too_long"),
        ({"key": "1", "fields": {f"f{number}": "x" for number in range(201)}}, "too_many_fields"),
        ({"key": "1", "lists": [f"l{number}" for number in range(101)]}, "too_many_lists"),
        ({"key": "1", "lists": [" "]}, "list_name"),
    ],
)
async def test_what_cannot_be_kept_gets_a_sentence(room: Room, scope: Scope, given: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as told:
        await room.contacts.create(scope, **given)
    assert told.value.code == code
    assert told.value.message.endswith(".")
    assert await room.keys(scope) == []


async def test_lists_are_paged_by_whoever_writes_to_them(room: Room, scope: Scope) -> None:
    for number in range(7):
        await room.contacts.create(scope, key=f"k{number}", lists=["Big"] if number < 5 else [])
    [big] = await room.contacts.lists(scope)
    seen: list[str] = []
    after: str | None = None
    while some := await room.database.read(room.contacts.page, scope, big.id, after, 2):
        seen += [each.key for each in some]
        after = some[-1].id
    assert seen == ["k0", "k1", "k2", "k3", "k4"]
    assert await room.database.read(room.contacts.count, scope, big.id) == 5
    assert await room.database.read(room.contacts.count, scope, None) == 7
    first, cursor = await room.contacts.list(scope, limit=4)
    rest, end = await room.contacts.list(scope, limit=4, cursor=cursor)
    assert [each.key for each in first + rest] == [f"k{number}" for number in reversed(range(7))]
    assert end is None


@pytest.mark.both
async def test_fields_are_counted_as_they_are_now(room: Room, scope: Scope) -> None:
    made = await room.contacts.create(scope, email="a@example.org", fields={"city": "Rome"}, lists=["One"])
    await room.contacts.create(scope, key="2", name="Bob", lists=["One"])
    await room.contacts.create(scope, key="3", fields={"plan": "gold"})
    assert await room.contacts.field_counts(scope, "one") == (2, {"key": 2, "name": 1, "email": 1, "city": 1})
    assert (await room.contacts.field_counts(scope, None))[1] == {"key": 3, "name": 1, "email": 1, "city": 1, "plan": 1}
    await room.contacts.change(scope, made.id, fields={"city": "", "town": "Rome"})
    assert (await room.contacts.field_counts(scope, "one"))[1] == {"key": 2, "name": 1, "email": 1, "town": 1}
    await room.contacts.remove(scope, made.id)
    assert (await room.contacts.field_counts(scope, "one"))[1] == {"key": 1, "name": 1, "email": 0}


async def test_a_deleted_list_takes_those_who_are_in_no_other(room: Room, scope: Scope, other: Scope) -> None:
    await room.contacts.create(scope, key="both", lists=["One", "Two"])
    await room.contacts.create(scope, key="one", lists=["One"])
    with pytest.raises(Missing):
        await room.contacts.remove_list(other, "One")
    with pytest.raises(Missing):
        await room.contacts.remove_list(scope, "none")
    assert await room.contacts.remove_list(scope, "One") == 1
    assert await room.keys(scope) == ["both"]


# -- what was said


async def test_what_was_said_is_kept_once_and_told_in_order(room: Room, scope: Scope) -> None:
    made = await room.contacts.create(scope, key="1")
    turns = [Turn("assistant", "How was it?", AT + timedelta(minutes=1)), Turn("user", "I bought a boat.", AT)]
    for _ in range(2):
        detail = await room.contacts.add_history(scope, made.id, turns)
    assert (detail.turns, [each.text for each in detail.history]) == (2, ["I bought a boat.", "How was it?"])
    assert detail.last_conversation == "Contact: I bought a boat.\nWe: How was it?"
    assert await room.database.read(room.contacts.last_conversation, scope, made.id) == detail.last_conversation


async def test_the_last_conversation_is_bounded(room: Room, scope: Scope) -> None:
    made = await room.contacts.create(scope, key="1")
    assert await room.database.read(room.contacts.last_conversation, scope, made.id) is None
    turns = [Turn("user", f"{number} " + "x" * 500, AT + timedelta(minutes=number)) for number in range(30)]
    told = (await room.contacts.add_history(scope, made.id, turns)).last_conversation or ""
    assert len(told) <= 4_000
    assert "Contact: 29 " in told.splitlines()[-1]
    told = (
        await room.contacts.add_history(scope, made.id, [Turn("user", "y" * 20_000, AT + timedelta(days=1))])
    ).last_conversation or ""
    assert (len(told), told[-1]) == (4_000, "…")
    for wrong in (Turn("user", "z" * 20_001, AT), Turn("user", " ", AT)):
        with pytest.raises(Invalid):
            await room.contacts.add_history(scope, made.id, [wrong])
    with pytest.raises(Invalid, match="at most 1,000"):
        await room.contacts.add_history(scope, made.id, [Turn("user", str(number), AT) for number in range(1000)])


async def test_ones_own_conversation_is_copied_and_goes_with_its_owner(room: Room, scope: Scope) -> None:
    made = await room.contacts.create(scope, key="1")
    await room.contacts.add_history(scope, made.id, [Turn("user", "Hello.", AT)])
    for _ in range(2):
        detail = await room.contacts.add_history(scope, made.id, conversation_id="cnv_1")
    assert detail.turns == 3
    assert detail.last_conversation is not None
    assert "We: On its way." in detail.last_conversation
    colleague = Scope(scope.tenant, "usr_bob")
    with pytest.raises(Missing):
        await room.contacts.add_history(colleague, made.id, conversation_id="cnv_1")
    await room.database.write(leaving.adopt, "usr_first")  # of another tenant: nothing
    await room.database.write(leaving.erase_user, "usr_ada")
    assert [each.text for each in (await room.contacts.get(scope, made.id)).history] == ["Hello."]


# -- leaving


async def test_a_tenants_contacts_are_exported_and_erased(room: Room, scope: Scope, other: Scope) -> None:
    made = await room.contacts.create(scope, key="1", name="Ada", fields={"city": "Rome"}, lists=["One"])
    await room.contacts.add_history(scope, made.id, [Turn("user", "Hello.", AT)])
    await room.contacts.create(other, key="1", lists=["One"])
    files = {path: b"".join([each async for each in data]) async for path, data in room.leaving.export(scope)}
    assert sorted(files) == ["contacts/contacts.jsonl", "contacts/lists.jsonl"]
    [line] = files["contacts/contacts.jsonl"].splitlines()
    told = json.loads(line)
    assert (told["name"], told["fields"], told["history"][0]["text"]) == ("Ada", {"city": "Rome"}, "Hello.")
    assert json.loads(files["contacts/lists.jsonl"])["name"] == "One"
    await room.database.write(room.leaving.erase_tenant, scope)
    assert (await room.keys(scope), await room.contacts.lists(scope)) == ([], [])
    assert await room.keys(other, "One") == ["1"]


@pytest.mark.parametrize(
    ("heading", "field"),
    [("First name", "first_name"), ("  E-Mail ", "e_mail"), ("Größe", "größe"), ("2024", "field_2024"), ("%", "")],
)
def test_headings_become_fields(heading: str, field: str) -> None:
    assert field_name(heading) == field
    assert is_field(field) == bool(field)
