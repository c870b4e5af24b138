"""One look at a page, a site or a feed. What is still to visit is in the rows, so a killed run goes on from there."""

from dataclasses import replace
from hashlib import sha256
from urllib.parse import urljoin

from sqlmodel import Session, select

from terrace import settings
from terrace.errors import Invalid, Missing, TerraceError, Unavailable
from terrace.jobs.base import Context
from terrace.jobs.processes import Processes
from terrace.knowledge import store as documents
from terrace.knowledge.sources import listings, patterns, store, urls
from terrace.knowledge.sources.base import Notes, Options
from terrace.knowledge.sources.fetching import Guest, Pace
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.sources.visiting import MEMORY, SECONDS, Visit, Visitor
from terrace.outbound.base import Outbound
from terrace.storage import Database

AT_ONCE = 50
MOST_SITEMAPS = 200
DEAD = 10  # visits in a row without an answer after which the site is taken for down
ROWS_PER_PAGE = 2  # addresses kept in mind for each page that may be brought: some lead elsewhere


class SiteRun:
    """Of the kinds `url` and `site`."""

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
        self._options = _bounded(store.options_of(source), bounds)
        self._guest = Guest(outbound, pace, delay=bounds.delay)
        self._shapes = urls.Shapes()
        self._most = ROWS_PER_PAGE * (self._options.pages or 1)
        self._lastmods: dict[str, str] = {}
        self.notes = Notes()
        self.unchanged = self.failed = 0  # beyond what the rows say

    async def run(self) -> None:
        """Raises Unavailable when the site can't be reached at all, so that the job tries again later."""
        start = self._source.location
        self._shapes = await self._database.read(self._known_shapes)
        visit = Visit(self._context, self._source, self._guest, whole_web=self._source.kind == "url")
        if self._source.kind == "site":
            locations = await self._sitemap(start)
            if locations is None:
                visit = replace(visit, discover=self._discover, missing_text=await self._missing_text(start))
                await self._list({start: ""})
            else:
                self._lastmods = locations
                visit = replace(visit, discover=self._redirected)
                await self._list(locations)
        else:
            await self._list({start: ""})
        await self._visit_all(visit)

    # -- what there is

    def _known_shapes(self, session: Session) -> urls.Shapes:
        shapes = urls.Shapes()
        query = select(SourceItemRow.key).where(
            SourceItemRow.tenant_id == self._context.scope.tenant, SourceItemRow.source_id == self._source.id
        )
        for key in session.exec(query):
            shapes.refuses(key)
        return shapes

    async def _list(self, locations: dict[str, str]) -> None:
        """Everything known is looked at again, and what is new in the listing."""
        found = [(url, 0 if url == self._source.location else 1) for url in locations if self._fits(url)]

        def write(session: Session) -> int:
            scope, run = self._context.scope, self._context.job_id
            store.list_all(session, scope, self._source.id, run)
            return store.list_more(session, scope, self._source.id, run, found, self._most)

        self._left_out(await self._context.write(write))

    def _fits(self, url: str) -> bool:
        if url == self._source.location:
            return True
        same = urls.site(url) == urls.site(self._source.location)
        return same and urls.may_hold_text(url) and self._matches(url) and urls.odd(url) is None

    def _matches(self, url: str) -> bool:
        """The page that was named is taken whatever the patterns say."""
        if url == self._source.location:
            return True
        return patterns.wanted(urls.path_of(url), self._options.include, self._options.exclude)

    def _discover(self, session: Session, depth: int, found: tuple[str, ...]) -> None:
        """New addresses of the site, unless they look like a trap."""
        if depth > (self._options.depth or 0):
            return
        new = []
        for url in store.unknown(session, self._context.scope, self._source.id, filter(self._fits, found)):
            why = self._shapes.refuses(url)
            if why is None:
                new.append((url, depth))
            else:
                self.notes.say(f"{why} The rest is left out, such as {url[:200]}.")
        run = self._context.job_id
        self._left_out(store.list_more(session, self._context.scope, self._source.id, run, new, self._most))

    def _redirected(self, session: Session, depth: int, found: tuple[str, ...]) -> None:
        """Of a sitemap, only where its own addresses lead is followed, not what the pages link to."""
        if depth <= 1 and len(found) == 1:
            self._discover(session, 0, found)

    def _left_out(self, count: int) -> None:
        if count:
            self.notes.say(f"There is more than the {self._options.pages:,} pages this source may bring.")

    async def _sitemap(self, start: str) -> dict[str, str] | None:
        """Each address with its date of change; None when `start` is a page."""
        if not await self._guest.allowed(start):
            raise Invalid(f"robots.txt of the site asks not to fetch {start}.", code="robots")
        first = await self._guest.get(start, redirects=3)
        if first.status != 200 or not listings.is_sitemap(first.body):
            if first.status >= 500:
                raise Unavailable(f"{start} answers {first.status}.", code="site_unavailable")
            if urls.site(first.url) != urls.site(start):
                raise Invalid(f"{start} leads to {first.url}: make a source of that address.", code="other_site")
            return None
        locations: dict[str, str] = {}
        waiting, asked = [(start, first.body)], 1
        while waiting:
            url, body = waiting.pop()
            try:
                listing = await self._processes.run(listings.read_sitemap, body, url, timeout=SECONDS, memory=MEMORY)
            except Invalid as error:
                self.notes.say(f"{url}: {error.message}", incomplete=True)
                continue
            if not listing.index:
                locations.update((each.url, each.lastmod) for each in listing.locations)
                continue
            for each in listing.locations:
                if urls.site(each.url) == urls.site(start) and asked < MOST_SITEMAPS:
                    asked += 1
                    waiting.extend(await self._one_sitemap(each.url))
        return locations

    async def _one_sitemap(self, url: str) -> list[tuple[str, bytes]]:
        try:
            fetched = await self._guest.get(url, redirects=3)
        except TerraceError as error:
            self.notes.say(f"{url}: {error.message}", incomplete=True)
            return []
        if fetched.status != 200:
            self.notes.say(f"{url} answers {fetched.status}.", incomplete=True)
            return []
        return [(url, fetched.body)]

    async def _missing_text(self, start: str) -> str | None:
        """Sites that answer 200 for what is not there are known by what they then show."""
        name = sha256(self._source.id.encode()).hexdigest()[:16]
        try:
            return await self._visitor.text_of_missing(self._guest, urljoin(start, f"/terrace-{name}-is-not-there"))
        except (Invalid, Unavailable):
            return None  # then pages of the same text are told by their being the same

    # -- visiting

    async def _visit_all(self, visit: Visit) -> None:
        scope, source, run = self._context.scope, self._source.id, self._context.job_id
        unanswered = 0
        while rows := await self._database.read(store.waiting, scope, source, run, AT_ONCE):
            for row in rows:
                done, total = await self._database.read(store.progress, scope, source, run)
                self._context.progress(done, total, row.key[:200])
                if not await self._wanted(row) or await self._dated(row) or await self._full(row):
                    continue
                missing = visit.missing_text if row.depth else None
                lastmod = self._lastmods.get(row.key, "")
                answered = await self._visitor.visit(replace(visit, missing_text=missing, lastmod=lastmod), row)
                unanswered = 0 if answered else unanswered + 1
                if unanswered >= DEAD or (not answered and row.key == self._source.location and total == 1):
                    raise Unavailable(f"{urls.site(row.key)} doesn't answer; everything is kept.", code="site_down")

    async def _wanted(self, row: SourceItemRow) -> bool:
        """What the source's own patterns no longer want goes out."""
        if self._matches(row.key):
            return True
        await self._keeper.take_out(self._context, self._source, row.key, "The source's patterns leave it out.")
        return False

    async def _dated(self, row: SourceItemRow) -> bool:
        """Whether the sitemap says that nothing changed since the page was fetched."""
        lastmod = self._lastmods.get(row.key, "")
        if lastmod and row.lastmod == lastmod and await self._is_kept(row):
            await self._keeper.settle(self._context, self._source, row.key, "unchanged")
            return True
        return False

    async def _full(self, row: SourceItemRow) -> bool:
        """Whether the source has brought all the pages it may."""
        if row.document_id is not None:
            return False
        kept = await self._database.read(store.kept, self._context.scope, self._source.id)
        if kept < (self._options.pages or 0):
            return False
        self._left_out(1)
        await self._keeper.settle(
            self._context, self._source, row.key, "skipped", f"The source may bring {self._options.pages:,} pages."
        )
        return True

    async def _is_kept(self, row: SourceItemRow) -> bool:
        if row.document_id is None:
            return False
        try:
            await self._database.read(documents.get, self._context.scope, row.document_id)
        except Missing:
            return False
        return row.outcome != "failed"


def _bounded(options: Options, bounds: settings.Schedules) -> Options:
    depth = bounds.max_depth if options.depth is None else min(options.depth, bounds.max_depth)
    pages = bounds.max_pages if options.pages is None else min(options.pages, bounds.max_pages)
    return replace(options, depth=depth, pages=pages)
