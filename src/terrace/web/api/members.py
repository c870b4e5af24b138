"""Who belongs to the tenant, and as what."""

from pydantic import BaseModel

from terrace.accounts.base import Member
from terrace.accounts.roles import Role
from terrace.web.access import Me, Who, resource
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.api.users import named
from terrace.web.services import House

router = resource(prefix="/members", tags=["members"])


class RoleChange(BaseModel):
    role: Role


@router.get("")
async def list_members(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[Member]:
    items, following = await house.people.members(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.patch("/{user_id}")
async def change_role(house: House, me: Me, user_id: str, body: RoleChange) -> Member:
    """Nobody gives or takes a role above their own; one owner stays."""
    return await house.people.set_role(me, named(me, user_id), body.role)


@router.delete("/{user_id}", status_code=204)
async def remove_member(house: House, me: Me, user_id: str) -> None:
    """Their account stays; what they had in this tenant is out of their reach."""
    await house.people.remove_member(me, named(me, user_id))
