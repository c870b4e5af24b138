"""Analyses: files come in, are followed, read, tried again and removed. Each is its owner's alone."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from terrace.accounts.limits.base import Limits
from terrace.accounts.limits.unlimited import Unlimited
from terrace.analysis import media, store
from terrace.analysis.base import Analysis, AnalysisState, Models, Wish
from terrace.analysis.plain import kept
from terrace.analysis.reading import Reader
from terrace.analysis.tables import AnalysisRow, PageRow
from terrace.analysis.tasks import RUN
from terrace.analysis.types import find_type
from terrace.errors import Conflict, Invalid, Missing, TerraceError, bad_cursor
from terrace.jobs.base import Jobs
from terrace.knowledge import trash
from terrace.knowledge.base import Document
from terrace.knowledge.naming import file_name
from terrace.knowledge.settling import to_the_end
from terrace.outbound.urls import check_url
from terrace.settings import Analysis as Settings
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now

MAX_LIMIT = 200
MAX_PROMPT = 20_000  # characters
ID = "ana_[0-9a-z]{26}"
WAITING = 10  # more urgent than bulk work, less than a question somebody waits for

_ID = re.compile(ID)


class Library(Protocol):
    """The part of the knowledge room that takes a document."""

    async def upload(
        self, scope: Scope, name: str, stream: AsyncIterator[bytes], *, collection: str = ..., tags: Sequence[str] = ...
    ) -> tuple[Document, str | None]: ...


@dataclass(frozen=True, slots=True)
class Saved:
    """A file that has arrived and is not analysed yet."""

    id: str
    name: str
    media_type: str
    bytes: int
    sha256: str


class Analyses:
    """`limits` has the last word on what is taken."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        jobs: Jobs,
        models: Models,
        reader: Reader,
        options: Settings,
        library: Library,
        limits: Limits | None = None,
        check_webhook: Callable[[str], str] = check_url,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._models = models
        self._reader = reader
        self._options = options
        self._library = library
        self._limits: Limits = limits or Unlimited()
        self._check_webhook = check_webhook

    # -- coming in

    async def receive(self, scope: Scope, name: str, stream: AsyncIterator[bytes]) -> Saved:
        """Store a file (state `saving`): `start` it, or lose it with `kept_on_success`.

        Raises Invalid when it is too large, empty or nothing we can analyse; nothing is left then.
        """
        analysis_id, shown = new_id("ana"), file_name(name)
        key = f"{scope.tenant}/analyses/{analysis_id}/original"
        row = AnalysisRow(
            id=analysis_id, tenant_id=scope.tenant, user_id=scope.user, key_id=scope.key, name=shown, blob=key,
            created_at=now(), updated_at=now(),
        )  # fmt: skip
        await self._database.write(lambda session: session.add(row))
        async with self._kept_on_success(scope, analysis_id):
            stored = await self._blobs.put(key, stream, limit=self._options.max_file_bytes)
            if stored.bytes == 0:
                raise Invalid("This file is empty (0 bytes).", code="document_empty")
            media_type = await self._type(key, shown)
            return Saved(analysis_id, shown, media_type, stored.bytes, stored.sha256)

    def kept_on_success(self, scope: Scope, saved: Saved) -> AbstractAsyncContextManager[None]:
        """Removes what was received, but not started, when the block fails."""
        return self._kept_on_success(scope, saved.id)

    @asynccontextmanager
    async def _kept_on_success(self, scope: Scope, analysis_id: str) -> AsyncGenerator[None, None]:
        try:
            yield
        except BaseException:
            await asyncio.shield(self._drop(scope, analysis_id))
            raise

    async def _drop(self, scope: Scope, analysis_id: str) -> None:
        """What can't be removed now (a shutdown, a full disk) the daily tidying finds."""

        def drop(session: Session) -> None:
            row = session.get(AnalysisRow, analysis_id)
            if row is not None and row.state == "saving":
                store.remove(session, [row])

        with suppress(TerraceError):
            await self._database.write(drop)
            await trash.empty(self._database, self._blobs, scope)

    async def _type(self, key: str, name: str) -> str:
        async with self._blobs.local(key) as path:
            kind = await asyncio.to_thread(media.tell, path, name)
            if kind == media.ZIP:
                kind = await self._reader.archive_type(path, name)
        if kind == media.ZIP:
            raise Invalid(
                f"This is a zip archive; send the files in it one by one. {media.ACCEPTED}",
                code="document_unsupported",
                status=415,
            )
        return kind

    async def start(self, scope: Scope, saved: Saved, wish: Wish) -> Analysis:
        """Have a file that has arrived analysed. With a key that came before, it is what that asked for.

        Raises Invalid (type, prompt, schema, webhook), Missing (model), Denied, Limited, Conflict (the key asked for
        something else).
        """
        checked = await self._checked(scope, wish)
        try:
            analysis, ours = await to_the_end(self._database.write(self._start, scope, saved, checked))
        except IntegrityError:  # two with one key at once, on a database with many writers: the second finds the first
            analysis, ours = await to_the_end(self._database.write(self._start, scope, saved, checked))
        if not ours:
            await self._drop(scope, saved.id)
        return analysis

    async def _checked(self, scope: Scope, wish: Wish) -> Wish:
        find_type(wish.type)
        prompt = kept(wish.prompt).strip()
        if len(prompt) > MAX_PROMPT:
            raise Invalid(f"A prompt has at most {MAX_PROMPT:,} characters.", code="prompt_too_long", status=413)
        schema = None if wish.schema is None else await self._reader.check_schema(wish.schema)
        webhook = self._check_webhook(wish.webhook) if wish.webhook else None
        if wish.model:
            await self._models.resolve(wish.model, scope)
        return replace(wish, prompt=prompt, schema=schema, webhook=webhook, model=wish.model or None)

    def _start(self, session: Session, scope: Scope, saved: Saved, wish: Wish) -> tuple[Analysis, bool]:
        """The analysis, and whether it is this file's."""
        fingerprint = _fingerprint(saved, wish)
        if (known := store.asked(session, scope, wish.key)) is not None:
            if known.fingerprint != fingerprint:
                raise Conflict(
                    "This Idempotency-Key asked for another analysis before. Take a new one.", code="key_reused"
                )
            return store.shown(known), False
        row = store.get(session, scope, saved.id)
        self._limits.admit(session, scope, documents=0, bytes=saved.bytes)
        row.media_type, row.bytes, row.fingerprint = saved.media_type, saved.bytes, fingerprint
        row.type, row.prompt, row.fields_schema = wish.type, wish.prompt, wish.schema
        row.wanted_model, row.webhook = wish.model, wish.webhook
        row.request_key = store.request_key(scope, wish.key)
        row.state, row.updated_at = "queued", now()
        payload: dict[str, Any] = {"analysis_id": row.id}
        if scope.models:  # the job is held to what whoever asked may use
            payload["models"] = [sorted(wall) for wall in scope.models]
        row.job_id = self._jobs.enqueue(session, scope, RUN, payload, priority=WAITING)
        session.flush()
        return store.shown(row), True

    # -- looking

    async def get(self, scope: Scope, analysis_id: str) -> Analysis:
        """Raises Missing."""
        return await self._database.read(lambda session: store.shown(store.get(session, scope, analysis_id)))

    async def list(
        self, scope: Scope, *, state: AnalysisState | None = None, limit: int = 50, cursor: str | None = None
    ) -> "tuple[list_[Analysis], str | None]":
        """One's own, newest first, without their results, and the cursor of the next page."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
        if cursor is not None and not _ID.fullmatch(cursor):
            raise bad_cursor()
        found = await self._database.read(store.page, scope, state, limit + 1, cursor)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def original(self, scope: Scope, analysis_id: str) -> tuple[Analysis, AsyncIterator[bytes]]:
        """The file as it was sent. Raises Missing, Conflict while it is still arriving."""
        row = await self._database.read(store.get, scope, analysis_id)
        if row.state == "saving":
            raise Conflict("This file is still arriving.", code="not_saved_yet")
        return store.shown(row), self._blobs.stream(row.blob)

    async def original_link(self, scope: Scope, analysis_id: str) -> str | None:
        """Where the file can be fetched from for a few minutes, past this server; None where it must be streamed."""
        row = await self._database.read(store.get, scope, analysis_id)
        if row.state == "saving":
            return None
        return await self._blobs.link(row.blob, name=row.name, media_type=row.media_type)

    async def page_image(self, scope: Scope, analysis_id: str, number: int) -> tuple[bytes, str]:
        """(bytes, media type) of a page as the model was given it. Raises Missing."""

        def find(session: Session) -> PageRow | None:
            return session.get(PageRow, (store.get(session, scope, analysis_id).id, number))

        page = await self._database.read(find) if 0 < number < 2**31 else None
        if page is None or page.blob is None:
            await self.get(scope, analysis_id)
            raise Missing("This analysis has no picture of such a page (yet).", code="page_missing")
        return await self._blobs.read(page.blob), page.media_type or "image/png"

    # -- changing

    async def retry(self, scope: Scope, analysis_id: str) -> Analysis:
        """Try a failed or cancelled one again; what was answered is not asked again. Raises Missing, Conflict."""
        analysis = await self.get(scope, analysis_id)
        if analysis.job_id is None or analysis.state not in ("failed", "cancelled"):
            raise Conflict(
                f"Only a failed or cancelled analysis can be tried again; this one is {analysis.state}.",
                code="not_failed",
            )
        await self._jobs.retry(scope, analysis.job_id)
        return await self.get(scope, analysis_id)

    async def delete(self, scope: Scope, analysis_id: str) -> None:
        """With its file, pages and result; a job at work on it is stopped. Raises Missing."""

        def remove(session: Session) -> list_[str]:
            return store.remove(session, [store.get(session, scope, analysis_id)])

        for job_id in await self._database.write(remove):
            with suppress(Missing):
                await self._jobs.cancel(scope, job_id)
        await trash.empty(self._database, self._blobs, scope)

    async def to_document(
        self, scope: Scope, analysis_id: str, *, collection: str = "default", tags: Sequence[str] = ()
    ) -> tuple[Document, str | None]:
        """Add its markdown to the knowledge base, named after the file; the document, and the job that reads it.

        Raises Missing, Conflict while there is no result, and what an upload raises.
        """
        analysis = await self.get(scope, analysis_id)
        markdown = (analysis.result or {}).get("markdown", "")
        if not markdown:
            raise Conflict("This analysis has no result to be kept yet.", code="no_result")
        stem = analysis.name.rpartition(".")[0] or analysis.name
        title = "" if markdown.lstrip().startswith("# ") else f"# {stem}\n\n"
        stream = _pieces(f"{title}{markdown}\n".encode())
        return await self._library.upload(scope, f"{stem}.md", stream, collection=collection, tags=tags)


list_ = list  # `Analyses.list` hides the builtin inside the class


def _fingerprint(saved: Saved, wish: Wish) -> str:
    told = [saved.sha256, wish.type, wish.prompt, wish.schema, wish.model, wish.webhook]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
