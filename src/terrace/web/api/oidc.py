"""Log in by another provider (OpenID Connect)."""

from urllib.parse import quote

from fastapi import Request
from starlette.responses import RedirectResponse

from terrace.errors import TerraceError
from terrace.web.access import resource
from terrace.web.api.cookies import drop_oidc_state, keep_login, keep_oidc_state, oidc_state
from terrace.web.api.origin import Origin, Where
from terrace.web.services import House, Services

router = resource(prefix="/auth/oidc", tags=["auth"])


@router.get("/{name}", status_code=302, response_class=RedirectResponse)
async def start_oidc(house: House, origin: Origin, name: str) -> RedirectResponse:
    """To the provider."""
    url, state = await house.oidc.start(name, _callback(origin, name))
    response = RedirectResponse(url, 302)
    keep_oidc_state(response, state, origin)
    return response


@router.get("/{name}/callback", status_code=302, response_class=RedirectResponse)
async def finish_oidc(house: House, origin: Origin, request: Request, name: str) -> RedirectResponse:
    """Back from the provider: to the page, logged in, or to /login, which tells what went wrong."""
    response = await _finished(house, origin, request, name)
    drop_oidc_state(response)
    return response


async def _finished(house: Services, origin: Where, request: Request, name: str) -> RedirectResponse:
    try:
        tokens = await house.oidc.finish(
            name,
            dict(request.query_params),
            oidc_state(request),
            _callback(origin, name),
            address=origin.address,
            agent=origin.agent,
        )
    except TerraceError as error:
        return RedirectResponse(f"/login#error={quote(error.code)}", 302)
    response = RedirectResponse("/", 302)
    keep_login(response, tokens, origin, house.settings.accounts.refresh_days * 86_400)
    return response


def _callback(origin: Where, name: str) -> str:
    return f"{origin.base}/api/auth/oidc/{quote(name, safe='')}/callback"
