"""Who one is here, and where one is logged in."""

from typing import Literal

from pydantic import BaseModel

from terrace.accounts.base import Session, User
from terrace.accounts.roles import Permission, Role
from terrace.web.access import Me, Stranger, resource
from terrace.web.api.logins import TenantName
from terrace.web.api.origin import Origin
from terrace.web.api.pages import Page
from terrace.web.services import House, Services

router = resource(prefix="/auth", tags=["auth"])
short = router  # promised without the prefix too


class Provider(BaseModel):
    name: str
    label: str


class Membership(TenantName):
    role: Role


class Standing(BaseModel):
    mode: Literal["local", "setup", "accounts"]
    setup_code_needed: bool
    registration: Literal["open", "invite", "closed"]
    mail: bool
    oidc: list[Provider]
    user: User | None
    tenant: TenantName | None
    role: Role | None
    permissions: list[Permission]
    tenants: list[Membership]
    csrf: str | None
    operator: bool


@router.get("/session")
async def get_session(house: House, me: Stranger, origin: Origin) -> Standing:
    """Who is asking and what they may do, and what somebody who has not logged in can do about it."""
    mode = await _mode(house)
    user = await house.people.get(me, me.scope.user) if me and me.scope.user else None
    belongs = await house.people.tenants_of(me.scope.user) if me and me.scope.user else []
    tenants = [Membership(id=tenant.id, name=tenant.name, role=role) for tenant, role in belongs]
    return Standing(
        mode=mode,
        setup_code_needed=mode == "setup" and not origin.near,
        registration=house.people.registration,
        mail=house.mail.enabled and bool(house.settings.web.public_url),
        oidc=[Provider(name=name, label=label) for name, label in house.oidc.names()],
        user=user,
        tenant=next((each for each in tenants if me and each.id == me.scope.tenant), None),
        role=me.role if me else None,
        permissions=sorted(me.permissions) if me else [],
        tenants=tenants,
        csrf=house.gatekeeper.csrf(me.session) if me and me.cookie and me.session else None,
        operator=bool(me and "operator" in me.permissions),
    )


@router.get("/sessions")
async def list_sessions(house: House, me: Me) -> Page[Session]:
    return Page(items=await house.sessions.list(me))


@router.delete("/sessions/{session_id}", status_code=204)
async def revoke_session(house: House, me: Me, session_id: str) -> None:
    """Log out there."""
    await house.sessions.revoke(me, session_id)


async def _mode(house: Services) -> Literal["local", "setup", "accounts"]:
    if house.gatekeeper.local:
        return "local"
    return "accounts" if await house.people.exists() else "setup"
