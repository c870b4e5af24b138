"""Log in, stay logged in, log out; new passwords; which tenant one works in."""

from datetime import datetime
from typing import Annotated

from fastapi import Body, Request, Response
from pydantic import BaseModel, Field

from terrace.accounts.base import Invitation, Tenant
from terrace.accounts.roles import Role
from terrace.errors import Unauthenticated
from terrace.web.access import Me, Stranger, resource
from terrace.web.api.cookies import drop_login, refresh_token
from terrace.web.api.fields import Email, Id, Password, Token
from terrace.web.api.logins import SET_COOKIE, LoggedIn, hand_over
from terrace.web.api.origin import Origin
from terrace.web.services import House

router = resource(prefix="/auth", tags=["auth"])
short = router  # promised without the prefix too

_MAILED = "If this address has an account, a link to a new password is on its way."


class Login(BaseModel):
    email: Email
    password: Password
    tenant: Id | None = Field(None, description="Which one to work in; by default the one last used.")
    cookie: bool = Field(False, description="Keep the login in cookies, as the page does.")


class Refresh(BaseModel):
    refresh_token: Token | None = Field(None, description="Left out, the cookie's is used.")


class Switch(BaseModel):
    tenant: Id
    cookie: bool = False


class Forgotten(BaseModel):
    email: Email


class NewPassword(BaseModel):
    token: Token
    password: Password


class PasswordChange(BaseModel):
    current: Password
    new: Password


class Invited(BaseModel):
    token: Token


class Offer(BaseModel):
    """What an invitation offers."""

    tenant_name: str
    role: Role
    email: str | None
    expires_at: datetime

    @classmethod
    def of(cls, invitation: Invitation) -> "Offer":
        return cls.model_validate(invitation, from_attributes=True)


class Status(BaseModel):
    status: str


@router.post("/login", response_model_exclude_unset=True, responses={200: SET_COOKIE})
async def login(house: House, origin: Origin, response: Response, body: Login) -> LoggedIn:
    """By e-mail and password. What is wrong is not told, only that it is."""
    tokens = await house.sessions.login(
        body.email, body.password, tenant=body.tenant, address=origin.address, agent=origin.agent
    )
    return hand_over(house, response, origin, tokens, cookie=body.cookie)


@router.post("/refresh", response_model_exclude_unset=True, responses={200: SET_COOKIE})
async def refresh(
    house: House, origin: Origin, request: Request, response: Response, body: Annotated[Refresh | None, Body()] = None
) -> LoggedIn:
    """New tokens for the refresh token, which is used up: using it again ends the session."""
    given = body.refresh_token if body is not None else None
    token = given or refresh_token(request)
    if token is None:
        raise Unauthenticated("There is no refresh token. Log in.", code="refresh_token_missing")
    tokens = await house.sessions.refresh(token, address=origin.address, agent=origin.agent)
    return hand_over(house, response, origin, tokens, cookie=given is None)


@router.post("/logout", responses={200: SET_COOKIE})
async def logout(
    house: House, me: Stranger, request: Request, response: Response, body: Annotated[Refresh | None, Body()] = None
) -> Status:
    """The session ends at once, its access tokens included."""
    given = body.refresh_token if body is not None else None
    await house.sessions.logout(me, given or refresh_token(request))
    drop_login(response)
    return Status(status="logged out")


@router.post("/forgot", status_code=202)
async def forgot(house: House, body: Forgotten) -> Status:
    """Mails a link to a new password, where mail and `web.public_url` are set: a Host header may be anybody's words.

    The answer is the same whether there is an account or not.
    """
    if public := house.settings.web.public_url:
        await house.sessions.forgot(body.email, public)
    return Status(status=_MAILED)


@router.post("/reset")
async def reset(house: House, origin: Origin, body: NewPassword) -> Status:
    """Ends every session of the account."""
    await house.sessions.reset(body.token, body.password, address=origin.address)
    return Status(status="The password is changed. Log in with it.")


@router.post("/password", status_code=204)
async def change_password(house: House, me: Me, body: PasswordChange) -> None:
    """Ends one's other sessions."""
    await house.sessions.change_password(me, body.current, body.new)


@router.post("/switch", response_model_exclude_unset=True, responses={200: SET_COOKIE})
async def switch(house: House, me: Me, origin: Origin, response: Response, body: Switch) -> LoggedIn:
    """Work in another tenant one belongs to."""
    tokens = await house.sessions.switch(me, body.tenant, address=origin.address, agent=origin.agent)
    return hand_over(house, response, origin, tokens, cookie=body.cookie or me.cookie)


@router.post("/invitation")
async def look_at_invitation(house: House, body: Invited) -> Offer:
    return Offer.of(await house.people.look(body.token))


@router.post("/accept")
async def accept_invitation(house: House, me: Me, body: Invited) -> Tenant:
    """Join with the account one has."""
    return await house.people.accept(me, body.token)
