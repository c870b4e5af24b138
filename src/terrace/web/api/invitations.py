"""Ask people to join the tenant."""

from pydantic import BaseModel, Field

from terrace.accounts.base import Invitation
from terrace.accounts.roles import Role
from terrace.web.access import Me, Who, resource
from terrace.web.api.fields import Email
from terrace.web.api.origin import Origin
from terrace.web.api.pages import Page
from terrace.web.services import House

router = resource(prefix="/invitations", tags=["members"])


class NewInvitation(BaseModel):
    email: Email | None = Field(None, description="Whom alone it lets in.")
    role: Role = "member"


class Invited(BaseModel):
    """The token and its link are shown this once."""

    invitation: Invitation
    token: str
    url: str


@router.get("")
async def list_invitations(house: House, who: Who) -> Page[Invitation]:
    """Those still open."""
    return Page(items=await house.people.invitations(who))


@router.post("", status_code=201)
async def invite(house: House, me: Me, origin: Origin, body: NewInvitation) -> Invited:
    invitation, token = await house.people.invite(me, email=body.email, role=body.role)
    return Invited(invitation=invitation, token=token, url=f"{origin.base}/join#{token}")


@router.delete("/{invitation_id}", status_code=204)
async def revoke_invitation(house: House, me: Me, invitation_id: str) -> None:
    await house.people.revoke_invitation(me, invitation_id)
