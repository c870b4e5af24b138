"""Adopted, erased, exported, deleted."""

import asyncio
import json
from typing import Any

import pytest

from terrace.knowledge import leaving
from terrace.knowledge.leaving import Leaving
from terrace.types import Scope


async def owners(library: Any) -> list[tuple[str, str | None, str | None]]:
    query = "SELECT tenant_id, user_id, key_id FROM documents ORDER BY id"
    rows = await library.database.read(lambda session: session.connection().exec_driver_sql(query).all())
    return [tuple(row) for row in rows]


async def test_the_first_person_adopts_and_an_erased_one_leaves_their_documents(library: Any) -> None:
    await library.upload(Scope(), "local")
    await library.upload(Scope("acme", "usr_ada", "key_ada"), "hers")
    await library.database.write(leaving.adopt, "usr_first")
    assert await owners(library) == [("default", "usr_first", None), ("acme", "usr_ada", "key_ada")]
    await library.database.write(leaving.erase_user, "usr_ada")
    assert await owners(library) == [("default", "usr_first", None), ("acme", None, None)]


async def test_a_tenant_takes_its_documents_along(library: Any, scope: Scope, other: Scope) -> None:
    document = await library.add(scope, "Tides and moons.", "tides.txt", tags=["sea"])
    await library.add(other, "Not theirs.")
    rooms = Leaving(library.database, library.blobs, library.index)
    archive = {
        path: b"".join([piece async for piece in pieces]) async for path, pieces in rooms.export(Scope(scope.tenant))
    }
    (line,) = archive["documents/documents.jsonl"].splitlines()
    assert (json.loads(line)["name"], json.loads(line)["tags"]) == ("tides.txt", ["sea"])
    assert archive[f"documents/{document.id}/tides.txt"] == b"Tides and moons."
    assert len(archive) == 2


async def test_a_deleted_tenant_leaves_nothing_and_others_everything(library: Any, scope: Scope, other: Scope) -> None:
    await library.add(scope, "Tides and moons.", collection="sea", tags=["x"])
    kept = await library.add(other, "Still here.")
    rooms = Leaving(library.database, library.blobs, library.index)
    await library.database.write(rooms.erase_tenant, scope)
    for _ in range(2000):
        if len(await library.keys()) == 2 and not await library.table("blob_trash"):
            break
        await asyncio.sleep(0.01)
    else:
        pytest.fail("its files are still there")
    for table in ("documents", "chunks", "collections"):
        assert await library.table(table) == 1
    assert await library.table("document_tags") == 0
    assert (await library.knowledge.text(other, kept.id)).text == "Still here."
