"""Answers kept to be given again: how many, what they saved, and how to forget them."""

from pydantic import BaseModel

from terrace.chat.cache.base import Tally
from terrace.web.access import Who, resource
from terrace.web.services import House

router = resource(prefix="/cache", tags=["cache"])


class Cleared(BaseModel):
    removed: int


@router.get("")
async def get_cache(house: House, who: Who) -> Tally:
    """Of the whole tenant; money in dollars."""
    return await house.cache.tally(who)


@router.delete("")
async def clear_cache(house: House, who: Who) -> Cleared:
    """Forget every answer of the tenant; what was saved stays counted."""
    return Cleared(removed=await house.cache.clear(who))
