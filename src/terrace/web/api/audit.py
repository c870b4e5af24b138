"""Every administrative act of the tenant. Nobody changes or deletes a line."""

from typing import Annotated

from fastapi import Query

from terrace.accounts.base import AuditEntry
from terrace.web.access import Who, resource
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.services import House

router = resource(prefix="/audit", tags=["audit"])


@router.get("")
async def list_audit(
    house: House,
    who: Who,
    action: Annotated[str | None, Query(max_length=100, description="Such as key.created.")] = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[AuditEntry]:
    """Newest first."""
    items, following = await house.audit.list(who, limit=limit, cursor=cursor, action=action)
    return Page(items=items, next=following)
