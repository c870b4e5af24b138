"""People of the tests: each sends who they are with every request."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.web.conftest import Client

PASSWORD = "nine lighthouses in a row"


@dataclass
class Person:
    client: Client
    id: str
    email: str
    access: str
    refresh: str
    tenant: str
    headers: dict[str, str] = field(default_factory=dict)

    async def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.access}", **self.headers, **(more.pop("headers", None) or {})}
        return await self.client.request(method, path, headers=headers, **more)

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.request("GET", path, **more)

    async def post(self, path: str, json: Any = None, **more: Any) -> httpx.Response:
        return await self.request("POST", path, json=json, **more)

    async def put(self, path: str, json: Any) -> httpx.Response:
        return await self.request("PUT", path, json=json)

    async def patch(self, path: str, json: Any) -> httpx.Response:
        return await self.request("PATCH", path, json=json)

    async def delete(self, path: str) -> httpx.Response:
        return await self.request("DELETE", path)

    async def upload(self, name: str, data: bytes, **fields: str) -> Any:
        answer = await self.post("/api/documents/upload", files={"file": (name, data)}, data=fields)
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def ready(self, document_id: str) -> Any:
        """The document once it is ready or failed."""
        for _ in range(1000):
            document = (await self.get(f"/api/documents/{document_id}")).json()
            if document["state"] in ("ready", "failed"):
                return document
            await asyncio.sleep(0.02)
        raise TimeoutError(document["state"])


def person(client: Client, tokens: dict[str, Any]) -> Person:
    user = tokens["user"]
    return Person(
        client, user["id"], user["email"], tokens["access_token"], tokens["refresh_token"], tokens["tenant"]["id"]
    )


async def register(client: Client, name: str, **more: Any) -> Person:
    """Somebody new, logged in. The first one owns the installation."""
    body = {"name": name, "email": f"{name.lower()}@example.org", "password": PASSWORD, "login": True, **more}
    answer = await client.post("/api/users", json=body)
    assert answer.status_code == 201, answer.text
    return person(client, answer.json())


async def invited(inviter: Person, name: str, role: str) -> Person:
    """Somebody new in the inviter's tenant."""
    offer = await inviter.post("/api/invitations", {"role": role})
    assert offer.status_code == 201, offer.text
    return await register(inviter.client, name, invitation=offer.json()["token"])


async def tenant(operator: Person, name: str, owner: str) -> Person:
    """A new tenant's owner."""
    made = await operator.post("/api/tenants", {"name": name})
    assert made.status_code == 201, made.text
    offer = await operator.post(f"/api/tenants/{made.json()['id']}/invitations", {})
    assert offer.status_code == 201, offer.text
    return await register(operator.client, owner, invitation=offer.json()["token"])
