"""One look at a feed: each entry with its content, or the page it links to. What leaves the feed stays."""

from hashlib import sha256

from sqlmodel import Session

from terrace import settings
from terrace.errors import Invalid, Missing, Unavailable
from terrace.jobs.base import Context
from terrace.jobs.processes import Processes
from terrace.knowledge import store as documents
from terrace.knowledge.sources import listings, patterns, store, urls
from terrace.knowledge.sources.base import Notes
from terrace.knowledge.sources.fetching import Guest, Pace, Validators
from terrace.knowledge.sources.keeping import Content, Keeper
from terrace.knowledge.sources.listings import Entry
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.sources.visiting import MEMORY, SECONDS, Visit, Visitor, pieces
from terrace.outbound.base import Outbound
from terrace.storage import Database


class FeedRun:
    def __init__(
        self,
        database: Database,
        processes: Processes,
        outbound: Outbound,
        pace: Pace,
        visitor: Visitor,
        keeper: Keeper,
        context: Context,
        source: SourceRow,
        bounds: settings.Schedules,
    ) -> None:
        self._database = database
        self._processes = processes
        self._visitor = visitor
        self._keeper = keeper
        self._context = context
        self._source = source
        self._options = store.options_of(source)
        self._guest = Guest(outbound, pace, delay=bounds.delay)
        self.notes = Notes()
        self.unchanged = self.failed = 0  # beyond what the rows say
        self.validators: Validators | None = None

    async def run(self) -> None:
        """Raises Unavailable when the feed can't be had, Invalid when it is none."""
        clean = self._source.report is not None and not (
            self._source.report.get("failed") or self._source.report.get("error")
        )
        known = Validators(**self._source.validators) if clean else Validators()
        fetched = await self._guest.get(self._source.location, known, redirects=5)
        if fetched.status == 304:
            self.notes.say("The feed has not changed.")
            self.validators = known
            self.unchanged = await self._database.read(store.kept, self._context.scope, self._source.id)
            return
        if fetched.status != 200:
            raised = Unavailable if fetched.status >= 500 or fetched.status == 429 else Invalid
            raise raised(f"The feed answers {fetched.status}; everything from it is kept.", code="feed_unavailable")
        content_type = fetched.headers.get("content-type", "")
        feed = await self._processes.run(
            listings.read_feed, fetched.body, fetched.url, content_type, timeout=SECONDS, memory=MEMORY
        )
        entries = [each for each in feed.entries if self._wanted(each)]
        for done, entry in enumerate(entries):
            self._context.progress(done, len(entries), entry.title[:200])
            await self._take(entry)
        self.validators = Validators.of(fetched)

    def _wanted(self, entry: Entry) -> bool:
        path = urls.path_of(entry.link or "")
        return patterns.wanted(path, self._options.include, self._options.exclude)

    async def _take(self, entry: Entry) -> None:
        row = await self._context.write(lambda session: self._row(session, entry))
        if row.run == self._context.job_id:  # an attempt before this one came here
            return
        if not entry.html:
            await self._take_page(entry, row)
            return
        body = entry.html.encode("utf-8", "replace")
        digest = sha256(body).hexdigest()
        if row.sha256 == digest and await self._is_there(row):
            await self._keeper.settle(self._context, self._source, entry.key, "unchanged")
            return
        content = Content("entry.html", entry.title, pieces(body), entry.link, digest)
        try:
            await self._keeper.keep(self._context, self._source, entry.key, content)
        except Invalid as error:
            await self._keeper.settle(self._context, self._source, entry.key, "failed", error.message)

    async def _take_page(self, entry: Entry, row: SourceItemRow) -> None:
        if entry.link is None:
            await self._keeper.settle(
                self._context, self._source, entry.key, "skipped", "It says nothing and leads nowhere."
            )
            return
        visit = Visit(self._context, self._source, self._guest, whole_web=True)
        await self._visitor.visit(visit, row)

    def _row(self, session: Session, entry: Entry) -> SourceItemRow:
        row = store.ensure_item(session, self._context.scope, self._source.id, entry.key)
        row.listed = self._context.job_id
        session.flush()
        session.refresh(row)
        session.expunge(row)
        return row

    async def _is_there(self, row: SourceItemRow) -> bool:
        if row.document_id is None:
            return False
        try:
            await self._database.read(documents.get, self._context.scope, row.document_id)
        except Missing:
            return False
        return True
