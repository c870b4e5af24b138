"""What a campaign may cost, and what it came to. The model costs a cent a token."""

import asyncio

import pytest
from tests.campaigns.runs.conftest import Open, Town

from terrace.campaigns.runs.base import Options
from terrace.errors import Conflict, Unavailable
from terrace.models.base import Usage
from terrace.telemetry.calls import PICODOLLARS

USED = Usage(40, 10)  # half a dollar
SHORT = Options(max_tokens=16)


async def test_cost_and_tokens_are_what_the_ledger_books(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(10)
    campaign = await town.campaign(model="fake/gpt", options=SHORT)
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.cost, done.input_tokens, done.output_tokens, done.unpriced) == (5.0, 400, 100, 0)
    assert [each.cost for each in await town.messages(done)] == [0.5] * 10
    assert len(town.calls) == 10
    told = [data for type, data in town.emitted.events if type == "campaign.message"]
    assert (len(told), told[0]["cost"], told[0]["state"]) == (10, 0.5, "done")
    [end] = [data for type, data in town.emitted.events if type == "campaign.finished"]
    assert (end["done"], end["cost"]) == (10, 5.0)


async def test_what_nobody_knows_the_price_of_is_counted_apart(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(3)
    campaign = await town.campaign(model="fake/odd")
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.cost, done.unpriced, done.input_tokens) == (0.0, 3, 120)


async def test_a_budget_holds_with_two_hundred_at_a_time(open_town: Open) -> None:
    town = await open_town([0.001, "Hello.", USED], tenant_cap=400, io_slots=400)
    await town.contacts(300)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, concurrency=200, budget=60.0)
    await town.campaigns.start(town.scope, campaign.id)
    paused = await town.over(campaign, "paused")
    assert paused.reason is not None
    assert paused.reason.code == "budget_exhausted"
    spent = sum(call.usage.input_tokens + call.usage.output_tokens for call in town.calls if call.usage) / 100
    assert spent == paused.cost == 0.5 * paused.counts.done
    assert 0 < paused.cost <= 60.0
    assert paused.counts.failed == 0
    before = paused.counts.done
    assert (await town.campaigns.start(town.scope, campaign.id)).state == "paused"
    await town.campaigns.change(town.scope, campaign.id, {"budget": 10_000.0})
    await town.campaigns.resume(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.counts.done, done.cost) == (300, 150.0)
    assert len(town.model.requests) == 300 > before


async def test_too_small_a_budget_asks_nothing(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(5)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=0.01)
    await town.campaigns.start(town.scope, campaign.id)
    paused = await town.over(campaign, "paused")
    assert (paused.counts.waiting, town.model.requests) == (5, [])


async def test_failed_attempts_that_cost_are_counted(open_town: Open) -> None:
    broke = Unavailable("It broke off.", code="upstream_broke")
    town = await open_town(["Hel", broke], ["Hello.", USED])
    await town.contacts(1)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=100.0)
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert done.counts.done == 1
    booked = sum(call.usage.input_tokens + call.usage.output_tokens for call in town.calls if call.usage)
    assert done.cost == booked / 100 > 0.5


async def test_what_was_broken_off_is_counted_as_the_ledger_does(open_town: Open) -> None:
    begun = asyncio.Event()

    async def begin() -> None:
        begun.set()
        await asyncio.Event().wait()

    town = await open_town(["Hel", begin])
    await town.contacts(1)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=1000.0)
    await town.campaigns.start(town.scope, campaign.id)
    await asyncio.wait_for(begun.wait(), 30)
    await town.campaigns.cancel(town.scope, campaign.id)
    over = await town.over(campaign, "cancelled")
    booked = sum(call.usage.input_tokens + call.usage.output_tokens for call in town.calls if call.usage)
    assert over.cost == booked / 100 > 0


async def test_a_limit_of_the_tenant_pauses_it(open_town: Open) -> None:
    from terrace.accounts.limits.base import Subject

    town = await open_town(["Hello.", USED])
    await town.contacts(5)
    await town.limits.change(Subject(town.scope.tenant), {"money_per_day": 0.001}, "local")
    campaign = await town.campaign(model="fake/gpt", options=SHORT)
    await town.campaigns.start(town.scope, campaign.id)
    paused = await town.over(campaign, "paused")
    assert paused.reason is not None
    assert paused.reason.code == "limit_reached"
    assert (paused.counts.waiting, paused.counts.failed) == (5, 0)


async def test_a_budget_is_lowered_only_while_nothing_is_written(open_town: Open) -> None:
    gate = asyncio.Event()
    town = await open_town([gate.wait, "Hello.", USED])
    await town.contacts(2)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=50.0)
    await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(2)
    with pytest.raises(Conflict, match="Pause the campaign"):
        await town.campaigns.change(town.scope, campaign.id, {"budget": 1.0})
    assert (await town.campaigns.change(town.scope, campaign.id, {"budget": 60.0})).budget == 60.0
    gate.set()
    await town.over(campaign)


# -- previews


async def test_a_preview_is_written_and_tells_what_all_may_cost(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(40)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=100.0)
    job = await town.campaigns.preview(town.scope, campaign.id)
    shown, _ = await town.campaigns.previewed(town.scope, campaign.id, job, 20)
    assert [each["text"] for each in shown.preview["messages"]] == ["Hello."] * 5
    assert shown.preview["estimate"] == {
        "messages": 40, "known": True, "low": 20.0, "high": 20.0,
        "ceiling": shown.preview["estimate"]["ceiling"], "basis": "messages", "price_dated": "2026-11-21",
    }  # fmt: skip
    assert shown.preview["estimate"]["ceiling"] >= 20.0
    assert (shown.cost, shown.state, shown.counts.total) == (2.5, "draft", 0)


async def test_a_dry_preview_asks_no_model(open_town: Open) -> None:
    town = await open_town()
    await town.contacts(8)
    campaign = await town.campaign(model="fake/gpt", options=SHORT)
    job = await town.campaigns.preview(town.scope, campaign.id, count=3, dry=True)
    shown, _ = await town.campaigns.previewed(town.scope, campaign.id, job, 20)
    assert town.model.requests == []
    assert len(shown.preview["messages"]) == 3
    assert "Person" in shown.preview["messages"][0]["prompt"]
    estimate = shown.preview["estimate"]
    assert estimate["basis"] == "prompts"
    assert 0 < estimate["low"] < estimate["high"] <= estimate["ceiling"]


async def test_nothing_prepared_tells_no_cost_and_blames_no_price(open_town: Open) -> None:
    town = await open_town()
    await town.contacts(2)
    campaign = await town.campaign("Write to {{contact.surname}}.", model="fake/gpt")
    job = await town.campaigns.preview(town.scope, campaign.id)
    shown, _ = await town.campaigns.previewed(town.scope, campaign.id, job, 20)
    assert all(each["error"] for each in shown.preview["messages"])
    assert (shown.preview["estimate"]["known"], shown.preview["estimate"]["basis"]) == (False, "nothing")


async def test_an_unknown_price_is_said(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(2)
    campaign = await town.campaign(model="fake/odd")
    job = await town.campaigns.preview(town.scope, campaign.id)
    shown, _ = await town.campaigns.previewed(town.scope, campaign.id, job, 20)
    assert (shown.preview["estimate"]["known"], shown.preview["estimate"]["high"]) == (False, None)
    assert (shown.unpriced, shown.preview["messages"][0]["unpriced"]) == (2, 1)


async def test_a_preview_keeps_to_the_budget_and_shows_failures(open_town: Open) -> None:
    town = await open_town(["Hello.", USED])
    await town.contacts(5)
    campaign = await town.campaign(model="fake/gpt", options=SHORT, budget=0.02)
    job = await town.campaigns.preview(town.scope, campaign.id)
    shown, _ = await town.campaigns.previewed(town.scope, campaign.id, job, 20)
    assert {each["error"]["code"] for each in shown.preview["messages"]} == {"budget_exhausted"}
    assert (shown.cost, town.model.requests) == (0.0, [])


async def test_money_is_exact(town: Town) -> None:
    assert PICODOLLARS * 1_000_000 < 2**63  # the largest budget in whole picodollars fits a column
