"""What a login answers: tokens in the body for programs, or in cookies for the page."""

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from terrace.accounts.base import Tokens, User
from terrace.accounts.roles import Role
from terrace.web.api.cookies import keep_login
from terrace.web.api.origin import Where
from terrace.web.services import Services

SET_COOKIE = {"headers": {"Set-Cookie": {"schema": {"type": "string"}, "description": "With `cookie`: the login."}}}


class TenantName(BaseModel):
    id: str
    name: str


class LoggedIn(BaseModel):
    """With cookies the tokens are left out, and `csrf` is what `X-CSRF-Token` must say."""

    user: User
    tenant: TenantName
    role: Role
    token_type: str = "bearer"
    expires_in: int = Field(description="Seconds the access token is good.")
    access_token: str | None = None
    refresh_token: str | None = None
    csrf: str | None = None


def hand_over(house: Services, response: Response, where: Where, tokens: Tokens, *, cookie: bool) -> LoggedIn:
    secrets: dict[str, Any] = {"access_token": tokens.access_token, "refresh_token": tokens.refresh_token}
    if cookie:
        keep_login(response, tokens, where, house.settings.accounts.refresh_days * 86_400)
        secrets = {"csrf": tokens.csrf}
    return LoggedIn(
        user=tokens.user,
        tenant=TenantName(id=tokens.tenant.id, name=tokens.tenant.name),
        role=tokens.role,
        token_type="bearer",
        expires_in=tokens.expires_in,
        **secrets,
    )
