"""An OpenID provider that answers as it is told: for answers no honest one would give."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from terrace.types import now


@cache
def rsa_key(kid: str) -> RSAKey:
    """Made once: that takes a while."""
    return RSAKey.generate_key(2048, {"kid": kid, "alg": "RS256", "use": "sig"})


class Forger:
    def __init__(self) -> None:
        self.url = ""
        self.key = rsa_key("first")
        self.published = [self.key]
        self.changes: dict[str, Any] = {}  # of the claims; None takes one away
        self.header: dict[str, Any] = {"alg": "RS256", "kid": "first"}
        self.signs: RSAKey | OctKey = self.key
        self.token: str | None = None  # instead of a signed one
        self.metadata: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.asked: list[str] = []
        self.exchanged: list[dict[str, str]] = []
        self.nonce = ""

    def authorize(self, url: str) -> dict[str, str]:
        """What the browser comes back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.nonce = query["nonce"]
        return {"code": "the-code", "state": query["state"]}

    def claims(self) -> dict[str, Any]:
        claims = {
            "iss": self.url,
            "sub": "42",
            "aud": "terrace",
            "iat": int(now()),
            "exp": int(now()) + 300,
            "nonce": self.nonce,
            "email": "ada@example.org",
            "email_verified": True,
            "name": "Ada Example",
        } | self.changes
        return {name: value for name, value in claims.items() if value is not None}

    def id_token(self) -> str:
        if self.token is not None:
            return self.token
        return jwt.encode(self.header, self.claims(), self.signs, algorithms=["RS256", "HS256"])

    def answer(self, path: str, body: str) -> Any:
        self.asked.append(path)
        if path == "/.well-known/openid-configuration":
            return {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/jwks",
                "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            } | self.metadata
        if path == "/jwks":
            return {"keys": [key.as_dict(private=False) for key in self.published]}
        if path == "/token":
            self.exchanged.append({name: values[0] for name, values in parse_qs(body).items()})
            return {"access_token": "opaque", "token_type": "Bearer", "id_token": self.id_token()}
        return self.userinfo

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        body = (await reader.readexactly(length)).decode()
        content = json.dumps(self.answer(head.split()[1], body)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            + f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        await writer.drain()
        writer.close()


@asynccontextmanager
async def forger() -> AsyncIterator[Forger]:
    forger = Forger()
    server = await asyncio.start_server(forger.serve, "127.0.0.1", 0)
    forger.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield forger
