"""The page's login as cookies: what logs in is out of reach of scripts; the CSRF token is theirs to send back."""

from fastapi import Request
from starlette.responses import Response

from terrace.accounts.base import Tokens
from terrace.accounts.oidc import PATIENCE
from terrace.web.api.origin import Where

ACCESS, REFRESH, CSRF, OIDC = "terrace_access", "terrace_refresh", "terrace_csrf", "terrace_oidc"
AUTH_PATH, OIDC_PATH = "/api/auth", "/api/auth/oidc"


def keep_login(response: Response, tokens: Tokens, where: Where, seconds: float) -> None:
    """`seconds`: how long an unused session lives."""
    secure, life = where.secure, int(seconds)
    response.set_cookie(
        ACCESS, tokens.access_token, max_age=tokens.expires_in, httponly=True, samesite="lax", secure=secure
    )
    response.set_cookie(
        REFRESH, tokens.refresh_token, max_age=life, path=AUTH_PATH, httponly=True, samesite="strict", secure=secure
    )
    response.set_cookie(CSRF, tokens.csrf, max_age=life, samesite="lax", secure=secure)


def drop_login(response: Response) -> None:
    response.delete_cookie(ACCESS, httponly=True, samesite="lax")
    response.delete_cookie(REFRESH, path=AUTH_PATH, httponly=True, samesite="strict")
    response.delete_cookie(CSRF, samesite="lax")


def refresh_token(request: Request) -> str | None:
    return request.cookies.get(REFRESH)


def keep_oidc_state(response: Response, state: str, where: Where) -> None:
    response.set_cookie(
        OIDC, state, max_age=PATIENCE, path=OIDC_PATH, httponly=True, samesite="lax", secure=where.secure
    )


def oidc_state(request: Request) -> str | None:
    return request.cookies.get(OIDC)


def drop_oidc_state(response: Response) -> None:
    response.delete_cookie(OIDC, path=OIDC_PATH, httponly=True, samesite="lax")
