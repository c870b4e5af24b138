"""From a source to documents that are found, and back again."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from sqlmodel import Session, select
from tests.moving.mongo_qdrant.conftest import MAPPING, Home, Records

from terrace.errors import Conflict, Invalid, Missing, Unavailable
from terrace.knowledge import store
from terrace.knowledge.tables import ChunkRow, DocumentRow
from terrace.moving.mongo_qdrant.base import Plan
from terrace.moving.mongo_qdrant.leaving import Leaving
from terrace.moving.mongo_qdrant.service import Imports
from terrace.types import Scope


@pytest.fixture
def places(records: Records, tmp_path: Path) -> tuple[Path, Path]:
    return records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl")


async def documents(home: Home, scope: Scope) -> list[Any]:
    found = {"collection": None, "tag": None, "state": None, "q": "", "limit": 100, "cursor": None}
    return await home.database.read(lambda session: store.find(session, scope, **found))


def codes(plan: Plan) -> dict[str, int]:
    return {each.code: each.count for each in plan.problems}


async def test_everything_comes_and_is_found(home: Home, scope: Scope, other: Scope, places: tuple[Path, Path]) -> None:
    report = await home.imports.run(scope, home.source(*places))
    assert report.state == "verified", report.checks
    assert (report.came.documents, report.came.chunks, report.came.vectors) == (12, 36, 36)
    assert report.fit.kind == "serving"
    assert report.fit.likeness == pytest.approx(1, abs=1e-3)
    assert report.waiting == 0
    came = await documents(home, scope)
    first = next(each for each in came if each.title == "Report 3")
    assert (first.name, first.collection, first.tags) == ("report-3.txt", "Moved", ("paper kites", "reports"))
    assert (first.searchable, first.state, first.chunks, first.pages) == ("meaning", "ready", 3, 3)
    assert first.source_url == "https://example.org/3"
    assert first.created_at.isoformat() == "2024-05-04T00:00:00+00:00"
    [best, *_] = await home.found(scope, "Paragraph 2 of report 3 tells of paper kites")
    assert (best.document_id, best.page, best.headings) == (first.id, 3, ("Part 1", "Section 2"))
    assert await documents(home, other) == []


async def test_metadata_stays_with_the_import(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    report = await home.imports.run(scope, home.source(*places))
    lines = [each async for each in home.imports.details(scope, report.id)]
    assert len(lines) == 12
    assert lines[3]["metadata"]["author"] == {"name": "Ada", "age": 3}
    assert "text" not in lines[3]["metadata"]


async def test_a_dry_run_tells_and_changes_nothing(home: Home, scope: Scope, records: Records, tmp_path: Path) -> None:
    records.chunks[0]["document_id"] = ObjectId("f" * 24)  # nobody's
    records.chunks[4]["text"] = " "
    records.chunks[5]["text"] = "a\x00b" + records.chunks[5]["text"]
    records.documents[11]["text"], records.documents[10]["text"] = "The very same.", "The very same."
    records.documents.append({"_id": ObjectId(), "title": "Nothing in it"})
    records.documents.append({"_id": ObjectId(), "title": "Not cut yet", "text": "A text that has no passages."})
    records.points[7]["vector"] = [0.0] * 64
    records.points[8]["vector"] = [1.0] * 32
    records.points.append({"id": 77, "vector": [1.0] * 64, "payload": {}})
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"))
    plan = await home.imports.plan(scope, source)
    assert codes(plan) == {
        "chunk_orphan": 1, "chunk_empty": 1, "text_cleaned": 1, "document_twin": 1, "document_empty": 1,
        "vector_without_direction": 1, "vector_width": 1, "vector_orphan": 3, "vector_missing": 2,
    }  # fmt: skip
    assert (plan.found.documents, plan.coming.documents, plan.unread) == (14, 12, 1)
    assert plan.coming.chunks == 36 - 2 - 3
    assert plan.collections == {"Moved": 12}
    assert await documents(home, scope) == []
    assert not (home.folder / "dry-run").exists()


async def test_what_is_wrong_is_left_out_and_the_rest_verified(
    home: Home, scope: Scope, records: Records, tmp_path: Path
) -> None:
    records.chunks[0]["document_id"] = ObjectId("f" * 24)
    records.documents.append({"_id": ObjectId(), "title": "Not cut yet", "text": "A text that has no passages."})
    records.points[7]["vector"] = [0.0] * 64
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"))
    report = await home.imports.run(scope, source)
    assert report.state == "verified", report.checks
    assert {each.code for each in report.left_out} >= {"chunk_orphan", "vector_without_direction"}
    assert report.waiting == 2  # the one that is read here, and the one that lacks a vector
    await home.jobs.start()
    await home.jobs.drain()


async def test_orphans_are_kept_when_asked(home: Home, scope: Scope, records: Records, tmp_path: Path) -> None:
    records.chunks[0]["document_id"] = ObjectId("f" * 24)
    source = home.source(
        records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"), {**MAPPING, "orphans": "keep"}
    )
    report = await home.imports.run(scope, source)
    assert (report.state, report.came.documents, report.came.chunks) == ("verified", 13, 36)


async def test_passages_of_the_text_keep_their_places(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    await home.imports.run(scope, home.source(*places))

    def rows(session: Session) -> list[tuple[str, int, int]]:
        query = select(ChunkRow.text, ChunkRow.start_char, ChunkRow.end_char).join(
            DocumentRow, DocumentRow.id == ChunkRow.document_id
        )
        return list(session.exec(query.where(DocumentRow.title == "Report 2").order_by(ChunkRow.ordinal)))

    spans = await home.database.read(rows)
    whole = "\n\n".join(text for text, _, _ in spans)
    assert [whole[start:end] for _, start, end in spans] == [text for text, _, _ in spans]


# -- stopped and gone on with


class Cut:
    """Blobs that are away after so many were written."""

    def __init__(self, blobs: Any, left: int) -> None:
        self._blobs = blobs
        self.left = left

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    async def put(self, *arguments: Any, **options: Any) -> Any:
        if self.left <= 0:
            raise Unavailable("The disk is full.", code="disk_full")
        self.left -= 1
        return await self._blobs.put(*arguments, **options)


async def test_a_stopped_one_goes_on(home: Home, scope: Scope, tmp_path: Path) -> None:
    records = await Records.made(160)
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"))
    whole, home.blobs = home.blobs, Cut(home.blobs, 220)
    with pytest.raises(Unavailable):
        await home.imports.run(scope, source)
    before = {each.title: each.id for each in await documents(home, scope)}
    assert 0 < len(before) < 160
    keys = {blob.key async for blob in whole.list()}
    assert len(keys) == 2 * (await count(home, scope)), "what had no row yet is gone again"
    home.blobs = whole
    with pytest.raises(Conflict, match="--resume"):
        await home.imports.run(scope, source)
    report = await home.imports.run(scope, source, resume=True)
    assert (report.state, report.came.documents) == ("verified", 160)
    after = {each.title: each.id for each in await documents(home, scope)}
    assert before.items() <= {**before, **after}.items()
    assert await count(home, scope) == 160
    assert not (home.folder / report.id).exists()


async def count(home: Home, scope: Scope) -> int:
    query = select(DocumentRow.id).where(DocumentRow.tenant_id == scope.tenant)
    return len(await home.database.read(lambda session: session.exec(query).all()))


async def test_nothing_to_go_on_with(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    with pytest.raises(Missing):
        await home.imports.run(scope, home.source(*places), resume=True)


async def test_twice_brings_nothing_twice(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    await home.imports.run(scope, home.source(*places))
    again = await home.imports.run(scope, home.source(*places))
    assert (again.state, again.came.documents) == ("verified", 0)
    assert "12 documents were here already" in again.checks[0].told
    assert await count(home, scope) == 12
    assert len([blob async for blob in home.blobs.list()]) == 24


# -- whose vectors


async def test_vectors_of_a_known_model_serve_an_empty_house(home: Home, scope: Scope, tmp_path: Path) -> None:
    records = await Records.made(model="second")
    mapping = {**MAPPING, "vectors": {"collection": "points", "model": "second"}}
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"), mapping)
    plan = await home.imports.plan(scope, source)
    assert (plan.fit.kind, plan.fit.model) == ("generation", "second")
    report = await home.imports.run(scope, source)
    assert (report.state, report.waiting) == ("verified", 0), report.checks
    states = {each.key: each.state for each in await home.generations.list()}
    assert states == {"first": "retired", "second": "serving"}
    assert {each.searchable for each in await documents(home, scope)} == {"meaning"}
    [best, *_] = await home.found(scope, "Paragraph 1 of report 4 tells of winter wheat")
    assert best.document_name == "report-4.txt"
    assert best.vector_score == pytest.approx(0.9, abs=0.11)


async def test_vectors_of_a_known_model_wait_beside_others(home: Home, scope: Scope, tmp_path: Path) -> None:
    mine = await Records.made(3)
    theirs = await Records.made(6, model="second")
    for each in theirs.documents:
        each["text"] += "\n\nAnd more."
    mapping = {**MAPPING, "collection": "Others", "vectors": {"collection": "points", "model": "second"}}
    await home.imports.run(scope, home.source(mine.dump(tmp_path / "a"), mine.lines(tmp_path / "points.jsonl")))
    (tmp_path / "b").mkdir()
    lines = theirs.lines(tmp_path / "b" / "points.jsonl")
    report = await home.imports.run(scope, home.source(theirs.dump(tmp_path / "c"), lines, mapping))
    assert (report.state, report.waiting) == ("verified", 6)
    states = {each.key: (each.state, each.vectors) for each in await home.generations.list()}
    assert states == {"first": ("serving", 9), "second": ("ready", 18)}
    back = await home.imports.rollback(scope, report.id)
    assert back.came.documents == 6
    assert {each.key: each.vectors for each in await home.generations.list()} == {"first": 9}


@pytest.mark.parametrize(("model", "width"), [("unheard of", 64), ("first", 48)])
async def test_vectors_nobody_here_makes_are_made_anew(
    home: Home, scope: Scope, tmp_path: Path, model: str, width: int
) -> None:
    records = await Records.made(model=model, width=width)
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"))
    report = await home.imports.run(scope, source)
    assert (report.fit.kind, report.state, report.waiting) == ("none", "verified", 12)
    assert "vectors.model" in report.fit.why
    assert await worked(home, scope) == {"meaning"}


async def worked(home: Home, scope: Scope) -> set[str]:
    """How documents are found once the jobs are done."""
    await home.jobs.start()
    async with asyncio.timeout(60):
        while any(each.state != "ready" for each in await documents(home, scope)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return {each.searchable for each in await documents(home, scope)}


async def test_re_embedding_when_asked(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    report = await home.imports.run(scope, home.source(*places), re_embed=True)
    assert (report.fit.kind, report.waiting) == ("none", 12)


# -- the way back


async def test_rollback_leaves_nothing(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    report = await home.imports.run(scope, home.source(*places))
    back = await home.imports.rollback(scope, report.id)
    assert back.came.documents == 12
    assert await documents(home, scope) == []
    assert [blob async for blob in home.blobs.list()] == []
    assert await home.database.read(lambda session: store.collections(session, scope)) == []
    assert await home.found(scope, "paper kites") == []
    with pytest.raises(Conflict):
        await home.imports.rollback(scope, report.id)


async def test_rollback_of_what_serves_gives_the_place_back(home: Home, scope: Scope, tmp_path: Path) -> None:
    records = await Records.made(model="second")
    mapping = {**MAPPING, "vectors": {"collection": "points", "model": "second"}}
    source = home.source(records.dump(tmp_path / "dump"), records.lines(tmp_path / "points.jsonl"), mapping)
    report = await home.imports.run(scope, source)
    await home.imports.rollback(scope, report.id)
    assert {each.key: each.state for each in await home.generations.list()} == {"first": "serving"}


async def test_nobody_takes_back_what_is_anothers(
    home: Home, scope: Scope, other: Scope, places: tuple[Path, Path]
) -> None:
    report = await home.imports.run(scope, home.source(*places))
    with pytest.raises(Missing):
        await home.imports.rollback(other, report.id)
    assert await count(home, scope) == 12


# -- other shapes


async def test_points_alone_are_documents(home: Home, scope: Scope, records: Records, tmp_path: Path) -> None:
    for each in records.points:
        each["payload"] |= {"metadata": {"source": f"{each['payload']['document_id']}.pdf"}}
    mapping = {
        "documents": {"title": "", "name": "metadata.source"},
        "chunks": {"source": "qdrant", "document": "metadata.source", "order": "chunk_index"},
        "vectors": {"collection": "points"},
    }
    report = await home.imports.run(scope, home.source(None, records.lines(tmp_path / "points.jsonl"), mapping))
    assert (report.state, report.came.documents, report.came.chunks) == ("verified", 12, 36), report.checks
    assert {each.name for each in await documents(home, scope)} == {f"{n:024x}.pdf" for n in range(12)}


async def test_lists_within_documents(home: Home, scope: Scope, records: Records, tmp_path: Path) -> None:
    for each in records.documents:
        each["parts"] = [part["text"] for part in records.chunks if part["document_id"] == each["_id"]]
    mapping = {
        "documents": {"collection": "app.documents"},
        "chunks": {"source": "documents", "within": "parts"},
    }
    report = await home.imports.run(scope, home.source(records.dump(tmp_path / "dump"), None, mapping))
    assert (report.state, report.came.chunks, report.fit.kind) == ("verified", 36, "none")


async def test_a_mapping_that_needs_what_was_not_named(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    with pytest.raises(Invalid, match="--qdrant"):
        await home.imports.plan(scope, home.source(places[0], None))


# -- what verification is worth


async def spoiled(home: Home, scope: Scope, places: tuple[Path, Path], spoil: Callable[[Session], None]) -> list[str]:
    """What is told when somebody changes something between the last document and the verification."""

    class Spoiling:
        """What the import alone asks: the look that others take at them now and then spoils nothing."""

        async def refresh(self) -> None:
            await home.database.write(spoil)
            await home.generations.refresh()

        def __getattr__(self, name: str) -> Any:
            return getattr(home.generations, name)

    house = replace(home.house, generations=Spoiling())  # type: ignore[arg-type]
    report = await Imports(house).run(scope, home.source(*places))
    assert report.state == "differs"
    return [each.name for each in report.checks if not each.good]


async def test_another_text_is_found(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    def spoil(session: Session) -> None:
        row = session.exec(select(ChunkRow).limit(1)).one()
        row.text = "Something else."
        session.add(row)

    assert await spoiled(home, scope, places, spoil) == ["content"]


async def test_vectors_that_changed_places_are_found(home: Home, scope: Scope, places: tuple[Path, Path]) -> None:
    def spoil(session: Session) -> None:
        first, second = session.exec(select(ChunkRow).order_by(ChunkRow.number).limit(2)).all()
        known = home.index.known_vectors(session, scope, "first", [first.text_sha256, second.text_sha256])
        swapped = [known[second.text_sha256], known[first.text_sha256]]
        home.index.add_vectors(session, scope, "first", [first.id, second.id], swapped)

    assert await spoiled(home, scope, places, spoil) == ["vectors"]


# -- other tenants


async def test_vectors_do_not_serve_while_another_tenant_lacks_them(
    home: Home, scope: Scope, other: Scope, tmp_path: Path
) -> None:
    mine, theirs = await Records.made(3), await Records.made(3, model="second")
    (tmp_path / "b").mkdir()
    await home.imports.run(scope, home.source(mine.dump(tmp_path / "a"), mine.lines(tmp_path / "points.jsonl")))
    mapping = {**MAPPING, "vectors": {"collection": "points", "model": "second"}}
    source = home.source(theirs.dump(tmp_path / "c"), theirs.lines(tmp_path / "b" / "points.jsonl"), mapping)
    report = await home.imports.run(other, source)
    assert (report.fit.model, report.waiting) == ("second", 3)
    assert {each.key: each.state for each in await home.generations.list()} == {"first": "serving", "second": "ready"}


async def test_a_tenant_that_leaves_takes_its_imports_along(
    home: Home, scope: Scope, other: Scope, places: tuple[Path, Path]
) -> None:
    report = await home.imports.run(scope, home.source(*places))
    kept = await home.imports.run(other, home.source(*places))
    staged = home.folder / report.id / "staging.db"
    staged.parent.mkdir(parents=True)
    staged.touch()
    leaving = Leaving(home.database, home.folder)
    files = {path: b"".join([piece async for piece in content]) async for path, content in leaving.export(scope)}
    assert [*files] == [f"imports/{report.id}.jsonl"]
    assert files[f"imports/{report.id}.jsonl"].count(b'"Ada"') == 12
    await home.database.write(leaving.erase_tenant, scope)
    assert await home.imports.every(scope) == []
    assert [row.id for row in await home.imports.every(other)] == [kept.id]
    assert not staged.exists()
