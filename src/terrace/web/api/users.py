"""People: register, read, rename, erase, and a link to a new password."""

from datetime import datetime

from fastapi import Response
from pydantic import BaseModel, Field

from terrace.accounts.base import Caller, User
from terrace.errors import Missing
from terrace.types import moment, now
from terrace.web.access import Me, Stranger, resource
from terrace.web.api.fields import Email, Name, Password, Token
from terrace.web.api.logins import SET_COOKIE, LoggedIn, hand_over
from terrace.web.api.origin import Origin
from terrace.web.services import House

router = resource(prefix="/users", tags=["users"])
short = router  # promised without the prefix too


class NewUser(BaseModel):
    name: Name
    email: Email
    password: Password
    invitation: Token | None = Field(None, description="The token of an invitation.")
    setup_code: str | None = Field(None, max_length=64, description="For the first account, from another machine.")
    login: bool = Field(False, description="Log in at once.")
    cookie: bool = Field(False, description="Keep the login in cookies, as the page does.")


class UserChange(BaseModel):
    name: Name | None = None
    disabled: bool | None = Field(None, description="Operators only: may not log in, nor may their keys be used.")


class ResetLink(BaseModel):
    url: str
    token: str
    expires_at: datetime


@router.post("", status_code=201, response_model_exclude_unset=True, responses={201: SET_COOKIE})
async def register(house: House, me: Stranger, origin: Origin, response: Response, body: NewUser) -> User | LoggedIn:
    """The first account owns the installation. Who may make others: `accounts.registration`."""
    user = await house.people.register(
        body.name, body.email, body.password,
        invitation=body.invitation, setup_code=body.setup_code, caller=me, near=origin.near, address=origin.address,
    )  # fmt: skip
    if not body.login:
        return user
    tokens = await house.sessions.open(user.id, address=origin.address, agent=origin.agent)
    return hand_over(house, response, origin, tokens, cookie=body.cookie)


@router.get("/{user_id}")
async def get_user(house: House, me: Me, user_id: str) -> User:
    """Oneself (`me` will do), or whom one may see."""
    return await house.people.get(me, named(me, user_id))


@router.patch("/{user_id}")
async def change_user(house: House, me: Me, user_id: str, body: UserChange) -> User:
    user = named(me, user_id)
    if body.disabled is not None:
        await house.people.disable(me, user, body.disabled)
    if body.name is not None:
        await house.people.rename(me, user, body.name)
    return await house.people.get(me, user)


@router.delete("/{user_id}", status_code=204)
async def erase_user(house: House, me: Me, user_id: str) -> None:
    """With all that is theirs alone: conversations, questions, keys, sessions."""
    await house.people.erase(me, named(me, user_id))


@router.post("/{user_id}/reset-link")
async def reset_link(house: House, me: Me, origin: Origin, user_id: str) -> ResetLink:
    """A link to a new password, to be handed over by whoever asked for it. Good once."""
    token = await house.sessions.reset_link(me, named(me, user_id))
    expires = now() + house.settings.accounts.reset_hours * 3600
    return ResetLink(url=f"{origin.base}/reset#{token}", token=token, expires_at=moment(expires))


def named(me: Caller, user_id: str) -> str:
    """The user an address names. Raises Missing for `me` where nobody has logged in."""
    if user_id != "me":
        return user_id
    if me.scope.user is None:
        raise Missing("Nobody is logged in, so there is no `me`.", code="user_missing")
    return me.scope.user
