"""One page: fetched if it changed, looked at, and made a document."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlmodel import Session

from terrace import settings
from terrace.errors import Internal, Invalid, Missing, Unavailable
from terrace.jobs.base import Context
from terrace.jobs.processes import Processes
from terrace.knowledge import store as documents
from terrace.knowledge.sources import pages, store, urls
from terrace.knowledge.sources.base import Outcome
from terrace.knowledge.sources.fetching import Guest, Validators
from terrace.knowledge.sources.keeping import Also, Content, Keeper
from terrace.knowledge.sources.pages import PageFacts
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.outbound.base import Fetched
from terrace.storage import Database

SECONDS = 30.0  # for one page's links
MEMORY = 1024**3  # bytes of address space for them
PIECE = 256 * 1024
HTML = ("text/html", "application/xhtml+xml")
NO_DOCUMENTS = ("image/", "video/", "audio/", "font/")
GONE = frozenset({404, 410})
MOVED = frozenset({301, 302, 303, 307, 308})
SUFFIXES = {"text/markdown": ".md", "text/csv": ".csv", "text/tab-separated-values": ".tsv"}

Discover = Callable[[Session, int, tuple[str, ...]], Any]
"""Told addresses that a page leads to and how far from the first page they are, in the transaction that says the page
is done."""


@dataclass(frozen=True, slots=True)
class Visit:
    """`discover` is None where links are not followed; with `whole_web`, redirects may lead to other sites."""

    context: Context
    source: SourceRow
    guest: Guest
    discover: Discover | None = None
    whole_web: bool = False
    lastmod: str = ""  # what the sitemap says
    missing_text: str | None = None  # the hash of what the site shows for addresses that are not there


class Visitor:
    """Visits pages. What is wrong with one page is told of that page; Limited alone stops everything."""

    def __init__(
        self,
        database: Database,
        processes: Processes,
        keeper: Keeper,
        outbound: settings.Outbound,
        knowledge: settings.Knowledge,
    ) -> None:
        self._database = database
        self._processes = processes
        self._keeper = keeper
        self._max_bytes = min(outbound.max_bytes, knowledge.max_file_bytes)

    async def visit(self, visit: Visit, row: SourceItemRow) -> bool:
        """Whether the server answered. Raises Limited when there is no room for more documents."""
        page = _Page(visit, row, self._keeper, self, await self._database.read(_alive, visit.context, row))
        try:
            if await visit.guest.allowed(row.key):
                await page.answered(await self._fetch(visit, row, page.alive))
            else:
                await page.gone("robots.txt asks not to fetch it.")
        except Invalid as error:  # too large, no document, an address that we don't go to
            await page.settle("failed", error.message)
        except Unavailable as error:
            await page.settle("failed", error.message)
            return False
        return True

    async def _fetch(self, visit: Visit, row: SourceItemRow, alive: bool) -> Fetched:
        validators = Validators(row.etag, row.last_modified) if alive else Validators()
        redirects = 5 if visit.whole_web else 0
        return await visit.guest.get(row.key, validators, redirects=redirects, max_bytes=self._max_bytes)

    async def facts(self, fetched: Fetched) -> PageFacts:
        """Raises Invalid when the page is too complex."""
        charset = pages.charset_of(fetched.headers.get("content-type", ""))
        try:
            return await self._processes.run(
                pages.read_page, fetched.body, fetched.url, charset, timeout=SECONDS, memory=MEMORY
            )
        except Internal as error:  # one page that a parser stumbles over must not end the run
            raise Invalid("This page can't be read: its HTML is broken.", code="document_damaged") from error

    async def text_of_missing(self, guest: Guest, url: str) -> str | None:
        """The hash of the text that the site shows, with a 200, for an address that can't be there."""
        if not await guest.allowed(url):
            return None
        fetched = await guest.get(url, max_bytes=self._max_bytes)
        if fetched.status != 200 or _media_type(fetched) not in HTML:
            return None
        return (await self.facts(fetched)).text_sha256 or None

    async def same_text(self, visit: Visit, row: SourceItemRow, text_sha256: str) -> str | None:
        """The address of a page of the source that has this text already."""
        return await self._database.read(store.same_text, visit.context.scope, row, text_sha256)

    async def untried(self, visit: Visit, url: str) -> bool:
        """False when this page was visited in this run and left out: two pages may each name the other."""
        row = await self._database.read(store.item, visit.context.scope, visit.source.id, url)
        return row is None or row.run != visit.context.job_id or row.document_id is not None


def _alive(session: Session, context: Context, row: SourceItemRow) -> bool:
    """Whether its document is there, so that what is unchanged need not come again."""
    try:
        return row.document_id is not None and (
            documents.get(session, context.scope, row.document_id).state != "failed"
        )
    except Missing:
        return False


@dataclass(frozen=True, slots=True)
class _Page:
    """One visit to one page."""

    visit: Visit
    row: SourceItemRow
    keeper: Keeper
    visitor: Visitor
    alive: bool

    async def settle(self, outcome: Outcome, reason: str = "", also: Also | None = None) -> None:
        await self.keeper.settle(self.visit.context, self.visit.source, self.row.key, outcome, reason, also)

    async def left_out(self, reason: str, also: Also | None = None) -> None:
        """Not taken; what was there before stays, and then it is a failure that somebody should see."""
        await self.settle("failed" if self.alive else "skipped", reason, also)

    async def answered(self, fetched: Fetched) -> None:
        status = fetched.status
        if status == 304:
            await self.settle("unchanged", also=self._found_again)
        elif status == 200:
            await self._taken(fetched)
        elif status in GONE:
            await self.gone(f"It is not there ({status}).")
        elif status in MOVED:
            await self._moved(urls.normalised(fetched.headers.get("location", ""), self.row.key))
        else:
            why = "it wants a login" if status in (401, 403) else "the server has a problem"
            await self.settle("failed", f"The server answers {status}: {why}.")

    async def gone(self, why: str, also: Also | None = None) -> None:
        """A document is taken out when its page is missing for the second run in a row."""
        if self.row.document_id is not None and self.row.missing + 1 >= store.GONE:
            await self.keeper.take_out(self.visit.context, self.visit.source, self.row.key, why)
            return

        def miss(session: Session, kept: SourceItemRow) -> None:
            kept.missing += 1
            if also is not None:
                also(session, kept)

        if self.row.document_id is not None:
            why += " Its document goes when the next run finds the same."
        link = self.row.document_id is None and self.row.depth > 0
        await self.settle("skipped" if link else "failed", why, miss)

    async def _moved(self, target: str | None) -> None:
        site = urls.site(self.visit.source.location)
        if target is None or (self.visit.discover is not None and urls.site(target) != site):
            await self.gone(f"It leads to {target or 'no address'}, which is another site.")
        elif target == self.row.key:
            await self.settle("failed", "It redirects to itself.")
        elif self.row.document_id is not None:
            await self.gone(f"It moved to {target}.", self._leads_to(target))
        else:
            await self.settle("skipped", f"It leads to {target}.", self._leads_to(target))

    def _leads_to(self, *targets: str, deeper: int = 0) -> Also:
        def also(session: Session, _kept: SourceItemRow) -> None:
            if self.visit.discover is not None:
                self.visit.discover(session, self.row.depth + deeper, targets)

        return also

    async def _taken(self, fetched: Fetched) -> None:
        media_type = _media_type(fetched)
        if "noindex" in fetched.headers.get("x-robots-tag", "").lower():
            await self.gone("The site asks not to keep it (noindex).")
        elif media_type in HTML or (not media_type and fetched.body.lstrip()[:1] == b"<"):
            await self._html(fetched)
        elif media_type.startswith(NO_DOCUMENTS) or media_type.endswith(("json", "javascript", "css")):
            await self.left_out(f"It is {media_type}, which is no document.")
        else:
            name = _file_name(self.row.key)
            suffix = SUFFIXES.get(media_type, "")
            name += "" if name.endswith(suffix) else suffix
            body = fetched.body
            if media_type.startswith("text/"):
                body = await asyncio.to_thread(pages.as_utf8, body, fetched.headers.get("content-type", ""))
            await self._kept(fetched, name, name, body, self._remember(fetched, None))

    async def _html(self, fetched: Fetched) -> None:
        facts = await self.visitor.facts(fetched)
        follow = self._remember(fetched, facts)
        if facts.noindex:
            await self.gone("The page asks not to be kept (noindex).", self._leads_to(*facts.links, deeper=1))
        elif facts.text_sha256 and facts.text_sha256 == self.visit.missing_text:
            await self.gone("The site shows the same page for addresses that do not exist.")
        elif not facts.text_sha256:
            why = "There is no text on it; a page that only JavaScript fills can't be read."
            await self.left_out(why, self._leads_to(*facts.links, deeper=1))
        elif self.alive and self.row.text_sha256 == facts.text_sha256:
            await self.settle("unchanged", also=follow)
        elif (other := self._canonical(facts)) and await self.visitor.untried(self.visit, other):
            await self.settle("skipped", f"It says that {other} is the page itself.", self._leads_to(other))
        elif (twin := await self.visitor.same_text(self.visit, self.row, facts.text_sha256)) is not None:
            await self.left_out(f"It has the same text as {twin}.")
        else:
            body = await asyncio.to_thread(pages.as_html, fetched.body, fetched.headers.get("content-type", ""))
            await self._kept(fetched, "page.html", facts.title or _file_name(self.row.key), body, follow)

    def _canonical(self, facts: PageFacts) -> str | None:
        """Another page of the site that this one says is its better address. Only for what is new here: many sites name
        their first page on every other."""
        other = facts.canonical
        if other is None or self.visit.discover is None or self.row.document_id is not None or not self.row.depth:
            return None
        if other == self.row.key or urls.site(other) != urls.site(self.row.key) or urls.path_of(other) == "":
            return None
        return other

    def _remember(self, fetched: Fetched, facts: PageFacts | None) -> Also:
        validators = Validators.of(fetched)

        def also(session: Session, kept: SourceItemRow) -> None:
            self._found_again(session, kept)
            kept.etag, kept.last_modified = validators.etag, validators.last_modified
            kept.text_sha256 = facts.text_sha256 if facts is not None else None
            if facts is not None and self.visit.discover is not None:
                self.visit.discover(session, self.row.depth + 1, facts.links)

        return also

    def _found_again(self, _session: Session, row: SourceItemRow) -> None:
        row.missing, row.lastmod = 0, self.visit.lastmod or None

    async def _kept(self, fetched: Fetched, file_name: str, title: str, body: bytes, also: Also) -> None:
        content = Content(file_name, title, pieces(body), fetched.url, also=also)
        await self.keeper.keep(self.visit.context, self.visit.source, self.row.key, content)


def _media_type(fetched: Fetched) -> str:
    return fetched.headers.get("content-type", "").partition(";")[0].strip().lower()


def _file_name(url: str) -> str:
    """The last name of its path, or the host."""
    parts = urlsplit(url)
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE):
        yield body[start : start + PIECE]
