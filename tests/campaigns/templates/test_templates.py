"""Templates kept: each change is a version, and versions never change."""

import pytest

from terrace.campaigns.templates.drafts import Draft, problems
from terrace.campaigns.templates.service import Templates
from terrace.errors import Conflict, Invalid, Missing
from terrace.storage import Database
from terrace.types import Scope


async def test_each_change_is_a_new_version(database: Database, scope: Scope) -> None:
    templates = Templates(database)
    made = await templates.create(scope, "Welcome", Draft("Hello {{contact.name}}."))
    assert (made.version, made.placeholders) == (1, ["contact.name"])
    changed = await templates.change(scope, made.id, None, {"body": "Hi {{contact.name}}."})
    assert changed.version == 2
    assert (await templates.change(scope, made.id, "Renamed", {"body": "Hi {{contact.name}}."})).version == 2
    assert (await templates.get(scope, made.id, 1)).body == "Hello {{contact.name}}."
    assert (await templates.get(scope, made.id)).name == "Renamed"
    versions, following = await templates.versions(scope, made.id, limit=1)
    assert ([each.version for each in versions], following) == ([2], "2")
    older, _ = await templates.versions(scope, made.id, limit=1, cursor=following)
    assert [each.body for each in older] == ["Hello {{contact.name}}."]


async def test_bad_ones_are_not_kept(database: Database, scope: Scope) -> None:
    templates = Templates(database)
    for draft in (Draft(""), Draft("{{oops}}"), Draft("x", system="y" * 30_000), Draft("{{knowledge}}"),
                  Draft("{{knowledge}}", knowledge_query="{{last_conversation}}")):  # fmt: skip
        with pytest.raises(Invalid):
            await templates.create(scope, "Bad", draft)
    for name in ("", " ", "x" * 300, "a\x1bb"):
        with pytest.raises(Invalid):
            await templates.create(scope, name, Draft("x"))
    await templates.create(scope, "Once", Draft("x"))
    with pytest.raises(Conflict):
        await templates.create(scope, "ONCE", Draft("x"))
    assert [each.code for each in problems(Draft("{{knowledge}}"))] == ["no_query"]


async def test_a_deleted_one_is_gone_and_its_name_free(database: Database, scope: Scope, other: Scope) -> None:
    pinned: set[str] = set()
    templates = Templates(database, lambda session, scope: pinned)
    made = await templates.create(scope, "Once", Draft("x"))
    for act in (templates.get, templates.delete):
        with pytest.raises(Missing):
            await act(other, made.id)
    assert await templates.list(other) == ([], None)
    pinned.add(made.id)
    await templates.delete(scope, made.id)
    with pytest.raises(Missing):
        await templates.get(scope, made.id)
    assert (await templates.create(scope, "Once", Draft("y"))).id != made.id
