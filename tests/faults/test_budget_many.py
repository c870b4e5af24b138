"""One budget over four API processes on PostgreSQL, with Redis and without: never passed, and used up; also when one of
the processes is killed in the middle, or Redis."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.faults.billing_upstream import MODEL, PROMPT_TOKENS, Billing, upstream
from tests.faults.running import Terrace, end_all
from tests.faults.test_budget_kill import BUDGET, CALLS, DOLLARS_A_TOKEN, PASSWORD, call, spent
from tests.postgres import Postgres
from tests.redis_server import RedisServer, redis_server

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400), pytest.mark.asyncio(loop_scope="module")]

PATIENCE = 5  # rounds in which everybody refuses, until nothing is left
PROCESSES = 4
AT_ONCE = 200


@pytest.fixture(scope="module", params=["database", "redis"])
def redis(request: pytest.FixtureRequest) -> Iterator[RedisServer | None]:
    with ExitStack() as stack:
        yield stack.enter_context(redis_server()) if request.param == "redis" else None


class Town:
    """The processes, an owner's headers and those of one key after the other; its money of the day is the budget."""

    def __init__(self, data: Path, url: str, billing: Billing, redis: RedisServer | None) -> None:
        name = "TERRACE_MODELS__PROVIDERS__BILLED__"
        environment = {
            f"{name}KIND": "openai", f"{name}BASE_URL": billing.url, f"{name}MODELS": f'["{MODEL}"]',
            "TERRACE_STORAGE__URL": url, "TERRACE_STORAGE__CONNECTIONS": "3",
            **({"TERRACE_REDIS__URL": redis.url} if redis is not None else {}),
        }  # fmt: skip
        self.houses = [Terrace(data, environment) for _ in range(PROCESSES)]
        self.owner: dict[str, str] = {}
        self.key: dict[str, str] = {}
        self.id = ""

    async def start(self) -> None:
        for each in self.houses:
            await each.start()
        async with self.houses[0].client() as client:
            person = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
            assert (await client.post("/api/users", json=person)).status_code == 201
            login = (await client.post("/api/auth/login", json=person)).json()
            self.owner = {"Authorization": f"Bearer {login['access_token']}"}
            price = {"input": DOLLARS_A_TOKEN * 1e6, "output": DOLLARS_A_TOKEN * 1e6}
            assert (await client.put(f"/api/prices/billed/{MODEL}", json=price, headers=self.owner)).is_success

    async def fund(self) -> None:
        """A new key with a budget of its own, and whom a test before has killed."""
        for each in self.gone():
            await each.start()
        async with self.houses[0].client() as client:
            made = (await client.post("/api/keys", json={"name": "test"}, headers=self.owner)).json()
            self.key = {"Authorization": f"Bearer {made['secret']}"}
            self.id = made["key"]["id"]
            put = await client.put(f"/api/limits/key:{self.id}", json={"money_per_day": BUDGET}, headers=self.owner)
            assert put.status_code == 200, put.text
        await asyncio.sleep(5)  # every process knows the limit, the price and the key by then

    def gone(self) -> list[Terrace]:
        return [each for each in self.houses if each.process is not None and each.process.returncode is not None]

    async def flood(self) -> list[int | None]:
        bounds = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(timeout=60, limits=bounds) as client:
            return await asyncio.gather(
                *(self.one(client, number, self.houses[number % PROCESSES]) for number in range(AT_ONCE))
            )

    async def one(self, client: httpx.AsyncClient, number: int, house: Terrace) -> int | None:
        aimed = _At(client, house.url)
        return await call(aimed, self.key, number)  # type: ignore[arg-type]

    async def rest(self, houses: list[Terrace]) -> None:
        """One after the other, what is left goes too; what lies idle with others may take a while on a busy machine."""
        async with httpx.AsyncClient(timeout=60) as client:
            refused = 0
            for number in range(200):
                status = await self.one(client, number, houses[number % len(houses)])
                refused = refused + 1 if status == 429 else 0
                if refused == PATIENCE * len(houses):
                    return
                if refused and refused % len(houses) == 0:
                    await asyncio.sleep(1)


class _At:
    """The client, with all paths at one process."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def post(self, path: str, **given: object) -> httpx.Response:
        return await self._client.post(f"{self._url}{path}", **given)  # type: ignore[arg-type]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def built(
    tmp_path_factory: pytest.TempPathFactory, postgres: Postgres, redis: RedisServer | None
) -> AsyncIterator[tuple[Town, Billing]]:
    """Four starts take longer than all that the tests ask."""
    async with upstream() as billing:
        town = Town(tmp_path_factory.mktemp("data"), postgres.create(), billing, redis)
        try:
            await town.start()
            yield town, billing
            assert not any([await each.terminate() for each in town.houses if each not in town.gone()])
        finally:
            await end_all()


@pytest_asyncio.fixture(loop_scope="module")
async def town(built: tuple[Town, Billing]) -> Town:
    await built[0].fund()
    return built[0]


@pytest.fixture
def billing(built: tuple[Town, Billing]) -> Billing:
    built[1].calls = built[1].tokens = 0
    return built[1]


async def test_four_processes_use_up_one_budget_and_no_more(town: Town, billing: Billing) -> None:
    statuses = await town.flood()
    assert set(statuses) == {200, 429}
    await town.rest(town.houses)
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    assert billing.calls >= CALLS - 1  # the last may not fit: what is reserved is a little more than what is billed
    total = await spent(town.houses[1], town.owner, billing.tokens * DOLLARS_A_TOKEN, f"key={town.id}")
    assert total["cost"] == pytest.approx(billing.tokens * DOLLARS_A_TOKEN, abs=1e-12)


async def test_one_of_them_is_killed(town: Town, billing: Billing) -> None:
    calls = asyncio.create_task(town.flood())
    async with asyncio.timeout(60):
        while billing.calls < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await town.houses[0].kill()
    assert {429, 200} & set(await calls)
    left = town.houses[1:]
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    await asyncio.sleep(16)  # its heart has stopped, its journal is taken over, and what it had drawn is free again
    await town.rest(left)
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    total = await spent(left[0], town.owner, billing.tokens * DOLLARS_A_TOKEN, f"key={town.id}")
    # What was under way when it died counts with its reservation, which is never less than what it cost.
    assert total["cost"] <= BUDGET + 1e-12
    most = (PROMPT_TOKENS + 100) * DOLLARS_A_TOKEN * 2
    assert total["cost"] >= BUDGET - most, "all of it can be used, but for what a last call would need"


async def until_limits(houses: list[Terrace], told: str) -> None:
    async with asyncio.timeout(60):
        for house in houses:
            async with house.client() as client:
                while told not in (await client.get("/ready")).json()["checks"]["limits"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


@pytest.mark.parametrize("redis", ["redis"], indirect=True)
async def test_redis_is_killed_and_comes_back(town: Town, billing: Billing, redis: RedisServer) -> None:
    calls = asyncio.create_task(town.flood())
    await asyncio.sleep(0.2)
    redis.kill()
    assert set(await calls) <= {200, 429}
    await until_limits(town.houses[:1], "Redis is away")
    redis.start()
    await until_limits(town.houses, "ok: through Redis")
    await town.rest(town.houses)
    assert billing.tokens * DOLLARS_A_TOKEN <= BUDGET
    assert billing.calls >= CALLS - 1
