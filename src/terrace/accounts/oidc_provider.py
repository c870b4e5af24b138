"""One OpenID provider: what it offers, the exchange of a code, and what its ID token is worth.

OpenID Connect Core 1.0 and Discovery 1.0, the code flow with PKCE (RFC 7636).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from ipaddress import ip_address
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from terrace import settings
from terrace.errors import Invalid, Unauthenticated, Unavailable
from terrace.types import now

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

log = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds
LEEWAY = 60  # seconds that its clock may differ
KEEP = 3600.0  # seconds that what it offers is remembered
KEYS_AGAIN = 60.0  # seconds between two looks for a key that is not known
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Those whose key only the provider has."""
MAX_CLAIM = 255


class Person(NamedTuple):
    """Whom the provider vouches for."""

    issuer: str
    subject: str
    name: str
    email: str
    verified: bool  # the provider has checked that the address is theirs


class Provider:
    def __init__(self, options: settings.OIDC, clock: Callable[[], float] = now) -> None:
        self._options = options
        self._clock = clock
        self._metadata: dict[str, Any] = {}
        self._metadata_at = 0.0
        self._keys: dict[str, Any] = {}
        self._keys_at = 0.0
        self._tls: SSLContext | None = None

    async def ready(self) -> None:
        """Before the first use: the libraries and certificates take a while to load, and nothing else should wait."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(_load)

    async def authorization_url(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Raises Unavailable."""
        metadata = await self._discover()
        async with self._client(metadata) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=state,
                code_verifier=verifier,
                redirect_uri=redirect_uri,
                scope=" ".join(self._options.scopes),
                nonce=nonce,
            )
        return str(url)

    async def person(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> Person:
        """Raises Unauthenticated when anything about the answer is wrong, Unavailable when there is none."""
        from authlib.common.errors import AuthlibBaseError
        from joserfc.errors import JoseError

        metadata = await self._discover()
        try:
            async with self._client(metadata) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    redirect_uri=redirect_uri,
                    code_verifier=verifier,
                )
                claims = await self._verified(metadata, token, nonce)
                if "email" not in claims and "userinfo_endpoint" in metadata:
                    claims = claims | await self._userinfo(client, metadata, claims["sub"])
        except (AuthlibBaseError, JoseError, ValueError, TypeError, KeyError) as error:
            log.warning("a login by %s was refused: %s", self._options.issuer, type(error).__name__)
            raise _refused() from error
        except _http_errors() as error:
            raise self._away(error) from error
        return _person(metadata["issuer"], claims)

    async def issuer(self) -> str:
        issuer: str = (await self._discover())["issuer"]
        return issuer

    async def _verified(self, metadata: Mapping[str, Any], token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token, once everything about it holds."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        registry = JWSRegistry(algorithms=[each for each in ALGORITHMS if each in offered], strict_check_header=False)
        keys = await self._jwks(metadata)
        try:
            decoded = jwt.decode(token["id_token"], KeySet.import_key_set(keys), registry=registry)
        except InvalidKeyIdError:  # it signs with a new one
            keys = await self._jwks(metadata, again=True)
            decoded = jwt.decode(token["id_token"], KeySet.import_key_set(keys), registry=registry)
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            {
                "iss": {"essential": True, "value": metadata["issuer"]},
                "aud": {"essential": True, "value": self._options.client_id},
            },
            {"nonce": nonce, "client_id": self._options.client_id, "access_token": token.get("access_token")},
        )
        claims.validate(now=int(self._clock()), leeway=LEEWAY)
        return dict(claims)

    async def _userinfo(self, client: "AsyncOAuth2Client", metadata: Mapping[str, Any], subject: str) -> dict[str, Any]:
        """Providers may keep e-mail addresses out of ID tokens."""
        response = await client.get(metadata["userinfo_endpoint"])
        response.raise_for_status()
        info: dict[str, Any] = response.json()
        if info["sub"] != subject:  # OpenID Connect Core 5.3.2: it may be about somebody else
            raise ValueError("the userinfo is somebody else's")
        return {name: info[name] for name in ("email", "email_verified", "name", "preferred_username") if name in info}

    async def _discover(self) -> dict[str, Any]:
        """Its metadata. Raises Invalid for one that cannot be trusted, Unavailable."""
        if self._metadata and self._clock() - self._metadata_at < KEEP:
            return self._metadata
        await self.ready()
        issuer = self._options.issuer.rstrip("/")
        _check_private(issuer)
        metadata = await self._get(f"{issuer}/.well-known/openid-configuration")
        if str(metadata.get("issuer", "")).rstrip("/") != issuer:
            raise Invalid(f"{issuer} says that it is somebody else. Set the issuer it names.", code="oidc_issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if name not in metadata:
                raise Invalid(f"{issuer} does not say its {name}.", code="oidc_issuer")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            if name in metadata:
                _check_private(str(metadata[name]))
        self._metadata, self._metadata_at = metadata, self._clock()
        return metadata

    async def _jwks(self, metadata: Mapping[str, Any], *, again: bool = False) -> Any:
        age = self._clock() - self._keys_at
        if not self._keys or age > KEEP or (again and age > KEYS_AGAIN):
            self._keys, self._keys_at = await self._get(metadata["jwks_uri"]), self._clock()
        return self._keys

    async def _get(self, url: str) -> dict[str, Any]:
        import httpx2

        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT, verify=self._tls or True) as client:
                response = await client.get(url)
                response.raise_for_status()
                content = response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise self._away(error) from error
        if not isinstance(content, dict):
            raise self._away(None)
        return content

    def _client(self, metadata: Mapping[str, Any]) -> "AsyncOAuth2Client":
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        secret = self._options.client_secret.get_secret_value()
        ways = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        basic = "client_secret_basic" if "client_secret_basic" in ways else "client_secret_post"
        return AsyncOAuth2Client(
            client_id=self._options.client_id,
            client_secret=secret or None,
            token_endpoint_auth_method=basic if secret else "none",
            code_challenge_method="S256",
            timeout=TIMEOUT,
            verify=self._tls or True,
        )

    def _away(self, error: Exception | None) -> Unavailable:
        log.warning("the login provider %s does not answer as it should: %r", self._options.issuer, error)
        return Unavailable("The login provider does not answer. Try again in a moment.", code="oidc_away")


def _load() -> SSLContext:
    for module in ("authlib.integrations.httpx_client", "authlib.oidc.core", "joserfc.jwt"):
        import_module(module)
    import httpx2

    return httpx2.create_ssl_context()


def _http_errors() -> type[Exception]:
    import httpx2

    return httpx2.HTTPError


def _person(issuer: str, claims: Mapping[str, Any]) -> Person:
    subject, email = claims["sub"], claims.get("email")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_CLAIM:
        raise _refused()
    if not isinstance(email, str):
        email = ""
    verified = claims.get("email_verified")
    name = claims.get("name") or claims.get("preferred_username")
    return Person(
        issuer,
        subject,
        name if isinstance(name, str) else "",
        email,
        verified is True or verified == "true",  # some write it as a string
    )


def _check_private(url: str) -> None:
    """Raises Invalid for what others could read on the way."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
        return
    raise Invalid("A login provider has to be reached by https.", code="oidc_insecure")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refused() -> Unauthenticated:
    return Unauthenticated("The login provider's answer does not hold. Log in again.", code="oidc_refused")
