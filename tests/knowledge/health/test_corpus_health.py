"""Corpus health: what a check finds in each way a corpus can be ill, and that a repair makes it well."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from sqlmodel import Session, col, select, update

from terrace.errors import Invalid
from terrace.knowledge.health import leaving
from terrace.knowledge.health.base import Finding, Report
from terrace.knowledge.health.likeness import ALIKE, Means
from terrace.knowledge.health.retrievals import Retrievals
from terrace.knowledge.health.service import Health
from terrace.knowledge.health.store import CHECK
from terrace.knowledge.health.tables import RetrievalRow, WatchRow
from terrace.knowledge.health.tasks import CHECK_ALL, job_kinds
from terrace.knowledge.index import fulltext
from terrace.knowledge.index.postgres import words
from terrace.knowledge.search import Search
from terrace.knowledge.sources.tables import SourceItemRow
from terrace.knowledge.tables import DocumentRow
from terrace.storage import Database
from terrace.types import Scope, now

MONTH = 31 * 86_400.0
TEXT = "\n\n".join(f"The quay of harbour {number} is {number} metres deep." for number in range(5))


class Clinic:
    """A library, and its health."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.at = now()
        self.health = self.open()
        for kind in job_kinds(self.health, library.doctor):
            library.jobs.register(kind)

    def open(self, **more: Any) -> Health:
        of = self.library
        return Health(
            of.database, of.jobs, of.index, of.embedder, of.doctor, of.knowledge.delete, clock=lambda: self.at, **more
        )

    async def report(self, scope: Scope) -> Report:
        report = await self.health.check(scope)
        assert report is not None
        return report

    async def found(self, scope: Scope) -> dict[str, int]:
        return {each.kind: each.count for each in (await self.report(scope)).findings}

    async def finding(self, scope: Scope, kind: str) -> Finding:
        [finding] = [each for each in (await self.report(scope)).findings if each.kind == kind]
        return finding


@pytest.fixture
def clinic(library: Any) -> Clinic:
    return Clinic(library)


@pytest.fixture
def meddle(library: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Write into the database behind our back, past its foreign keys."""

    def on_sqlite(statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(tmp_path / "terrace.db", timeout=10)) as connection, connection:
            assert connection.execute(statement, values).rowcount

    def on_postgresql(statement: str, *values: Any) -> None:
        statement = statement.replace("?", "%s").replace("zeroblob(6)", "'[0,0,0]'")
        with psycopg.connect(request.getfixturevalue("postgres_url")) as connection:
            connection.execute("SET session_replication_role = replica")
            assert connection.execute(statement, values).rowcount

    return on_postgresql if library.database.dialect == "postgresql" else on_sqlite


def text_of(library: Any) -> Any:
    """The full text of the index."""
    return words if library.database.dialect == "postgresql" else fulltext


async def test_a_sound_corpus_has_no_findings(clinic: Clinic, scope: Scope, other: Scope) -> None:
    await clinic.library.add(scope, TEXT)
    await clinic.library.add(other, TEXT)
    assert (await clinic.health.condition(scope)).report is None
    report = await clinic.report(scope)
    assert (report.documents, report.chunks, report.vectors, report.findings, report.notes) == (1, 5, 5, [], [])
    assert (await clinic.health.condition(scope)).report == report
    assert (await clinic.health.condition(other)).report is None


@pytest.mark.parametrize(
    ("harm", "values", "kind", "count"),
    [
        ("UPDATE documents SET state = 'parsing', job_id = NULL WHERE id = ?", ("doc",), "document_stuck", 1),
        ("UPDATE documents SET state = 'failed' WHERE id = ?", ("doc",), "document_failed", 1),
        ("UPDATE documents SET chunk_count = 9 WHERE id = ?", ("doc",), "document_hollow", 1),
        ("UPDATE documents SET embedding = 'old' WHERE id = ?", ("doc",), "vectors_missing", 1),
        ("UPDATE chunk_vectors SET vector = zeroblob(6) WHERE number = (SELECT min(number) FROM chunks)", (),
         "vectors_odd", 1),
        ("UPDATE chunk_vectors SET model = 'old' WHERE number = (SELECT min(number) FROM chunks)", (),
         "vectors_left", 1),
        ("UPDATE chunk_vectors SET number = number + 1000 WHERE document_id = ?", ("doc",), "vectors_orphaned", 5),
    ],
)  # fmt: skip
async def test_what_is_broken_is_found_in_its_tenant_alone_and_mended(
    clinic: Clinic,
    scope: Scope,
    other: Scope,
    meddle: Callable[..., None],
    harm: str,
    values: tuple[str, ...],
    kind: str,
    count: int,
) -> None:
    document = await clinic.library.add(scope, TEXT)
    await clinic.library.add(scope, "Another document.\n\nWith two passages.", "b.txt")
    await clinic.library.add(other, TEXT)
    meddle(harm, *(document.id for _ in values))
    finding = await clinic.finding(scope, kind)
    assert (finding.count, finding.repairable) == (count, True)
    assert finding.repair
    if kind.startswith("document") or kind == "vectors_missing":
        assert [(each.id, each.name) for each in finding.examples] == [(document.id, "a.txt")]
    assert kind not in await clinic.found(other)
    await clinic.health.repair(scope, [kind])
    again = await clinic.library.knowledge.get(scope, document.id)
    if again.state == "queued":
        await clinic.library.run(scope, again.job_id)
    left = await clinic.found(scope)
    assert kind not in left
    if kind in ("vectors_left", "vectors_orphaned"):  # the harm took vectors away; nobody else notices that
        return
    assert left == {}
    assert (await clinic.library.knowledge.get(scope, document.id)).searchable == "meaning"


async def test_what_is_left_of_a_document_that_is_gone(
    clinic: Clinic, scope: Scope, meddle: Callable[..., None]
) -> None:
    gone = await clinic.library.add(scope, TEXT)
    stays = await clinic.library.add(scope, "Another document.\n\nWith two passages.", "b.txt")
    meddle("DELETE FROM documents WHERE id = ?", gone.id)
    assert await clinic.found(scope) == {"chunks_orphaned": 5}
    await clinic.health.repair(scope, ["chunks_orphaned"])
    assert await clinic.found(scope) == {}
    assert await clinic.library.table("chunks") == 2
    hits = await Search(clinic.library.database, clinic.library.index, clinic.library.embedder).search(
        scope, "passages"
    )
    assert {hit.document_id for hit in hits.hits} == {stays.id}


async def test_full_text_is_made_anew_without_reading_files_again(
    clinic: Clinic, scope: Scope, meddle: Callable[..., None]
) -> None:
    gone = await clinic.library.add(scope, TEXT)
    stays = await clinic.library.add(scope, "Another document.\n\nWith two passages.", "b.txt")
    await clinic.library.database.write(lambda session: text_of(clinic.library).remove(session, scope, stays.id))
    for table in ("chunk_vectors", "chunks"):
        meddle(f"DELETE FROM {table} WHERE document_id = ?", gone.id)
    assert (await clinic.found(scope))["index_differs"] == 7  # two are missing, five are of nothing
    read = len(clinic.library.parser.parsed)
    await clinic.health.repair(scope, ["index_differs"])
    assert "index_differs" not in await clinic.found(scope)
    assert len(clinic.library.parser.parsed) == read
    assert len(await clinic.library.database.read(text_of(clinic.library).search, scope, "passages", 10)) == 1


async def test_files_astray(clinic: Clinic, scope: Scope, other: Scope) -> None:
    document = await clinic.library.add(scope, TEXT)
    for key in await clinic.library.keys():
        await clinic.library.blobs.delete(key)
    assert await clinic.found(scope) == {"blob_missing": 1, "text_missing": 1}
    missing = await clinic.finding(scope, "blob_missing")
    assert (missing.repairable, missing.examples[0].id) == (False, document.id)
    assert await clinic.found(other) == {}


async def test_duplicates(clinic: Clinic, scope: Scope, other: Scope) -> None:
    first = await clinic.library.add(scope, TEXT)
    twin = await clinic.library.add(scope, TEXT + "\f", "b.txt")  # other bytes, the same passages
    await clinic.library.database.write(_resize, twin.id, first.characters)
    elsewhere = await clinic.library.add(scope, TEXT, "c.txt", collection="other")
    await clinic.library.add(scope, TEXT.replace("0", "9"), "d.txt")
    await clinic.library.add(other, TEXT)
    assert await clinic.found(scope) == {"duplicate": 1, "duplicate_elsewhere": 1, "duplicate_near": 1}
    assert (await clinic.finding(scope, "duplicate")).examples[0].id == twin.id
    assert first.id in (await clinic.finding(scope, "duplicate")).examples[0].note
    assert (await clinic.finding(scope, "duplicate_elsewhere")).examples[0].id == elsewhere.id
    near = await clinic.finding(scope, "duplicate_near")
    assert (near.examples[0].name, near.repairable) == ("d.txt", False)
    await clinic.health.repair(scope, ["duplicate"])
    assert await clinic.found(scope) == {"duplicate_elsewhere": 1, "duplicate_near": 1}
    assert (await clinic.library.knowledge.get(scope, first.id)).state == "ready"
    assert await clinic.found(other) == {}


def _resize(session: Session, document_id: str, characters: int) -> None:
    session.execute(update(DocumentRow).where(col(DocumentRow.id) == document_id).values(characters=characters))


async def test_documents_that_say_almost_the_same_are_found_as_by_all_cosines() -> None:
    random = np.random.default_rng(7)
    base = random.normal(size=(300, 96)).astype(np.float32) + 0.5
    close = base[:40] + random.normal(scale=0.12, size=(40, 96)).astype(np.float32)
    rows = np.concatenate([base, close])
    means = Means()
    names = [f"doc_{number:03}" for number in range(len(rows))]
    for start in range(0, len(rows), 50):  # two passages each
        piece = np.repeat(rows[start : start + 50], 2, axis=0).astype("<f2")
        means.add([name for name in names[start : start + 50] for _ in range(2)], piece)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    expected = {(names[i], names[j]) for i in range(340) for j in range(i + 1, 340) if cosines[i, j] >= ALIKE + 0.002}
    pairs, compared = means.pairs(1000)
    assert (len(expected), compared) == (40, 340)
    assert expected <= {(pair.document, pair.other) for pair in pairs}
    assert all(pair.likeness >= ALIKE for pair in pairs)
    assert means.pairs(100)[1] == 100


async def test_what_no_search_finds(clinic: Clinic, scope: Scope, other: Scope) -> None:
    retrievals = Retrievals(clinic.library.database)
    search = Search(clinic.library.database, clinic.library.index, clinic.library.embedder, retrievals.count)
    await clinic.library.add(scope, TEXT)
    unread = await clinic.library.add(scope, "Nobody asks about gardening.", "b.txt")
    await clinic.library.add(other, TEXT)
    await clinic.report(scope)
    clinic.at += MONTH
    assert await clinic.found(scope) == {}  # nobody searches here at all
    for _ in range(3):
        await search.search(scope, "quay harbour", mode="text")
    await retrievals.close()
    rows = await clinic.library.database.read(lambda session: session.exec(select(RetrievalRow)).all())
    assert [(row.tenant_id, row.times) for row in rows] == [(scope.tenant, 3)]
    await clinic.library.database.write(_date, clinic.at)
    finding = await clinic.finding(scope, "never_retrieved")
    assert [each.id for each in finding.examples] == [unread.id]
    await clinic.library.knowledge.delete(scope, rows[0].document_id)
    await clinic.report(scope)
    assert await clinic.library.table("document_retrievals") == 0  # what is gone is not counted on


def _date(session: Session, at: float) -> None:
    session.execute(update(RetrievalRow).values(last_at=at))


async def test_what_its_source_shows_no_more(clinic: Clinic, scope: Scope) -> None:
    document = await clinic.library.add(scope, TEXT)

    def bring(session: Session) -> None:
        item = {"source_id": "src_1", "tenant_id": scope.tenant, "document_id": document.id, "owned": True}
        session.add(SourceItemRow(**item, key_hash="a", key="a.txt", checked_at=clinic.at))

    await clinic.library.database.write(bring)
    assert await clinic.found(scope) == {}
    clinic.at += MONTH
    assert await clinic.found(scope) == {"stale": 1}


async def test_a_check_is_a_job_and_the_schedule_skips_what_has_not_changed(clinic: Clinic, scope: Scope) -> None:
    await clinic.library.jobs.start()

    async def add(text: str) -> None:
        _, job_id = await clinic.library.upload(scope, text)
        await clinic.library.jobs.wait(scope, job_id, 20)

    async def check(**payload: Any) -> Any:
        job_id = await clinic.library.database.write(clinic.health.begin, scope, payload)
        return (await clinic.library.jobs.wait(scope, job_id, 20)).result

    await add(TEXT)
    assert await check() == {"repaired": {}, "changed": True, "findings": {}}
    assert (await check())["changed"] is False
    assert (await check(anyway=True))["changed"] is True
    await add("Something new.")
    assert (await check())["changed"] is True
    clinic.at += 86_401
    assert (await check())["changed"] is True
    assert len((await clinic.health.condition(scope)).history) == 4


async def test_one_check_at_a_time(clinic: Clinic, scope: Scope) -> None:
    first = await clinic.health.check_soon(scope)
    assert await clinic.health.check_soon(scope) == first
    assert (await clinic.health.condition(scope)).job_id == first


async def test_every_tenant_with_documents_is_checked_when_it_changed(
    clinic: Clinic, scope: Scope, other: Scope
) -> None:
    for each in (scope, other):
        await clinic.library.add(each, TEXT)
    assert await clinic.health.check_all() == 2
    assert await clinic.health.check_all() == 0  # they wait already
    for each in (scope, other):
        assert [job.kind for job in (await clinic.library.jobs.list(each, kind=CHECK, everyone=True))[0]] == [CHECK]
        for job in (await clinic.library.jobs.list(each, kind=CHECK, everyone=True))[0]:
            await clinic.library.jobs.cancel(each, job.id)
        await clinic.report(each)
    assert await clinic.health.check_all() == 0
    await clinic.library.add(scope, "Something new.", "b.txt")
    assert await clinic.health.check_all() == 1
    assert CHECK_ALL in clinic.library.jobs.kinds


async def test_a_repair_is_a_job_of_kinds_that_can_be_mended(
    clinic: Clinic, scope: Scope, meddle: Callable[..., None]
) -> None:
    await clinic.library.jobs.start()
    document, read = await clinic.library.upload(scope, TEXT)
    await clinic.library.jobs.wait(scope, read, 20)
    meddle("UPDATE documents SET state = 'failed' WHERE id = ?", document.id)
    for kinds in ([], ["never_retrieved"], ["nonsense"]):
        with pytest.raises(Invalid, match="document_failed"):
            await clinic.health.repair_soon(scope, kinds)
    job = await clinic.library.jobs.wait(scope, await clinic.health.repair_soon(scope, ["document_failed"]), 20)
    assert job.result is not None
    assert job.result["repaired"] == {"document_failed": 1}


async def test_other_generations_vectors_are_wanted(clinic: Clinic, scope: Scope, meddle: Callable[..., None]) -> None:
    await clinic.library.add(scope, TEXT)
    meddle("UPDATE chunk_vectors SET model = 'before/fp32'")
    assert (await clinic.found(scope))["vectors_left"] == 5
    clinic.health = clinic.open(serving=lambda: ["before/fp32"])
    assert "vectors_left" not in await clinic.found(scope)


async def test_sums_for_the_metrics_are_of_the_latest_reports(
    clinic: Clinic, scope: Scope, other: Scope, meddle: Callable[..., None]
) -> None:
    for each in (scope, other):
        await clinic.library.add(each, TEXT)
    meddle("UPDATE documents SET state = 'failed'")
    for _ in range(2):
        for each in (scope, other):
            await clinic.report(each)
    assert await clinic.health.totals() == {"document_failed": 2}


async def test_leaving(clinic: Clinic, scope: Scope, other: Scope) -> None:
    for each in (scope, other):
        await clinic.library.add(each, TEXT)
        await clinic.report(each)
    files = {
        path: b"".join([piece async for piece in pieces])
        async for path, pieces in leaving.export(clinic.library.database, scope)
    }
    assert b'"documents":1' in files["corpus-health.json"]
    await clinic.library.database.write(leaving.erase_tenant, scope)
    assert (await clinic.health.condition(scope)).history == []
    assert (await clinic.health.condition(other)).report is not None
    left = await clinic.library.database.read(lambda session: set(session.exec(select(WatchRow.tenant_id))))
    assert left == {other.tenant}


async def test_counting_what_is_found_is_nearly_free(database: Database, scope: Scope) -> None:
    """Some additions to a dictionary; no write but one every half minute."""
    retrievals = Retrievals(database)
    for _ in range(1000):
        retrievals.count(scope, ("doc_1", "doc_2"))
    await retrievals.flush()
    retrievals.count(scope, ("doc_1",))
    await retrievals.close()
    rows = await database.read(
        lambda session: session.exec(select(RetrievalRow).order_by(RetrievalRow.document_id)).all()
    )
    assert [(row.document_id, row.times) for row in rows] == [("doc_1", 1001), ("doc_2", 1000)]
