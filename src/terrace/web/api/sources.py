"""Sources: folders, pages, sites and feeds that bring documents by themselves."""

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from terrace.knowledge.sources.base import Item, Kind, NewSource, Options, Outcome, Source
from terrace.web.access import Who, resource
from terrace.web.api.pages import HashCursor, IdCursor, Limit, Page
from terrace.web.api.schedules import Cron, Every, Zone
from terrace.web.services import House

router = resource(prefix="/sources", tags=["sources"])

Patterns = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=200)]],
    Field(max_length=50, examples=[["**/*.pdf"]], description="Of paths in the folder, or on the site."),
]
Depth = Annotated[int, Field(ge=0, le=1000, description="Links followed from the first page.")]
Pages = Annotated[int, Field(ge=1, le=1_000_000, description="Pages brought at most.")]
Tags = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]


class WantedSource(BaseModel):
    kind: Kind
    location: str = Field(
        min_length=1,
        max_length=4096,
        examples=["https://example.org/sitemap.xml"],
        description="A folder the operator allows, or an address; of a site its first page or its sitemap.",
    )
    name: str = Field("", max_length=200)
    collection: str = Field("default", min_length=1, max_length=100)
    tags: Tags = []
    include: Patterns = []
    exclude: Patterns = []
    depth: Depth | None = None
    pages: Pages | None = None
    watch: bool = Field(False, description="Folders alone: bring changes within seconds.")
    every: Every | None = None
    cron: Cron | None = None
    timezone: Zone = "UTC"

    def wanted(self) -> NewSource:
        options = Options(tuple(self.include), tuple(self.exclude), self.depth, self.pages)
        return NewSource(
            self.kind, self.location, self.name, self.collection, tuple(self.tags), options, self.watch, self.every,
            self.cron, self.timezone,
        )  # fmt: skip


class SourceBounds(BaseModel):
    """Take the place of those before, all of them."""

    include: Patterns = []
    exclude: Patterns = []
    depth: Depth | None = None
    pages: Pages | None = None


class SourceChange(BaseModel):
    """What is left out stays."""

    name: str | None = Field(None, min_length=1, max_length=200)
    tags: Tags | None = None
    watch: bool | None = None
    options: SourceBounds | None = None


class SourceRun(BaseModel):
    confirm: bool = Field(False, description="Take out more than half of a folder's documents, if so many are gone.")


class StartedRun(BaseModel):
    job_id: str


@router.get("")
async def list_sources(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[Source]:
    """Newest first, each with the report of its last run."""
    items, following = await house.sources.list(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_source(house: House, who: Who, body: WantedSource) -> Source:
    """Nothing is fetched before it runs: by hand, by its schedule (`every` or `cron`), or because it is watched."""
    return await house.sources.create(who, body.wanted())


@router.get("/{source_id}")
async def get_source(house: House, who: Who, source_id: str) -> Source:
    return await house.sources.get(who, source_id)


@router.patch("/{source_id}")
async def change_source(house: House, who: Who, source_id: str, body: SourceChange) -> Source:
    """With other options, every page is read again at the next run."""
    options = None
    if body.options is not None:
        given = body.options
        options = Options(tuple(given.include), tuple(given.exclude), given.depth, given.pages)
    return await house.sources.update(who, source_id, name=body.name, tags=body.tags, watch=body.watch, options=options)


@router.delete("/{source_id}", status_code=204)
async def delete_source(
    house: House,
    who: Who,
    source_id: str,
    documents: Annotated[bool, Query(description="Take out the documents it brought, too.")] = False,
) -> None:
    """With its schedule; its documents stay unless they are to go."""
    await house.sources.delete(who, source_id, documents=documents)


@router.post("/{source_id}/run", status_code=202)
async def run_source(house: House, who: Who, source_id: str, body: SourceRun | None = None) -> StartedRun:
    """Look at it now. While a run is under way, that is it."""
    confirm = body.confirm if body is not None else False
    return StartedRun(job_id=await house.sources.run(who, source_id, confirm=confirm))


@router.get("/{source_id}/items")
async def source_items(
    house: House, who: Who, source_id: str, outcome: Outcome | None = None, limit: Limit = 50, cursor: HashCursor = None
) -> Page[Item]:
    """Each file, page or entry: what became of it at the last look, and why."""
    items, following = await house.sources.items(who, source_id, outcome=outcome, limit=limit, cursor=cursor)
    return Page(items=items, next=following)
