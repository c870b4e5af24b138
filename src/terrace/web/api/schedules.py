"""What goes on by itself: actions at their times, and how their runs ended."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from terrace.schedules.base import Run, Schedule
from terrace.schedules.service import Preview
from terrace.web.access import Me, Who, resource
from terrace.web.api.fields import Name
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.services import House

router = resource(prefix="/schedules", tags=["schedules"])

Cron = Annotated[
    str,
    Field(
        max_length=100,
        examples=["30 2 * * 1-5"],
        description="Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly.",
    ),
]
Every = Annotated[int, Field(ge=60, le=366 * 86_400, examples=[3600], description="Seconds.")]
Zone = Annotated[str, Field(min_length=1, max_length=64, examples=["Europe/Berlin"])]
Payload = Annotated[dict[str, str], Field(max_length=50, examples=[{"source_id": "src_..."}])]


class Times(BaseModel):
    """Either `cron`, or `every` so many seconds."""

    cron: Cron | None = None
    every: Every | None = None
    timezone: Zone = "UTC"


class NewSchedule(Times):
    name: Name
    action: str = Field(max_length=100, examples=["sources.run"])
    payload: Payload = Field(default_factory=dict)
    enabled: bool = True


class ScheduleChange(BaseModel):
    """What is left out stays; `cron` takes the place of `every`, and the other way round."""

    name: Name | None = None
    payload: Payload | None = None
    cron: Cron | None = None
    every: Every | None = None
    timezone: Zone | None = None
    enabled: bool | None = None


class ActionShown(BaseModel):
    name: str
    title: str
    needs: Sequence[str] = Field(description="What its payload holds.")


@router.get("")
async def list_schedules(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[Schedule]:
    """Newest first, each with its latest run."""
    items, following = await house.schedules.list(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_schedule(house: House, me: Me, body: NewSchedule) -> Schedule:
    return await house.schedules.create(me.scope, **dict(body), permissions=me.permissions)


@router.post("/check")
async def check_times(house: House, body: Times) -> Preview:
    """The next five times, and what they are in words."""
    return await house.schedules.check(body.cron, body.every, body.timezone)


@router.get("/actions")
async def list_actions(house: House, me: Me) -> Page[ActionShown]:
    """What may be scheduled."""
    actions = house.schedules.actions(me.permissions)
    return Page(items=[ActionShown(name=each.name, title=each.title, needs=each.needs) for each in actions])


@router.get("/{schedule_id}")
async def get_schedule(house: House, who: Who, schedule_id: str) -> Schedule:
    return await house.schedules.get(who, schedule_id)


@router.patch("/{schedule_id}")
async def change_schedule(house: House, me: Me, schedule_id: str, body: ScheduleChange) -> Schedule:
    """Its jobs are then of whoever changed it. Switched on again, it makes nothing up."""
    given: dict[str, Any] = body.model_dump(exclude_none=True)
    return await house.schedules.change(me.scope, schedule_id, given, permissions=me.permissions)


@router.delete("/{schedule_id}", status_code=204)
async def remove_schedule(house: House, me: Me, schedule_id: str) -> None:
    """With its history. A run under way goes on."""
    await house.schedules.remove(me.scope, schedule_id, permissions=me.permissions)


@router.post("/{schedule_id}/run", status_code=202)
async def run_schedule(house: House, me: Me, schedule_id: str) -> Run:
    """Now, besides its times."""
    return await house.schedules.run_now(me.scope, schedule_id, permissions=me.permissions)


@router.get("/{schedule_id}/runs")
async def list_runs(house: House, who: Who, schedule_id: str, limit: Limit = 50, cursor: IdCursor = None) -> Page[Run]:
    """Newest first."""
    items, following = await house.schedules.runs(who, schedule_id, limit=limit, cursor=cursor)
    return Page(items=items, next=following)
