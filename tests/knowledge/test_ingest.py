"""Ingestion: what a document says of itself, what a crash leaves, what the doctor finds."""

import asyncio
from typing import Any

import pytest
from sqlmodel import Session, col, update

from terrace.errors import Conflict, Invalid, Missing, Unavailable
from terrace.jobs.base import Job, JobError
from terrace.knowledge import contents
from terrace.knowledge.base import Filter
from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.index import fulltext
from terrace.knowledge.tables import DocumentRow
from terrace.types import Scope

TEXT = "\n\n".join(f"Paragraph {n} tells of thing {n}." for n in range(300))


class Counting(HashEmbedder):
    """Counts what it embeds; `before` is awaited first."""

    def __init__(self, dimensions: int = 64) -> None:
        super().__init__(dimensions)
        self.embedded = 0
        self.before: Any = None

    async def embed(self, texts: Any, *, query: bool = False, scope: Any = None) -> Any:
        if self.before is not None:
            await self.before()
        self.embedded += len(texts)
        return await super().embed(texts, query=query)


async def words(library: Any, scope: Scope, query: str) -> list[int]:
    return [hit.number for hit in await library.index.search(scope, query, None, model=None, k=500, filter=Filter())]


async def test_progress_is_told_in_words(library: Any, scope: Scope) -> None:
    _, job_id = await library.upload(scope, TEXT)
    notes = (await library.run(scope, job_id)).notes
    assert notes[0] == "Reading"
    assert notes[1:] == [f"{done} of 300 passages embedded" for done in (0, 128, 256, 300)]


async def test_words_can_be_found_before_the_vectors_are_in(library: Any, scope: Scope) -> None:
    embedder = Counting()
    seen: list[Any] = []
    document, job_id = await library.upload(scope, TEXT)

    async def look() -> None:
        current = await library.knowledge.get(scope, document.id)
        seen.append((current.state, current.searchable, len(await words(library, scope, "paragraph"))))

    embedder.before = look
    library.use(embedder)
    await library.run(scope, job_id)
    assert seen[0] == ("embedding", "words", 300)
    assert (await library.knowledge.get(scope, document.id)).searchable == "meaning"


async def test_without_a_model_a_document_is_ready_by_words_and_says_so(library: Any, scope: Scope) -> None:
    library.use(AbsentEmbedder("all-MiniLM-L6-v2/int8", "The weights could not be had."))
    document = await library.add(scope, TEXT)
    assert (document.state, document.searchable) == ("ready", "words")
    assert document.warnings == ("Found by words only: no embedding model is available. The weights could not be had.",)
    assert await library.doctor.examine() == []

    library.use(Counting())
    assert await library.doctor.embed_missing() == 1
    assert await library.doctor.embed_missing() == 0  # it is on its way
    queued = await library.knowledge.get(scope, document.id)
    await library.run(scope, queued.job_id)
    after = await library.knowledge.get(scope, document.id)
    assert (after.state, after.searchable, after.warnings) == ("ready", "meaning", ())
    assert library.parser.parsed == ["a.txt"]  # not read again
    assert (await library.knowledge.counts(scope))["vectors"] == 300


async def test_another_model_embeds_again(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT)
    embedder = Counting(32)
    library.use(embedder)
    assert [finding.code for finding in await library.doctor.examine()] == ["vectors_missing"]
    await library.doctor.repair()
    await library.run(scope, (await library.knowledge.get(scope, document.id)).job_id)
    assert embedder.embedded == 300
    assert await library.doctor.examine() == []


# -- what goes wrong


async def end(library: Any, scope: Scope, job_id: str, error: JobError) -> Job:
    """As the engine does when a job failed for good."""
    from dataclasses import replace

    job = replace(await library.jobs.get(scope, job_id), state="failed", error=error, dead=True)
    kind = library.jobs.kinds[job.kind]
    await library.database.write(lambda session: kind.on_end(session, scope, job))
    return job


async def test_a_file_that_cannot_be_read_says_why(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, "LOCKED")
    with pytest.raises(Invalid) as refused:
        await library.run(scope, job_id)
    assert not refused.value.retryable
    await end(library, scope, job_id, JobError("invalid", refused.value.code, refused.value.message))
    failed = await library.knowledge.get(scope, document.id)
    assert (failed.state, failed.searchable, failed.chunks) == ("failed", "no", 0)
    assert failed.error == {
        "kind": "invalid", "code": "document_encrypted", "message": "This file is protected by a password.",
    }  # fmt: skip
    assert {key.rpartition("/")[2] for key in await library.keys()} == {"original"}


async def test_what_was_read_before_serves_when_reading_again_fails(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT)
    _, job_id = await library.knowledge.reprocess(scope, document.id)

    async def fail() -> None:
        assert len(await words(library, scope, "paragraph")) == 300  # meanwhile the old text serves
        raise Invalid("It broke.", code="document_damaged")

    library.parser.before = fail
    with pytest.raises(Invalid):
        await library.run(scope, job_id)
    await end(library, scope, job_id, JobError("invalid", "document_damaged", "It broke."))
    failed = await library.knowledge.get(scope, document.id)
    assert (failed.state, failed.searchable, failed.chunks) == ("failed", "meaning", 300)
    assert len(await words(library, scope, "paragraph")) == 300
    assert (await library.knowledge.text(scope, document.id)).text == TEXT


async def test_cancelling_the_job_is_told_on_the_document(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT)
    await library.jobs.cancel(scope, job_id)
    failed = await library.knowledge.get(scope, document.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "cancelled"


@pytest.mark.parametrize("writes", range(6))
async def test_an_attempt_that_dies_anywhere_is_taken_up_by_the_next(library: Any, scope: Scope, writes: int) -> None:
    """begin, replace, three batches of vectors, finish: die after each."""
    embedder = Counting()
    library.use(embedder)
    document, job_id = await library.upload(scope, TEXT)
    with pytest.raises(library.died):
        await library.run(scope, job_id, writes=writes)
    await library.run(scope, job_id)
    ready = await library.knowledge.get(scope, document.id)
    assert (ready.state, ready.searchable, ready.chunks) == ("ready", "meaning", 300)
    assert len(library.parser.parsed) == (2 if writes == 1 else 1)
    assert embedder.embedded <= 300 + 128
    assert (await library.knowledge.counts(scope))["vectors"] == 300
    assert await library.table("chunks") == 300
    assert len(await words(library, scope, "paragraph")) == 300
    assert len(await library.keys()) == 2  # the original and one text
    assert await library.doctor.examine(orphan_age=0) == []


async def test_reading_again_embeds_only_what_changed(library: Any, scope: Scope) -> None:
    embedder = Counting()
    library.use(embedder)
    document = await library.add(scope, TEXT)
    _, job_id = await library.knowledge.reprocess(scope, document.id)
    await library.run(scope, job_id)
    assert embedder.embedded == 300
    await library.add(scope, TEXT + "\n\nSomething new.", "b.txt")
    assert embedder.embedded == 301
    assert (await library.knowledge.counts(scope))["vectors"] == 601
    assert await library.table("blob_trash") == 0
    assert len(await library.keys()) == 4  # two originals, two texts; the text before is gone


# -- two at once


@pytest.mark.parametrize("when", ["parsing", "embedding"])
async def test_deleting_while_it_is_read_leaves_nothing(library: Any, scope: Scope, when: str) -> None:
    embedder = Counting()
    library.use(embedder)
    document, job_id = await library.upload(scope, TEXT)

    async def delete() -> None:
        await library.knowledge.delete(scope, document.id)

    if when == "parsing":
        library.parser.before = delete
    else:
        embedder.before = delete
    with pytest.raises(Missing):
        await library.run(scope, job_id)
    assert await library.keys() == set()
    for table in ("documents", "chunks", "document_pages", "chunk_vectors", "blob_trash"):
        assert await library.table(table) == 0
    assert await words(library, scope, "paragraph") == []


async def test_only_the_newest_job_writes(library: Any, scope: Scope) -> None:
    document, first = await library.upload(scope, TEXT)
    await library.jobs.cancel(scope, first)
    _, second = await library.knowledge.reprocess(scope, document.id)
    with pytest.raises(Conflict, match="newer job"):
        await library.run(scope, first)
    job = await end(library, scope, first, JobError("conflict", "superseded", "A newer job reads this document."))
    assert job.error is not None
    assert (await library.knowledge.get(scope, document.id)).state == "queued"
    await library.run(scope, second)
    assert (await library.knowledge.get(scope, document.id)).state == "ready"


@pytest.mark.parametrize("written", [True, False])
async def test_a_task_cancelled_in_mid_write_leaves_the_text_only_with_its_rows(
    library: Any, scope: Scope, written: bool
) -> None:
    document, job_id = await library.upload(scope, TEXT)
    attempt = library.attempt(scope, await library.jobs.get(scope, job_id))
    writing, release = asyncio.Event(), asyncio.Event()
    real = attempt.write

    async def slow(work: Any) -> Any:
        if not attempt.notes:  # the first write
            return await real(work)
        result = await real(work) if written else None
        writing.set()
        await release.wait()
        if not written:
            raise Unavailable("The disk is full.")
        return result

    attempt.write = slow
    task = asyncio.create_task(library.ingest.ingest(attempt))
    await writing.wait()
    task.cancel()
    await asyncio.sleep(0)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await library.keys()) == (2 if written else 1)
    if written:
        assert (await library.knowledge.text(scope, document.id)).text == TEXT


# -- with the engine at work


async def test_the_engine_ingests_and_documents_say_what_jobs_say(library: Any, scope: Scope, other: Scope) -> None:
    await library.jobs.start()
    uploads = [await library.upload(scope, f"{TEXT} {n}", f"{n}.txt") for n in range(5)]
    locked, locked_job = await library.upload(scope, "LOCKED", "locked.txt")
    theirs, their_job = await library.upload(other, TEXT)
    jobs = [await library.jobs.wait(scope, job_id, timeout=30) for _, job_id in uploads]
    assert [job.state for job in jobs] == ["succeeded"] * 5
    assert jobs[0].result == {"document_id": uploads[0][0].id, "searchable": "meaning"}
    failed = await library.jobs.wait(scope, locked_job, timeout=30)
    assert (failed.state, failed.dead, failed.failures) == ("failed", True, 1)
    shown = await library.knowledge.get(scope, locked.id)
    assert (shown.state, shown.error["code"]) == ("failed", "document_encrypted")
    await library.jobs.wait(other, their_job, timeout=30)
    assert (await library.knowledge.get(other, theirs.id)).state == "ready"
    assert await library.doctor.examine(orphan_age=0) == []


async def test_deleting_stops_the_engine_in_mid_embedding(library: Any, scope: Scope) -> None:
    embedder, begun = Counting(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.sleep(60)

    embedder.before = wait
    library.use(embedder)
    await library.jobs.start()
    document, job_id = await library.upload(scope, TEXT)
    await begun.wait()
    await library.knowledge.delete(scope, document.id)
    assert (await library.jobs.wait(scope, job_id, timeout=30)).state == "cancelled"
    assert await library.keys() == set()
    for table in ("documents", "chunks", "document_pages", "chunk_vectors", "blob_trash"):
        assert await library.table(table) == 0


async def test_an_embedder_that_breaks_is_tried_again(library: Any, scope: Scope) -> None:
    embedder, calls = Counting(), []

    async def break_twice() -> None:
        calls.append(1)
        if len(calls) <= 2:
            raise Unavailable("The embedding process died.")

    embedder.before = break_twice
    library.use(embedder)
    await library.jobs.start()
    document, job_id = await library.upload(scope, TEXT)
    job = await library.jobs.wait(scope, job_id, timeout=30)
    assert (job.state, job.failures) == ("succeeded", 2)
    assert (await library.knowledge.get(scope, document.id)).searchable == "meaning"
    assert len(library.parser.parsed) == 1


async def test_a_document_is_ready_in_the_moment_its_job_succeeds(library: Any, scope: Scope) -> None:
    await library.jobs.start()
    document, job_id = await library.upload(scope, TEXT)
    async for event in library.jobs.events(scope, job_id):
        if event.type == "done":
            assert (await library.knowledge.get(scope, document.id)).state == "ready"


# -- the doctor


async def change(library: Any, **values: Any) -> None:
    def work(session: Session) -> None:
        session.execute(update(DocumentRow).where(col(DocumentRow.id) != "").values(**values))

    await library.database.write(work)


async def codes(library: Any) -> list[str]:
    return [finding.code for finding in await library.doctor.examine(orphan_age=0)]


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        ({"state": "embedding", "job_id": "job_gone"}, "document_stuck"),
        ({"state": "parsing", "job_id": None}, "document_stuck"),
        ({"chunk_count": 7}, "document_hollow"),
        ({"embedding": "another/fp32"}, "vectors_missing"),
    ],
)
async def test_the_doctor_has_half_done_documents_read_again(
    library: Any, scope: Scope, harm: dict[str, Any], code: str
) -> None:
    document = await library.add(scope, TEXT)
    await change(library, **harm)
    assert await codes(library) == [code]
    assert [finding.subject for finding in await library.doctor.repair()] == [document.id]
    assert await codes(library) == []
    await library.run(scope, (await library.knowledge.get(scope, document.id)).job_id)
    ready = await library.knowledge.get(scope, document.id)
    assert (ready.state, ready.searchable, ready.chunks) == ("ready", "meaning", 300)


async def test_the_doctor_has_everything_read_again_when_words_are_missing_from_the_index(
    library: Any, scope: Scope
) -> None:
    document = await library.add(scope, TEXT)
    await library.database.write(lambda session: fulltext.remove(session, scope, document.id))
    assert await codes(library) == ["index_differs"]
    await library.doctor.repair()
    await library.run(scope, (await library.knowledge.get(scope, document.id)).job_id)
    assert await codes(library) == []


async def test_the_doctor_removes_old_orphans_and_spares_young_ones(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT)
    await library.blobs.put("acme/documents/doc_gone/original", b"half")
    assert await library.doctor.examine() == []
    assert await codes(library) == ["blob_orphaned"]
    await library.doctor.repair(orphan_age=0)
    assert {key.split("/")[2] for key in await library.keys()} == {document.id}


async def test_the_doctor_reports_a_lost_file_and_restores_a_lost_text(library: Any, scope: Scope) -> None:
    document = await library.add(scope, TEXT)
    for key in await library.keys():
        if not key.endswith("original"):
            await library.blobs.delete(key)
    assert await codes(library) == ["text_missing"]
    await library.doctor.repair()
    await library.run(scope, (await library.knowledge.get(scope, document.id)).job_id)
    assert (await library.knowledge.text(scope, document.id)).text == TEXT
    await library.blobs.delete(next(key for key in await library.keys() if key.endswith("original")))
    (finding,) = [each for each in await library.doctor.examine() if each.code != "trash_full"]
    assert (finding.code, finding.repairable) == ("blob_missing", False)


async def test_ended_ignores_what_is_no_document(library: Any, scope: Scope) -> None:
    await library.upload(scope, TEXT)
    _, job_id = await library.upload(scope, "other")
    job = await library.jobs.get(scope, job_id)
    job.payload["document_id"] = "doc_unknown"
    await library.database.write(lambda session: contents.ended(session, scope, job))


async def test_a_document_waits_while_its_cancelled_job_does_again(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT)
    await library.jobs.cancel(scope, job_id)
    assert (await library.knowledge.get(scope, document.id)).state == "failed"
    await library.jobs.retry(scope, job_id)
    waiting = await library.knowledge.get(scope, document.id)
    assert (waiting.state, waiting.error) == ("queued", None)
    await library.run(scope, job_id)
    assert (await library.knowledge.get(scope, document.id)).state == "ready"


async def test_a_job_whose_document_has_a_newer_one_or_is_gone_is_not_retried(library: Any, scope: Scope) -> None:
    document, job_id = await library.upload(scope, TEXT)
    await library.jobs.cancel(scope, job_id)
    _, newer = await library.knowledge.reprocess(scope, document.id)
    with pytest.raises(Conflict, match="newer job"):
        await library.jobs.retry(scope, job_id)
    await library.jobs.cancel(scope, newer)
    await library.knowledge.delete(scope, document.id)
    with pytest.raises(Missing):
        await library.jobs.retry(scope, newer)
    assert (await library.jobs.get(scope, newer)).state == "cancelled"
