"""Collections of documents, and the tags in use."""

from pydantic import BaseModel, Field

from terrace.knowledge.views import Collection, Tag
from terrace.web.access import Who, resource
from terrace.web.api.pages import Page
from terrace.web.services import House

router = resource(tags=["collections"])


class NewCollection(BaseModel):
    name: str = Field(min_length=1, max_length=200)


@router.get("/collections")
async def list_collections(house: House, who: Who) -> Page[Collection]:
    return Page(items=await house.knowledge.collections(who))


@router.post("/collections", status_code=201)
async def create_collection(house: House, who: Who, body: NewCollection) -> Collection:
    return await house.knowledge.create_collection(who, body.name)


@router.get("/collections/{collection_id}")
async def get_collection(house: House, who: Who, collection_id: str) -> Collection:
    """By id or name."""
    return await house.knowledge.collection(who, collection_id)


@router.delete("/collections/{collection_id}", status_code=204)
async def delete_collection(house: House, who: Who, collection_id: str) -> None:
    """With all its documents."""
    await house.knowledge.delete_collection(who, collection_id)


@router.get("/tags")
async def list_tags(house: House, who: Who) -> Page[Tag]:
    return Page(items=await house.knowledge.tags(who))
