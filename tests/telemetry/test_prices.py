"""What a token costs: shipped and dated, an operator's own before it, unknown when nobody knows."""

import asyncio
import math
import tomllib
from collections.abc import AsyncIterator, Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Invalid, Missing
from terrace.storage import Database
from terrace.telemetry import prices as module
from terrace.telemetry.calls import PICODOLLARS, Usage
from terrace.telemetry.prices import FREE, TABLE, Price, Prices, cost


@pytest.fixture
async def prices(database: Database) -> AsyncIterator[Prices]:
    prices = Prices(database)
    await prices.load()
    yield prices
    await prices.close()


def test_the_shipped_table_is_sound() -> None:
    vendors = tomllib.loads(TABLE.read_text("utf-8"))
    assert {"openai", "anthropic", "google", "mistral", "deepseek", "groq", "cohere", "xai"} <= set(vendors)
    for vendor, about in vendors.items():
        assert set(about) == {"anywhere", "dated", "models"}, vendor
        for model, told in about["models"].items():
            date.fromisoformat(told.get("dated", about["dated"]))
            assert {"input", "output"} <= set(told) <= {"input", "cached", "output", "dated"}, model
            assert 0 < told["input"] <= 500, model
            assert 0 < told.get("cached", told["input"]) <= told["input"], model
            assert told["output"] == 0 or told["output"] >= told["input"], model


@pytest.mark.parametrize(
    ("kind", "provider", "model", "expected"),
    [
        ("openai", "openai", "gpt-4o", (2_500_000, 1_250_000, 10_000_000)),
        ("openai", "openai", "gpt-4o-2024-11-20", (2_500_000, 1_250_000, 10_000_000)),
        ("openai", "openai", "gpt-4o-2024-05-13", (5_000_000, 5_000_000, 15_000_000)),
        ("openai", "work", "gpt-4o-mini", (150_000, 75_000, 600_000)),
        ("openai", "openrouter", "openai/gpt-4o", (2_500_000, 1_250_000, 10_000_000)),
        ("openai", "gemini", "models/gemini-2.0-flash-001", (100_000, 25_000, 400_000)),
        ("anthropic", "anthropic", "claude-sonnet-4-5-20250929", (3_000_000, 300_000, 15_000_000)),
        ("anthropic", "anthropic", "claude-3-5-haiku-latest", (800_000, 80_000, 4_000_000)),
        ("openai", "openai", "text-embedding-3-small", (20_000, 20_000, 0)),
        ("openai", "groq", "llama-3.1-8b-instant", (50_000, 50_000, 80_000)),
        ("openai", "vllm", "llama-3.1-8b-instant", None),  # whoever serves these weights asks what they like
        ("openai", "openai", "ft:gpt-4o-mini-2024-07-18:acme::1", None),
        ("openai", "openai", "gpt-99", None),
        ("openai", "openai", "", None),
        ("ollama", "ollama", "llama3", (0, 0, 0)),
        ("llamacpp", "gguf", "gpt-4o", (0, 0, 0)),
        ("quote", "builtin", "quote", (0, 0, 0)),
    ],
)
async def test_which_price_a_model_has(
    prices: Prices, kind: str, provider: str, model: str, expected: tuple[int, int, int] | None
) -> None:
    for _ in range(2):  # looked up, then remembered
        price = prices.of(kind, provider, model)
        assert (price and (price.input, price.cached, price.output)) == expected


async def test_an_operators_price_wins_at_once(prices: Prices, database: Database) -> None:
    assert prices.of("openai", "openai", "gpt-4o") != FREE
    shown = await prices.set("gpt-4o", input=1.5, output=2, by="usr_ada")
    assert (shown.input, shown.cached, shown.output, shown.source) == (1.5, 1.5, 2.0, "set")
    assert prices.of("openai", "openai", "gpt-4o-2024-11-20") == Price(1_500_000, 1_500_000, 2_000_000, shown.dated)
    await prices.set("openai/gpt-4o", input=0.000001, output=0, cached=0, by="usr_ada")
    exact = prices.of("openai", "openai", "gpt-4o")
    assert exact is not None
    assert (exact.input, exact.cached, exact.output) == (1, 0, 0)
    assert (prices.of("openai", "other", "gpt-4o") or FREE).input == 1_500_000
    await prices.set("ollama/llama3", input=1, output=1, by="usr_ada")  # a machine has its price too
    assert (prices.of("ollama", "ollama", "llama3") or FREE).input == 1_000_000
    again = Prices(database)
    await again.load()
    assert again.of("openai", "openai", "gpt-4o") == exact
    await again.close()


async def test_a_price_removed_gives_way_to_the_shipped_one(prices: Prices) -> None:
    shipped = prices.of("openai", "openai", "gpt-4o")
    await prices.set("gpt-4o", input=1, output=1, by="usr_ada")
    await prices.remove("gpt-4o")
    assert prices.of("openai", "openai", "gpt-4o") == shipped
    with pytest.raises(Missing):
        await prices.remove("gpt-4o")


async def test_the_list_says_where_a_price_is_from(prices: Prices) -> None:
    await prices.set("openai/gpt-4o", input=1, output=1, by="usr_ada")
    await prices.set("acme/own", input=0.25, output=0.5, cached=0.1, by="usr_ada")
    listed = {each.model: each for each in prices.list()}
    assert listed["openai/gpt-4o"].source == listed["acme/own"].source == "set"
    assert (listed["acme/own"].input, listed["acme/own"].cached, listed["acme/own"].output) == (0.25, 0.1, 0.5)
    mini = listed["openai/gpt-4o-mini"]
    assert (mini.input, mini.cached, mini.output, mini.source) == (0.15, 0.075, 0.6, "shipped")
    date.fromisoformat(mini.dated)
    assert list(listed) == sorted(listed)


@pytest.mark.parametrize("dollars", [-1, math.nan, math.inf, 0.0000001, 1_000_000, 1.2345678])
async def test_a_price_nobody_can_mean_is_refused(prices: Prices, dollars: float) -> None:
    with pytest.raises(Invalid) as refused:
        await prices.set("acme/own", input=dollars, output=1, by="usr_ada")
    assert refused.value.code == "bad_price"


@pytest.mark.parametrize("model", ["", "x" * 301, "a\0b", " a", "a\n"])
async def test_a_name_nobody_can_mean_is_refused(prices: Prices, model: str) -> None:
    with pytest.raises(Invalid) as refused:
        await prices.set(model, input=1, output=1, by="usr_ada")
    assert refused.value.code == "bad_model_name"


async def test_what_belongs_to_a_change_is_all_or_nothing(prices: Prices) -> None:
    seen = []
    await prices.set("acme/own", input=1, output=1, by="usr_ada", also=lambda session: seen.append("set"))

    def refuse(session: object) -> None:
        raise Invalid("no")

    with pytest.raises(Invalid):
        await prices.set("acme/own", input=2, output=2, by="usr_ada", also=refuse)
    with pytest.raises(Invalid):
        await prices.remove("acme/own", also=refuse)
    assert seen == ["set"]
    assert (prices.of("openai", "acme", "own") or FREE).input == 1_000_000


@pytest.mark.both
async def test_what_another_process_sets_is_seen(prices: Prices, elsewhere: Callable[[], Database]) -> None:
    database = elsewhere()
    other = Prices(database)
    assert prices.of("openai", "acme", "own") is None
    await other.set("acme/own", input=1, output=1, by="usr_ada")
    async with asyncio.timeout(20):
        while prices.of("openai", "acme", "own") is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await database.close()


async def test_names_that_clients_make_up_do_not_pile_up(prices: Prices) -> None:
    for number in range(module.REMEMBERED + 10):
        prices.of("openai", "openai", f"made-up-{number}")
    assert prices.of("openai", "openai", "gpt-4o") is not None
    assert len(prices._found) <= module.REMEMBERED


def test_cached_tokens_are_some_of_the_input_tokens() -> None:
    price = Price(2_500_000, 1_250_000, 10_000_000, "2026-11-21")
    assert cost(price, Usage(1000, 100)) == 1000 * 2_500_000 + 100 * 10_000_000
    assert cost(price, Usage(1000, 100, 400)) == 600 * 2_500_000 + 400 * 1_250_000 + 100 * 10_000_000
    assert cost(price, Usage(10, 0, 400)) == 10 * 1_250_000  # a provider that contradicts itself
    assert cost(price, Usage(400_000, 0)) == PICODOLLARS  # a million tokens are $2.50


@given(st.decimals(0, 100_000, places=6), st.integers(0, 10**9))
def test_costs_are_exact(dollars: object, tokens: int) -> None:
    price = module._picodollars("input", dollars)  # type: ignore[arg-type]
    assert cost(Price(price, price, 0, ""), Usage(tokens, 0)) == tokens * int(dollars * 10**6)  # type: ignore[operator]
