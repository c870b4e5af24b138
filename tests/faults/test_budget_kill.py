"""Two hundred calls at once against a budget for fifty, and the server is killed in the middle: the budget holds."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.faults.billing_upstream import MODEL, PROMPT_TOKENS, Billing, upstream
from tests.faults.running import GONE, Terrace, end_all

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

OUTPUT = 100
CALLS = 50  # what the budget admits
DOLLARS_A_TOKEN = 1e-6
BUDGET = CALLS * (PROMPT_TOKENS + OUTPUT) * DOLLARS_A_TOKEN
PASSWORD = "a quay seven metres deep"


@pytest.fixture
async def billing() -> AsyncIterator[Billing]:
    async with upstream() as each:
        yield each
    await end_all()


async def terrace_with_budget(data: Path, billing: Billing) -> tuple[Terrace, dict[str, str], dict[str, str]]:
    """A server, its owner's and a key's headers; the key's money of the day is the budget."""
    name = "TERRACE_MODELS__PROVIDERS__BILLED__"
    environment = {f"{name}KIND": "openai", f"{name}BASE_URL": billing.url, f"{name}MODELS": f'["{MODEL}"]'}
    terrace = Terrace(data, environment)
    await terrace.start()
    async with terrace.client() as client:
        person = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
        assert (await client.post("/api/users", json=person)).status_code == 201
        login = (await client.post("/api/auth/login", json=person)).json()
        owner = {"Authorization": f"Bearer {login['access_token']}"}
        price = {"input": DOLLARS_A_TOKEN * 1e6, "output": DOLLARS_A_TOKEN * 1e6}
        assert (await client.put(f"/api/prices/billed/{MODEL}", json=price, headers=owner)).status_code == 200
        made = (await client.post("/api/keys", json={"name": "test"}, headers=owner)).json()
        limit = {"money_per_day": BUDGET}
        put = await client.put(f"/api/limits/key:{made['key']['id']}", json=limit, headers=owner)
        assert put.status_code == 200, put.text
    return terrace, owner, {"Authorization": f"Bearer {made['secret']}"}


async def call(client: httpx.AsyncClient, key: dict[str, str], number: int) -> int | None:
    """The status; None when the server was gone."""
    body = {
        "model": f"billed/{MODEL}",
        "messages": [{"role": "user", "content": f"{number}"}],
        "max_tokens": OUTPUT,
        "stream": number % 2 == 0,
    }
    try:
        return (await client.post("/v1/chat/completions", json=body, headers=key)).status_code
    except GONE:
        return None


async def two_hundred(terrace: Terrace, key: dict[str, str]) -> list[int | None]:
    bounds = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=terrace.url, timeout=60, limits=bounds) as client:
        return await asyncio.gather(*(call(client, key, number) for number in range(200)))


async def spent(terrace: Terrace, owner: dict[str, str], cost: float, of: str = "by=key") -> Any:
    """What is booked, once it is as much as this was: calls are booked a moment after they end."""
    async with asyncio.timeout(30), terrace.client() as client:
        while True:
            total = (await client.get(f"/api/usage?{of}", headers=owner)).json()["total"]
            if total["cost"] > cost - 1e-12:
                return total
            await asyncio.sleep(0.1)


async def test_the_budget_holds_without_trouble_and_is_used_up(tmp_path: Path, billing: Billing) -> None:
    terrace, owner, key = await terrace_with_budget(tmp_path, billing)
    statuses = await two_hundred(terrace, key)
    assert set(statuses) == {200, 429}
    async with terrace.client() as client:
        for number in range(200):  # one after the other, what is left goes too
            if await call(client, key, number) == 429:
                break
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    assert billing.calls >= CALLS - 1  # the last may not fit: what is reserved is a little more than what is billed
    total = await spent(terrace, owner, billing.tokens * DOLLARS_A_TOKEN)
    assert total["cost"] == pytest.approx(billing.tokens * DOLLARS_A_TOKEN, abs=1e-12)
    assert total["calls"] == billing.calls
    assert await terrace.terminate() == 0


async def test_the_budget_holds_whatever_is_killed(tmp_path: Path, billing: Billing) -> None:
    terrace, owner, key = await terrace_with_budget(tmp_path, billing)
    for seed in range(3):
        calls = asyncio.create_task(two_hundred(terrace, key))
        await asyncio.sleep(random.Random(seed).uniform(0.1, 0.6))
        await terrace.kill()
        await calls
        await terrace.start()
        assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    await two_hundred(terrace, key)
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    total = await spent(terrace, owner, billing.tokens * DOLLARS_A_TOKEN)
    # What was under way when the server died counts with its reservation, which is never less than what it cost.
    assert total["cost"] <= BUDGET + 1e-12
    assert await terrace.terminate() == 0
