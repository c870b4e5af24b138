"""How the corpus is: the last report, a new one, and what mends what was found."""

from typing import Annotated

from pydantic import BaseModel, Field

from terrace.jobs.base import Job
from terrace.knowledge.health.base import Condition
from terrace.web.access import Who, resource
from terrace.web.services import House

router = resource(prefix="/index/health", tags=["index"])


class Repair(BaseModel):
    kinds: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=50)]],
        Field(min_length=1, max_length=50, examples=[["document_failed"]]),
    ]


@router.get("")
async def get_health(house: House, who: Who) -> Condition:
    """What the last check found, by kind: how many, examples, and what a repair would do; and the counts before."""
    return await house.health.condition(who)


@router.post("/check", status_code=202)
async def check_health(house: House, who: Who) -> Job:
    """Look through the corpus now; or the check that goes on already."""
    return await house.jobs.get(who, await house.health.check_soon(who))


@router.post("/repair", status_code=202)
async def repair_health(house: House, who: Who, body: Repair) -> Job:
    """Mend what there is of these kinds, then look again. Kinds without a repair are for a person to decide."""
    return await house.jobs.get(who, await house.health.repair_soon(who, body.kinds))
