"""What was used, and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from terrace.accounts.base import Caller
from terrace.errors import Missing
from terrace.telemetry.usage import Group, Line, Report, UsedCall, as_csv
from terrace.types import Scope
from terrace.web.access import Me, resource
from terrace.web.api.media import produces
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.services import House, Services

router = resource(prefix="/usage", tags=["usage"])

By = Annotated[Group, Query(description="What to add up by.")]
From = Annotated[date | None, Query(alias="from", description="First day (UTC); thirty days when left out.")]
To = Annotated[date | None, Query(alias="to", description="Last day (UTC), included; today when left out.")]
Format = Literal["json", "csv"]
Whose = Annotated[str | None, Query(max_length=64, description="A user's id, or `me`.")]
OfModel = Annotated[str | None, Query(max_length=300, description="A model, as `by=model` names it.")]
OfKey = Annotated[str | None, Query(max_length=64, description="A key's id.")]

DAYS = timedelta(days=29)  # before the last
LOOKED_UP = 200  # people or keys at a time


class UsageShown(BaseModel):
    """Money is in dollars; `unpriced` calls are not in `cost`, because nobody knows their price."""

    model_config = ConfigDict(populate_by_name=True)

    by: Group
    start: date = Field(alias="from")
    end: date = Field(alias="to")
    rows: list[Line]
    total: Line


@router.get("", response_model=UsageShown, responses=produces("text/csv"))
async def get_usage(
    house: House,
    me: Me,
    by: By = "day",
    start: From = None,
    end: To = None,
    user: Whose = None,
    key: OfKey = None,
    model: OfModel = None,
    format: Format = "json",
) -> Response | UsageShown:
    """One's own; with the permission `usage:all` everybody's of the tenant, unless `user` or `key` says whose."""
    return await report(house, me, by, start, end, format, model=model, **whose(me, user, key))


@router.get("/calls")
async def list_calls(
    house: House,
    me: Me,
    user: Whose = None,
    key: OfKey = None,
    model: OfModel = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[UsedCall]:
    """Each single call, newest first."""
    items, following = await house.usage.calls(
        me.scope, limit=limit, cursor=cursor, model=model, **whose(me, user, key)
    )
    return Page(items=items, next=following)


def whose(me: Caller, user: str | None, key: str | None) -> dict[str, str | None]:
    """What a caller may see of what they ask for. Raises Missing for somebody else, as for nobody."""
    if "usage:all" in me.permissions:
        return {"user": me.scope.user if user == "me" else user, "key": key}
    if user not in (None, "me", me.scope.user):
        raise Missing("No such user, or not yours to see.", code="user_missing")
    if me.scope.user is None:  # a key that is nobody's sees what it used itself
        return {"user": "", "key": me.scope.key}
    return {"user": me.scope.user, "key": key}


async def report(
    house: Services, me: Caller, by: Group, start: date | None, end: date | None, format: Format, **filters: Any
) -> Response | UsageShown:
    last = end or datetime.now(UTC).date()
    first = start or max(last, date.min + DAYS) - DAYS

    async def labels(group: Group, ids: Sequence[str]) -> Mapping[str, str]:
        return await _names(house, me, group, set(ids))

    found = await house.usage.by(me.scope, by, first, last, labels=labels, **filters)
    if format == "csv":
        headers = {"Content-Disposition": f'attachment; filename="usage-by-{by}-{first}-{last}.csv"'}
        return Response(as_csv(found), media_type="text/csv; charset=utf-8", headers=headers)
    return _shown(found)


def _shown(found: Report) -> UsageShown:
    return UsageShown(by=found.by, start=found.start, end=found.end, rows=found.rows, total=found.total)


async def month_of(house: Services, tenant_id: str) -> dict[str, Line]:
    """What a tenant used today, and this month."""
    today = datetime.now(UTC).date()
    found = await house.usage.by(Scope(tenant_id), "day", today.replace(day=1), today)
    return {"today": found.rows[-1], "month": replace(found.total, group=f"{today:%Y-%m}")}


async def _names(house: Services, me: Caller, group: Group, wanted: set[str]) -> dict[str, str]:
    """What people of the tenant and their keys are called."""
    names: dict[str, str] = {}
    cursor: str | None = None
    while wanted - names.keys():
        if group == "user":
            members, cursor = await house.people.members(me.scope, limit=LOOKED_UP, cursor=cursor)
            found = {each.user.id: each.user.name for each in members}
        else:
            all = "members" in me.permissions
            keys, cursor = await house.keys.list(me, all=all, limit=LOOKED_UP, cursor=cursor)
            found = {each.id: each.name for each in keys}
        names |= {id: name for id, name in found.items() if id in wanted}
        if cursor is None:
            break
    return names
