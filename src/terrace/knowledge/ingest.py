"""From a stored file to searchable passages: parse, chunk, index by words, then by meaning.

Each step is one fenced transaction, so an attempt that dies leaves a whole state behind and the next one goes on from
there: chunks that this job has stored are not parsed again, vectors that are in are not computed again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlmodel import Session

from terrace.errors import Invalid, Unavailable
from terrace.jobs.base import Context, Done, Job
from terrace.knowledge import contents, texts, trash
from terrace.knowledge.base import Chunk, Index, Parsed
from terrace.knowledge.contents import Passage, Reading
from terrace.knowledge.embedding.base import EmbeddingAbsent, StatefulEmbedder, beside, present
from terrace.knowledge.settling import kept_if_known, to_the_end
from terrace.knowledge.tables import DocumentRow
from terrace.storage import Blobs, Database
from terrace.types import Scope
from terrace.webhooks.base import Emitter, Silent

log = logging.getLogger(__name__)

BATCH = 128  # passages embedded and stored at a time


class Parser(Protocol):
    """Reads a file under bounds of time and memory. Raises Invalid with a sentence for the person who sent it."""

    async def parse(
        self, path: Path, name: str, progress: Callable[[float, float, str], None] | None = None
    ) -> tuple[Parsed, Sequence[Chunk]]: ...


class Ingest:
    """The handlers of `knowledge.ingest` and `knowledge.embed`; the payload of both is {document_id}."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        parser: Parser,
        index: Index,
        embedder: StatefulEmbedder,
        emitter: Emitter | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._parser = parser
        self._index = index
        self._embedder = embedder
        self._emitter = emitter or Silent()

    def ended(self, session: Session, scope: Scope, job: Job) -> None:
        """A job of either kind failed for good or was cancelled."""
        row = contents.ended(session, scope, job)
        if row is not None and job.state == "failed":
            self._emitter.emit(session, scope, "document.failed", contents.told(row))

    async def ingest(self, context: Context) -> Done:
        """Read the file, then embed its passages."""
        embedder = present(self._embedder)
        document = await self._begin(context, parse=True)
        if document.parsed_by == context.job_id:  # an earlier attempt of this job got that far
            return await self._embed(context, document, None, embedder)
        return await self._embed(context, document, await self._parse(context, document, embedder), embedder)

    async def embed(self, context: Context) -> Done:
        """Embed the passages that have no vector yet, of a document that was read before."""
        return await self._embed(context, await self._begin(context, parse=False), None, present(self._embedder))

    async def _begin(self, context: Context, *, parse: bool) -> DocumentRow:
        document_id = context.payload.get("document_id")
        if not isinstance(document_id, str):
            raise Invalid("The payload needs a document_id.", code="bad_payload")

        def begin(session: Session) -> DocumentRow:
            return contents.begin(session, context.scope, document_id, context.job_id, parse=parse)

        document: DocumentRow = await context.write(begin)
        return document

    async def _parse(self, context: Context, document: DocumentRow, embedder: StatefulEmbedder) -> list[Passage]:
        """Read the file and store what was read. Returns the passages that have no vector yet."""

        def progress(done: float, total: float, note: str = "") -> None:
            context.progress(done, total, note or "Reading")

        progress(0, 1)
        async with self._blobs.local(document.blob) as path:
            parsed, chunks = await self._parser.parse(path, document.name, progress)
        width, data = await asyncio.to_thread(texts.encode, parsed.text)
        reading = Reading(parsed, chunks, texts.text_key(context.scope.tenant, document.id, width))
        missing = await self._replace(context, document.id, reading, data, _model(embedder))
        if document.text_blob is not None:  # the text before is in the trash now
            await trash.empty(self._database, self._blobs, context.scope)
        return missing

    async def _replace(
        self, context: Context, document_id: str, reading: Reading, text: bytes, model: str | None
    ) -> list[Passage]:
        """Put what was read in the place of what was there; the text's blob goes again if the rows aren't written."""

        def replace(session: Session) -> list[Passage]:
            return contents.replace(session, context.scope, self._index, document_id, context.job_id, reading, model)

        def kept(session: Session) -> set[str]:
            return contents.text_blobs(session, context.scope, document_id)

        async with kept_if_known(self._database, self._blobs, [reading.text_blob], kept):
            await self._blobs.put(reading.text_blob, text)
            missing: list[Passage] = await to_the_end(context.write(replace))
        return missing

    async def _embed(
        self, context: Context, document: DocumentRow, missing: list[Passage] | None, embedder: StatefulEmbedder
    ) -> Done:
        model, why = None, ""
        try:
            model = await self._add_vectors(context, document.id, missing, embedder)
            while (now := present(self._embedder)).name != model:  # another one took its place meanwhile
                model = await self._add_vectors(context, document.id, None, now)
        except EmbeddingAbsent as error:
            why = error.message
        for other in beside(self._embedder):
            await self._add_beside(context, document.id, other)

        def finish(session: Session) -> None:
            row = contents.finish(session, context.scope, document.id, context.job_id, model=model, why_words_only=why)
            if row.parsed_by == context.job_id:  # read just now, not merely embedded anew
                self._emitter.emit(session, context.scope, "document.ready", contents.told(row))

        return Done({"document_id": document.id, "searchable": "meaning" if model else "words"}, commit=finish)

    async def _add_beside(self, context: Context, document_id: str, embedder: StatefulEmbedder) -> None:
        """Of a generation that does not serve: what it can't have now, its own job makes up for."""
        try:
            await self._add_vectors(context, document_id, None, embedder)
        except Unavailable as error:
            log.warning("%s goes without vectors of %s for now: %s", document_id, embedder.name, error.message)

    async def _add_vectors(
        self, context: Context, document_id: str, missing: list[Passage] | None, embedder: StatefulEmbedder
    ) -> str:
        """Embed `missing`, or whatever is; returns the model whose vectors all passages have now."""
        if (state := embedder.state()).state == "absent":
            raise EmbeddingAbsent(state.why)
        model = embedder.name
        if missing is None:
            missing = await context.write(
                lambda session: contents.reuse(session, context.scope, self._index, document_id, context.job_id, model)
            )
        missing.sort(key=lambda passage: len(passage.text))  # alike lengths share a batch with little padding
        for start in range(0, len(missing), BATCH):
            context.progress(start, len(missing), f"{start:,} of {len(missing):,} passages embedded")
            batch = missing[start : start + BATCH]
            vectors = await embedder.embed([passage.text for passage in batch], scope=context.scope)
            await self._store(context, document_id, model, batch, vectors)
        context.progress(1, 1, f"{len(missing):,} of {len(missing):,} passages embedded")
        return model

    async def _store(
        self, context: Context, document_id: str, model: str, batch: Sequence[Passage], vectors: Any
    ) -> None:
        def add(session: Session) -> None:
            contents.fenced(session, context.scope, document_id, context.job_id)
            ids = [passage.id for passage in batch]
            self._index.add_vectors(session, context.scope, model, ids, vectors)

        await context.write(add)


def _model(embedder: StatefulEmbedder) -> str | None:
    """Whose vectors are kept; None when there is no embedding model."""
    return embedder.name if embedder.state().state != "absent" else None
