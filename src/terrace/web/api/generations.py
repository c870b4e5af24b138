"""Generations of the index: vectors made anew beside those that serve."""

from pydantic import BaseModel, Field

from terrace.knowledge.generations.base import BOUND, Generation
from terrace.web.access import Who, resource
from terrace.web.api.pages import Page
from terrace.web.services import House

router = resource(prefix="/index/generations", tags=["index"])


class NewGeneration(BaseModel):
    automatic: bool = Field(True, description="It takes its place by itself when it is alike enough.")
    bound: float = Field(
        BOUND, ge=0, le=1, description="Of the ten best of recent questions, the share that both must find for that."
    )


@router.get("")
async def list_generations(house: House) -> Page[Generation]:
    """That which serves first; each with how far it is, and how it compares with the one it is to follow."""
    return Page(items=await house.generations.list())


@router.post("", status_code=202)
async def create_generation(house: House, who: Who, body: NewGeneration | None = None) -> Generation:
    """Embed everything anew by the model of the settings. What serves goes on serving meanwhile."""
    wanted = body or NewGeneration()
    return await house.generations.create(who, automatic=wanted.automatic, bound=wanted.bound)


@router.post("/{generation_id}/switch")
async def switch_generation(house: House, who: Who, generation_id: str) -> Generation:
    """Have it serve, from one search to the next; also back to an older one. Where passages came in that it lacks, its
    job makes them first."""
    return await house.generations.switch(who, generation_id)


@router.delete("/{generation_id}", status_code=204)
async def drop_generation(house: House, who: Who, generation_id: str) -> None:
    """With its vectors; not the one that serves."""
    await house.generations.drop(who, generation_id)
