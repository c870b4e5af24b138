"""Retrieval alone."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from terrace.knowledge.base import Filter
from terrace.knowledge.search import SearchResult
from terrace.web.access import Who, resource
from terrace.web.api.fields import Id
from terrace.web.api.pages import Names
from terrace.web.services import House

router = resource(tags=["search"])


class Query(BaseModel):
    query: str = Field(min_length=1, max_length=10_000)
    k: int = Field(10, ge=1, le=100, description="How many hits.")
    collections: Names = []
    tags: Names = []
    documents: Annotated[list[Id], Field(max_length=1000)] = []
    mode: Literal["hybrid", "text", "vector"] = "hybrid"


@router.post("/search")
async def search(house: House, who: Who, body: Query) -> SearchResult:
    """Passages with scores and exact spans, best first."""
    filter = Filter(tuple(body.collections), tuple(body.tags), tuple(body.documents))
    result = await house.search.search(who, body.query, k=body.k, filter=filter, mode=body.mode)
    house.metrics.searches.labels(result.mode).observe(result.took_ms / 1000)
    return result
