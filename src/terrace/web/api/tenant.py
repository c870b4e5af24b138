"""One's own tenant."""

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel
from starlette.responses import StreamingResponse

from terrace.accounts.base import Tenant
from terrace.accounts.limits.base import Subject
from terrace.web.access import Me, Who, resource
from terrace.web.api.archive import archive
from terrace.web.api.fields import Name
from terrace.web.api.limits import LimitShown, shown
from terrace.web.api.media import produces
from terrace.web.services import House, Services

router = resource(prefix="/tenant", tags=["tenant"])


class TenantShown(BaseModel):
    id: str
    name: str
    created_at: datetime
    disabled: bool
    models: list[str]
    members: int
    limits: list[LimitShown]


class NewName(BaseModel):
    name: Name


@router.get("")
async def get_tenant(house: House, who: Who) -> TenantShown:
    return await with_limits(house, await house.tenants.get(who.tenant))


@router.patch("")
async def rename_tenant(house: House, me: Me, body: NewName) -> TenantShown:
    return await with_limits(house, await house.tenants.change(me, me.scope.tenant, name=body.name))


@router.get("/export", response_class=StreamingResponse, responses=produces("application/zip"))
async def export_tenant(house: House, me: Me) -> StreamingResponse:
    """Everything: documents as they were uploaded, conversations, members, usage."""
    return await archive(house, me, me.scope.tenant)


async def with_limits(house: Services, tenant: Tenant) -> TenantShown:
    limits = await shown(house, Subject(tenant.id))
    return TenantShown(**{**asdict(tenant), "limits": limits.limits})
