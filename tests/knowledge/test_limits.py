"""How much may be kept: decided in the transaction that keeps it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.accounts.limits_house import ACME, ADA, HER, HER_KEY, Bench, in_memory, people
from tests.knowledge.test_service import files, pieces, zipped

from terrace.accounts.limits.base import Subject
from terrace.errors import Limited
from terrace.knowledge import store
from terrace.knowledge.service import Knowledge
from terrace.types import Scope

CAT = Scope("acme", "usr_cat")


@pytest.fixture
async def bench(library: Any, tmp_path: Path) -> AsyncIterator[Bench]:
    """The library with limits; the rules of `acme` are set by each test."""
    await library.database.write(people)
    bench = Bench(library.database, tmp_path, in_memory, shelf=store.stored)
    await bench.open()
    old = library.knowledge
    library.knowledge = Knowledge(
        library.database, library.blobs, library.jobs, library.index, old._door, old._pictures, bench.limits
    )
    yield bench
    await bench.close()


async def test_a_documents_bytes_count_for_its_tenant_user_and_key(library: Any, bench: Bench) -> None:
    await bench.limits.change(ACME, {"stored_bytes": 100, "documents": 10}, "x")
    await bench.limits.change(HER_KEY, {"stored_bytes": 50}, "x")
    await library.upload(ADA, "a" * 40)
    with pytest.raises(Limited) as caught:
        await library.upload(ADA, "b" * 11)
    assert (caught.value.extra["subject"], caught.value.extra["limit"]) == ("key", "stored_bytes")
    await library.upload(CAT, "c" * 60)
    with pytest.raises(Limited) as caught:
        await library.upload(CAT, "d")
    assert caught.value.extra["subject"] == "tenant"
    assert [each.used for each in await bench.limits.show(ACME)] == [100, 2]
    assert len(await library.keys()) == 2, "what was refused left nothing"


async def test_deleting_gives_room_and_what_is_there_costs_nothing(library: Any, bench: Bench) -> None:
    await bench.limits.change(HER, {"documents": 1}, "x")
    document = await library.add(ADA, "only one")
    again, _ = await library.upload(ADA, "only one", "same.txt")
    assert again.duplicate
    await library.knowledge.reprocess(ADA, document.id)
    with pytest.raises(Limited):
        await library.upload(ADA, "another")
    await library.knowledge.delete(ADA, document.id)
    await library.upload(ADA, "another")


async def test_a_batch_keeps_what_fits_and_tells_the_rest(library: Any, bench: Bench) -> None:
    await bench.limits.change(ACME, {"stored_bytes": 10}, "x")
    archive = zipped(("one.txt", b"1111"), ("two.txt", b"2222222"), ("three.txt", b"33333"))
    job_id, items = await library.knowledge.batch_upload(ADA, files(("all.zip", archive), ("four.txt", b"4")))
    assert job_id is not None
    assert [(item.name, item.error["code"] if item.error else None) for item in items] == [
        ("one.txt", None), ("two.txt", "limit_reached"), ("three.txt", None), ("four.txt", None),
    ]  # fmt: skip
    assert "10 bytes of documents" in items[1].error["message"]
    assert await library.table("documents") == 3
    assert len(await library.keys()) == 3
    job_id, items = await library.knowledge.batch_upload(ADA, files(("five.txt", b"55")))
    assert job_id is None
    assert items[0].error["code"] == "limit_reached"


async def test_uploads_at_once_do_not_pass_the_limit_together(library: Any, bench: Bench) -> None:
    await bench.limits.change(ACME, {"documents": 5}, "x")
    uploads = [library.knowledge.upload(ADA, f"{n}.txt", pieces(str(n).encode())) for n in range(12)]
    results = await asyncio.gather(*uploads, return_exceptions=True)
    assert sum(isinstance(each, Limited) for each in results) == 7
    assert await library.table("documents") == 5


async def test_counting_is_quick_where_there_are_many(library: Any, bench: Bench) -> None:
    """By the index alone, as SQLite says it; PostgreSQL reads an empty table any way it likes."""
    explain = "EXPLAIN QUERY PLAN" if library.database.dialect == "sqlite" else "EXPLAIN"
    plan = await library.database.read(
        lambda session: (
            session.connection()
            .exec_driver_sql(f"{explain} SELECT COUNT(*), SUM(bytes) FROM documents WHERE tenant_id = 'acme'")
            .all()
        )
    )
    if library.database.dialect == "sqlite":
        assert any("COVERING INDEX" in row[-1] for row in plan), plan
    assert await library.database.read(store.stored, Subject("acme", "user", "usr_ada")) == (0, 0)
