"""What is taken away at one process is gone at the others within five seconds, and failed logins count at all of them.

One hears of what others write; one looks behind a PgBouncer in transaction mode, where nobody can listen; one is to
listen where nobody answers, so it never hears of anything.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.faults.running import Terrace, end_all
from tests.pgbouncer import pgbouncer
from tests.ports import free_port
from tests.postgres import Postgres

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PASSWORD = "a quay seven metres deep"
ATTEMPTS = 3
WITHIN = 5.0  # seconds
Headers = dict[str, str]


@pytest.fixture
async def start(tmp_path: Path, postgres_url: str) -> AsyncIterator[Callable[..., Awaitable[Terrace]]]:
    """Another process on the same data, with these settings."""

    async def started(**storage: str) -> Terrace:
        environment = {
            "TERRACE_ROLE": "api",
            "TERRACE_ACCOUNTS__LOGIN_ATTEMPTS": str(ATTEMPTS),
            "TERRACE_STORAGE__CONNECTIONS": "3",
            **{f"TERRACE_STORAGE__{name}": value for name, value in {"URL": postgres_url, **storage}.items()},
        }
        process = Terrace(tmp_path, environment)
        await process.start()
        return process

    yield started
    await end_all()


async def ask(process: Terrace, method: str, path: str, headers: Headers, **given: object) -> httpx.Response:
    async with process.client() as client:
        return await client.request(method, path, headers=headers, **given)  # type: ignore[arg-type]


async def login(process: Terrace, name: str, password: str = PASSWORD) -> httpx.Response:
    given = {"email": f"{name}@example.org", "password": password}
    return await ask(process, "POST", "/api/auth/login", {}, json=given)


async def enter(process: Terrace, name: str) -> tuple[str, Headers]:
    """Their id, and what they log in with."""
    person = {"name": name, "email": f"{name}@example.org", "password": PASSWORD}
    made = await ask(process, "POST", "/api/users", {}, json=person)
    assert made.status_code == 201, made.text
    token = (await login(process, name)).json()["access_token"]
    return made.json()["id"], {"Authorization": f"Bearer {token}"}


async def key_of(process: Terrace, owner: Headers) -> tuple[str, Headers]:
    """Its id, and what says it."""
    made = (await ask(process, "POST", "/api/keys", owner, json={"name": "test"})).json()
    return made["key"]["id"], {"Authorization": f"Bearer {made['secret']}"}


@dataclass(frozen=True)
class Right:
    """What somebody may do until it is taken away, and what they are told then."""

    method: str
    path: str
    headers: Headers
    code: str

    async def refused(self, client: httpx.AsyncClient) -> bool:
        body = {} if self.method == "POST" else None
        answer = await client.request(self.method, self.path, headers=self.headers, json=body)
        assert answer.is_success or answer.json()["code"] == self.code, answer.text
        return not answer.is_success

    async def until_gone(self, process: Terrace, taken: asyncio.Event) -> float:
        """Used again and again; the moment of the last use that was granted."""
        granted = 0.0
        async with process.client() as client:
            while True:
                asked = time.monotonic()
                if await self.refused(client):
                    assert taken.is_set(), "nobody had taken it away yet"
                    return granted
                granted = asked
                await asyncio.sleep(0.25)

    async def taken_away(self, by: Awaitable[httpx.Response], first: Terrace, others: list[Terrace]) -> None:
        taken = asyncio.Event()
        refused = [asyncio.create_task(self.until_gone(each, taken)) for each in others]
        await asyncio.sleep(1)  # each of them knows it well by now
        taken.set()
        assert (await by).is_success
        began = time.monotonic()
        async with first.client() as client:
            assert await self.refused(client), "at once where it was taken away"
        waited = [moment - began for moment in await asyncio.gather(*refused)]
        assert max(waited) < WITHIN, (self, waited)


async def test_what_is_taken_away_at_one_is_gone_at_the_others(
    start: Callable[..., Awaitable[Terrace]], postgres: Postgres, postgres_url: str
) -> None:
    first, listening = await start(), await start()
    with pgbouncer(postgres) as port:
        pooled = postgres_url.replace(f":{postgres.port}/", f":{port}/")
        looking = await start(URL=pooled)
        deaf = await start(URL=pooled, LISTEN_URL=f"postgresql://127.0.0.1:{free_port()}/nowhere")
        await take_away(first, [listening, looking, deaf])
        await end_all()


async def take_away(first: Terrace, others: list[Terrace]) -> None:
    _, ada = await enter(first, "ada")
    bob_id, bob = await enter(first, "bob")
    _, cat = await enter(first, "cat")
    dan_id, dan = await enter(first, "dan")
    revoked, adas = await key_of(first, ada)
    _, dans = await key_of(first, dan)
    mine = "/api/conversations"
    rights = [
        (
            Right("GET", mine, adas, "key_revoked"),
            ask(first, "DELETE", f"/api/keys/{revoked}", ada),
        ),
        (
            Right("POST", mine, bob, "not_permitted"),
            ask(first, "PATCH", f"/api/members/{bob_id}", ada, json={"role": "viewer"}),
        ),
        (
            Right("GET", mine, cat, "session_revoked"),
            ask(first, "POST", "/api/auth/logout", cat),
        ),
        (
            Right("GET", mine, dans, "account_disabled"),
            ask(first, "PATCH", f"/api/users/{dan_id}", ada, json={"disabled": True}),
        ),
    ]
    await asyncio.gather(*(right.taken_away(by, first, others) for right, by in rights))


async def test_failed_logins_count_at_all_of_them_and_after_a_restart(
    start: Callable[..., Awaitable[Terrace]],
) -> None:
    first, second = await start(), await start()
    await enter(first, "ada")
    await enter(second, "eve")
    for name in ("nobody", "eve"):
        for number in range(ATTEMPTS):
            answer = await login((first, second)[number % 2], name, "wrong and long enough")
            assert answer.status_code == 401
        told = await asyncio.gather(login(first, name), login(second, name))
        assert [answer.status_code for answer in told] == [429, 429]
    assert await first.terminate() == 0
    await first.start()
    assert (await login(first, "eve")).status_code == 429
    assert (await login(first, "ada")).status_code == (await login(second, "ada")).status_code == 200
