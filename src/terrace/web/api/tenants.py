"""All tenants, for operators: made, changed, limited, billed, deleted."""

from dataclasses import replace
from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from terrace.accounts.limits.base import Subject
from terrace.accounts.roles import Role
from terrace.telemetry.usage import Line
from terrace.web.access import Me, resource
from terrace.web.api.archive import archive
from terrace.web.api.fields import Email, Name, Patterns
from terrace.web.api.invitations import Invited
from terrace.web.api.limits import LimitValues, SubjectLimits, put
from terrace.web.api.media import produces
from terrace.web.api.origin import Origin
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.api.tenant import TenantShown, with_limits
from terrace.web.api.usage import By, Format, From, To, UsageShown, month_of, report
from terrace.web.services import House

router = resource(prefix="/tenants", tags=["tenants"])


class NewTenant(BaseModel):
    name: Name
    models: Patterns = Field([], description="Models it may use; none: every model.")
    limits: LimitValues | None = None


class TenantChange(BaseModel):
    name: Name | None = None
    models: Patterns | None = None
    disabled: bool | None = None


class FirstInvitation(BaseModel):
    email: Email | None = None
    role: Role = "owner"


class TenantListed(TenantShown):
    usage: dict[str, Line] = Field(description="What it used `today` and this `month` (UTC).")


@router.get("")
async def list_tenants(
    house: House,
    q: Annotated[str, Query(max_length=200, description="Part of a name.")] = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[TenantListed]:
    found, following = await house.tenants.list(q=q, limit=limit, cursor=cursor)
    items = [
        TenantListed(**dict(await with_limits(house, each)), usage=await month_of(house, each.id)) for each in found
    ]
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_tenant(house: House, me: Me, body: NewTenant) -> TenantShown:
    tenant = await house.tenants.create(me, body.name, body.models)
    if body.limits is not None:
        await put(house, me, Subject(tenant.id), body.limits)
    return await with_limits(house, tenant)


@router.get("/{tenant_id}")
async def get_tenant(house: House, tenant_id: str) -> TenantListed:
    tenant = await house.tenants.get(tenant_id)
    return TenantListed(**dict(await with_limits(house, tenant)), usage=await month_of(house, tenant_id))


@router.patch("/{tenant_id}")
async def change_tenant(house: House, me: Me, tenant_id: str, body: TenantChange) -> TenantShown:
    tenant = await house.tenants.change(me, tenant_id, **body.model_dump(exclude_none=True))
    return await with_limits(house, tenant)


@router.delete("/{tenant_id}", status_code=204)
async def delete_tenant(house: House, me: Me, tenant_id: str) -> None:
    """With everything it has."""
    await house.tenants.delete(me, tenant_id)


@router.put("/{tenant_id}/limits")
async def set_tenant_limits(
    house: House,
    me: Me,
    tenant_id: str,
    body: LimitValues,
) -> SubjectLimits:
    tenant = await house.tenants.get(tenant_id)
    return await put(house, me, Subject(tenant.id), body)


@router.get("/{tenant_id}/usage", response_model=UsageShown, responses=produces("text/csv"))
async def tenant_usage(
    house: House, me: Me, tenant_id: str, by: By = "day", start: From = None, end: To = None, format: Format = "json"
) -> Response | UsageShown:
    """Its bill."""
    tenant = await house.tenants.get(tenant_id)
    return await report(house, replace(me, scope=replace(me.scope, tenant=tenant.id)), by, start, end, format)


@router.post("/{tenant_id}/invitations", status_code=201)
async def invite_to_tenant(house: House, me: Me, origin: Origin, tenant_id: str, body: FirstInvitation) -> Invited:
    """Its first owner, say."""
    tenant = await house.tenants.get(tenant_id)
    invitation, token = await house.people.invite(me, email=body.email, role=body.role, tenant_id=tenant.id)
    return Invited(invitation=invitation, token=token, url=f"{origin.base}/join#{token}")


@router.get("/{tenant_id}/export", response_class=StreamingResponse, responses=produces("application/zip"))
async def export_tenant(house: House, me: Me, tenant_id: str) -> StreamingResponse:
    tenant = await house.tenants.get(tenant_id)
    return await archive(house, me, tenant.id)
