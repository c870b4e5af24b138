"""How much may be used, and how much is."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from terrace.accounts.audit import actor
from terrace.accounts.base import Caller
from terrace.accounts.limits import store
from terrace.accounts.limits.base import Limit, LimitName, Subject
from terrace.accounts.members import check_limits
from terrace.errors import Denied
from terrace.types import moment
from terrace.web.access import Me, resource
from terrace.web.services import House, Services

router = resource(prefix="/limits", tags=["limits"])


Count = Annotated[int, Field(ge=1, le=store.MAX_COUNT)]
Dollars = Annotated[float, Field(gt=0, le=store.MAX_DOLLARS)]


class LimitShown(BaseModel):
    """`used` counts what is kept free for calls under way. Money is in dollars."""

    name: LimitName
    value: float
    used: float
    resets_in: float | None = Field(description="Seconds until all of it is free again; null where time frees none.")
    set_by: str
    set_at: datetime


class SubjectLimits(BaseModel):
    subject: str = Field(examples=["tenant", "user:usr_06bq", "key:key_06bq"])
    limits: list[LimitShown]


class ManyLimits(BaseModel):
    items: list[SubjectLimits]


class LimitValues(BaseModel):
    """Limits by name: those left out stay as they are, null takes one away."""

    model_config = ConfigDict(extra="forbid")  # a limit that is spelled wrong would limit nothing

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_day: Count | None = None
    money_per_day: Dollars | None = None
    money_per_month: Dollars | None = None
    concurrent_requests: Count | None = None
    stored_bytes: Count | None = None
    documents: Count | None = None

    def given(self) -> dict[LimitName, float | None]:
        return cast("dict[LimitName, float | None]", self.model_dump(exclude_unset=True))


@router.get("")
async def list_limits(house: House, me: Me) -> ManyLimits:
    """One's own, one's key's and the tenant's; with the permission `limits` everybody's of the tenant."""
    subjects = store.subjects(me.scope)
    if "limits" in me.permissions:
        subjects = list(dict.fromkeys([*subjects, *await house.limits.subjects(me.scope.tenant)]))
    return ManyLimits(items=[await shown(house, subject) for subject in subjects])


@router.put("/{subject}")
async def set_limits(house: House, me: Me, subject: str, body: LimitValues) -> SubjectLimits:
    """Of a user or key that is nobody's above. The tenant's own are set by an operator."""
    whose = store.parsed(subject, me.scope.tenant)
    if whose.kind == "tenant" and "operator" not in me.permissions:
        raise Denied("A tenant's own limits are set by an operator.", code="not_permitted", permission="operator")
    return await put(house, me, whose, body)


async def put(house: Services, me: Caller, subject: Subject, values: LimitValues) -> SubjectLimits:
    given = values.given()

    def also(session: Any) -> None:
        check_limits(session, me, subject)
        house.audit.record(session, me, "limits.changed", store.named(subject), tenant=subject.tenant, **given)

    return told(subject, await house.limits.change(subject, given, actor(me), also))


async def shown(house: Services, subject: Subject) -> SubjectLimits:
    return told(subject, await house.limits.show(subject))


def told(subject: Subject, limits: Iterable[Limit]) -> SubjectLimits:
    shown = [
        LimitShown(
            name=each.name, value=each.value, used=each.used, resets_in=each.resets_in,
            set_by=each.set_by, set_at=moment(each.set_at),
        )
        for each in limits
    ]  # fmt: skip
    return SubjectLimits(subject=store.named(subject), limits=shown)
