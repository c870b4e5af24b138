"""Two hundred calls at once against a budget for fifty: whatever fails, breaks or is cancelled, no more is spent."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.accounts.limits_house import ACME, ADA, Bench, demand, in_memory, people
from tests.models.wires import NoRanker

from terrace import settings
from terrace.errors import Invalid, Limited, TerraceError, Unavailable
from terrace.models.base import ChatRequest, Delta, Embeddings, Finish, ModelInfo, TextDelta, Usage
from terrace.models.service import Models, open_models
from terrace.models.tokens import bound_messages
from terrace.models.transport import open_transport
from terrace.storage import Database
from terrace.telemetry.calls import PICODOLLARS

MESSAGES = [{"role": "user", "content": "Say it a hundred times."}]
INPUT = bound_messages(MESSAGES)
ANSWER = 100
CALLS, FITTING = 200, 50
MOST = INPUT + ANSWER  # tokens, at a dollar a million
BUDGET = FITTING * MOST


class Billing:
    """An upstream that counts what it would bill: the input once it begins, then each word as it is made."""

    name = "box"

    def __init__(self, fate: Sequence[str] = ("ok",), seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._fate = fate
        self.billed = 0
        self.begun = 0

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo("box/gpt", "box", "gpt")]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        fate = self._random.choice(self._fate)
        words = request.options["max_tokens"] if fate == "ok" else self._random.randrange(1, ANSWER)
        await asyncio.sleep(0)
        if fate == "refused":
            raise Invalid("No.", code="upstream_refused")
        if fate == "away":
            raise Unavailable("Away.", code="upstream_unreachable")
        self.begun += 1
        self.billed += INPUT
        if fate == "silent":
            raise Unavailable("Late.", code="upstream_timeout")
        for _ in range(words):
            self.billed += 1
            yield TextDelta("x")
            if self._random.random() < 0.05:
                await asyncio.sleep(0)
        if fate == "broke":
            raise Unavailable("Broke.", code="upstream_broke")
        yield Usage(INPUT, words)
        yield Finish()

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        raise Invalid("This provider has no embeddings.")

    async def close(self) -> None: ...


@pytest.fixture
async def bench(database: Database, tmp_path: Path) -> AsyncIterator[Bench]:
    await database.write(people)
    bench = Bench(database, tmp_path, in_memory)
    await bench.open()
    await bench.limits.change(ACME, {"money_per_day": BUDGET * 10**6 / PICODOLLARS, "tokens_per_day": BUDGET}, "x")
    yield bench
    await bench.close()


def opened(bench: Bench, provider: Billing) -> Models:
    chosen = settings.Models(discover=False, retries=0)
    return open_models(chosen, open_transport(chosen), NoRanker(), bench.limits, others=[provider])


async def ask(models: Models, *, patience: float = 0.0, leave_after: int = 1000) -> str:
    """What became of a call; its reader leaves after so many words."""
    request = ChatRequest("box/gpt", MESSAGES, {"max_tokens": ANSWER}, scope=ADA, patience=patience)
    try:
        async with aclosing(models.stream(request)) as answer:
            async for _ in answer:
                leave_after -= 1
                if not leave_after:
                    return "left"
    except TerraceError as error:
        return error.code
    return "ok"


async def settled(bench: Bench) -> tuple[int, int]:
    """(tokens, picodollars) by the limits; the ledger must say the same."""
    await bench.ledger.flush()
    totals = await bench.ledger.totals("2026-11-21")
    tokens, cost = sum(each.tokens for each in totals), sum(each.cost for each in totals)
    shown = {each.name: each.used for each in await bench.limits.show(ACME)}
    assert shown == {"tokens_per_day": tokens, "money_per_day": cost / PICODOLLARS}
    return tokens, cost


async def test_exactly_what_fits_is_served(bench: Bench) -> None:
    provider = Billing()
    models = opened(bench, provider)
    outcomes = await asyncio.gather(*(ask(models) for _ in range(CALLS)))
    assert (outcomes.count("ok"), outcomes.count("limit_reached")) == (FITTING, CALLS - FITTING)
    assert provider.billed == BUDGET
    assert await settled(bench) == (BUDGET, BUDGET * 10**6)
    await models.close()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_no_more_is_spent(bench: Bench, seed: int) -> None:
    provider = Billing(("ok", "ok", "ok", "refused", "away", "silent", "broke"), seed)
    models, dice = opened(bench, provider), random.Random(seed)
    tasks = [
        asyncio.create_task(ask(models, patience=dice.choice([0, 30]), leave_after=dice.choice([5, 50, 500])))
        for _ in range(CALLS)
    ]
    for _ in range(60):
        await asyncio.sleep(0)
        dice.choice(tasks).cancel()
        assert provider.billed <= BUDGET
    results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    tokens, cost = await settled(bench)
    assert provider.billed <= tokens <= BUDGET, "what was billed is covered by what was booked"
    assert cost == tokens * 10**6
    assert "limit_reached" in results
    left = BUDGET - tokens
    for _ in range(left // MOST):  # what is left can be used to the last
        bench.limits.begin(ADA, demand(INPUT, ANSWER))
    with pytest.raises(Limited):
        bench.limits.begin(ADA, demand(INPUT, ANSWER))
    await models.close()


async def test_whoever_waits_is_served_as_long_as_there_is_money(bench: Bench) -> None:
    """Each call uses half of what it reserves: a hundred fit one after the other, fifty of them at once."""

    class Half(Billing):
        async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
            self.billed += MOST // 2
            await asyncio.sleep(0.001)
            yield TextDelta("x")
            yield Usage(MOST // 2, 0)
            yield Finish()

    provider = Half()
    models = opened(bench, provider)
    outcomes = await asyncio.wait_for(asyncio.gather(*(ask(models, patience=30) for _ in range(CALLS))), 60)
    served = outcomes.count("ok")
    assert provider.billed == served * (MOST // 2) <= BUDGET
    assert BUDGET - provider.billed < MOST, "until there was no room for another reservation"
    assert set(outcomes) == {"ok", "limit_reached"}
    await models.close()
