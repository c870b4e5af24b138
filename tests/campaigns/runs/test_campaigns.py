"""From a draft to its last message."""

import asyncio
from dataclasses import replace

import pytest
from sqlmodel import Session
from tests.campaigns.runs.conftest import Open, Town

from terrace.campaigns.contacts import store as contacts
from terrace.campaigns.runs.base import Options, Wanted
from terrace.errors import Conflict, Denied, Invalid, Missing, Unavailable
from terrace.types import Scope, now


@pytest.mark.both
async def test_every_contact_has_one_message(town: Town) -> None:
    await town.contacts(45)
    campaign = await town.campaign()
    assert (campaign.state, campaign.counts.total) == ("draft", 0)
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.counts.total, done.counts.done, done.counts.waiting) == (45, 45, 0)
    messages = await town.messages(done)
    assert sorted(each.contact.name for each in messages) == sorted(f"Person {n}" for n in range(45))
    assert all(each.text and each.contact.name in each.text and each.model == "fake/free" for each in messages)
    assert len(town.model.requests) == 45
    job = await town.jobs.wait(town.scope, done.job_id, 30)
    assert job.state == "succeeded"
    assert job.result == {"campaign_id": done.id, "total": 45, "done": 45, "failed": 0, "skipped": 0, "cost": 0.0}
    assert job.children == {"succeeded": 45}


async def test_no_more_are_written_at_a_time_than_it_says(open_town: Open) -> None:
    gate = asyncio.Event()
    town = await open_town([gate.wait, "Hello."])
    await town.contacts(30)
    campaign = await town.campaign(concurrency=7)
    await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(7)
    await asyncio.sleep(0.05)
    assert town.model.running == 7
    assert (await town.campaigns.get(town.scope, campaign.id)).counts.writing == 7
    gate.set()
    assert (await town.over(campaign)).counts.done == 30


async def test_filling_asks_no_model(town: Town) -> None:
    await town.contacts(3, city="Town {n}")
    campaign = await town.campaign(
        'Dear {{contact.name}} of {{contact.city}}, {{contact.gift | default: "hello"}}!', "fill"
    )
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert {each.text for each in await town.messages(done)} == {
        f"Dear Person {n} of Town {n}, hello!" for n in range(3)
    }
    assert town.model.requests == []


async def test_started_twice_or_made_twice_there_is_one_set(town: Town) -> None:
    await town.contacts(25)
    template = await town.template()
    wanted = Wanted(list="Clients", template=template, model="fake/free")
    first, second = await asyncio.gather(*(town.campaigns.create(town.scope, wanted, "k") for _ in range(2)))
    assert first.id == second.id
    await asyncio.gather(*(town.campaigns.start(town.scope, first.id) for _ in range(5)))
    await town.over(first)
    await town.campaigns.start(town.scope, first.id)
    done = await town.over(first)
    assert done.counts.total == len(town.model.requests) == 25
    with pytest.raises(Conflict, match="different campaign"):
        await town.campaigns.create(town.scope, Wanted(list="Clients", template=template, name="Other"), "k")
    assert (await town.campaigns.create(town.scope, wanted)).id != first.id


async def test_what_contacts_lack_is_told_before_anything_is_asked(town: Town) -> None:
    await town.contacts(20, plan="gold")
    await town.contacts(3)
    campaign = await town.campaign("Thank {{contact.name}} for {{contact.plan}}.")
    with pytest.raises(Invalid, match=r"3 of 23 contacts have no `contact.plan`, such as Person 20") as told:
        await town.campaigns.start(town.scope, campaign.id)
    [placeholder] = told.value.extra["placeholders"]  # type: ignore[misc]
    assert (placeholder["lacking"], len(placeholder["examples"])) == (3, 3)
    assert (await town.campaigns.get(town.scope, campaign.id)).state == "draft"
    coverage = await town.campaigns.coverage(town.scope, campaign.id)
    assert [(each.name, each.lacking, each.covered) for each in coverage.placeholders] == [
        ("contact.name", 0, True), ("contact.plan", 3, False),
    ]  # fmt: skip
    assert town.model.requests == []
    await town.campaigns.change(town.scope, campaign.id, {"options": {"incomplete": "skip"}})
    await town.campaigns.start(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.counts.done, done.counts.skipped, len(town.model.requests)) == (20, 3, 20)
    skipped = await town.messages(done, state="skipped")
    assert {each.error.message for each in skipped if each.error} == {"This contact has no `plan`."}


async def test_nobody_to_write_to(town: Town) -> None:
    await town.contacts(1)
    await town.database.write(lambda session: contacts.ensure_list(session, town.scope, "Empty"))
    campaign = await town.campaign(list="Empty")
    with pytest.raises(Invalid, match="nobody in this list"):
        await town.campaigns.start(town.scope, campaign.id)


async def test_who_comes_later_is_not_in_it_and_who_is_deleted_is_skipped(open_town: Open) -> None:
    gate = asyncio.Event()
    town = await open_town([gate.wait, "Hello."])
    ids = await town.contacts(10)
    campaign = await town.campaign(concurrency=2)
    await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(2)
    await town.contacts(5)

    def leave(session: Session) -> None:
        for each in ids[-3:]:
            contacts.remove(session, town.scope, each)

    await town.database.write(leave)
    gate.set()
    done = await town.over(campaign)
    assert (done.counts.total, done.counts.done, done.counts.skipped) == (10, 7, 3)
    [*gone] = await town.messages(done, state="skipped")
    assert {each.error.code for each in gone if each.error} == {"contact_deleted"}


async def test_it_is_paused_and_goes_on(open_town: Open) -> None:
    gate = asyncio.Event()
    town = await open_town([gate.wait, "Hello."])
    await town.contacts(40)
    campaign = await town.campaign(concurrency=5)
    await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(5)
    paused = await town.campaigns.pause(town.scope, campaign.id)
    assert (paused.state, paused.counts.writing) == ("paused", 5)
    gate.set()
    paused = await town.over(campaign, "paused")
    assert (paused.counts.done, paused.counts.waiting) == (5, 35)  # running ones finish, no other begins
    assert (await town.jobs.wait(town.scope, paused.job_id, 30)).state == "succeeded"
    assert (await town.campaigns.pause(town.scope, campaign.id)).state == "paused"
    await asyncio.gather(*(town.campaigns.resume(town.scope, campaign.id) for _ in range(4)))
    done = await town.over(campaign)
    assert (done.counts.done, len(town.model.requests)) == (40, 40)


async def test_pausing_and_resuming_in_any_order_loses_nothing(open_town: Open) -> None:
    town = await open_town([0.002, "Hello."])
    await town.contacts(120)
    campaign = await town.campaign(concurrency=10)
    await town.campaigns.start(town.scope, campaign.id)
    for number in range(30):
        turn = town.campaigns.pause if number % 2 else town.campaigns.resume
        try:
            await turn(town.scope, campaign.id)
        except Conflict:
            break  # it had finished
        await asyncio.sleep(0.003)
    if (await town.campaigns.get(town.scope, campaign.id)).state == "paused":
        await town.campaigns.resume(town.scope, campaign.id)
    done = await town.over(campaign)
    assert (done.counts.done, len(town.model.requests)) == (120, 120)


async def test_it_is_cancelled_for_good(open_town: Open) -> None:
    town = await open_town([asyncio.Event().wait])
    await town.contacts(12)
    campaign = await town.campaign(concurrency=4)
    await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(4)
    await town.campaigns.cancel(town.scope, campaign.id)
    over = await town.over(campaign, "cancelled")
    assert (over.counts.done, over.counts.waiting, town.model.running) == (0, 12, 0)
    assert (await town.jobs.wait(town.scope, over.job_id, 30)).state == "cancelled"
    for act in (town.campaigns.start, town.campaigns.resume, town.campaigns.pause, town.campaigns.retry):
        with pytest.raises(Conflict):
            await act(town.scope, campaign.id)
    assert (await town.campaigns.cancel(town.scope, campaign.id)).state == "cancelled"
    await town.campaigns.delete(town.scope, campaign.id)
    with pytest.raises(Missing):
        await town.campaigns.get(town.scope, campaign.id)


async def test_stopping_its_job_cancels_it(open_town: Open) -> None:
    town = await open_town([asyncio.Event().wait])
    await town.contacts(5)
    campaign = await town.campaign(concurrency=2)
    started = await town.campaigns.start(town.scope, campaign.id)
    await town.at_work(2)
    await town.jobs.cancel(town.scope, started.job_id)
    assert (await town.over(campaign, "cancelled")).counts.waiting == 5
    with pytest.raises(Conflict, match="at its campaign"):
        await town.jobs.retry(town.scope, started.job_id)


async def test_what_failed_is_tried_again_when_asked(open_town: Open) -> None:
    down = Unavailable("The model is away.", code="upstream_error")
    town = await open_town(*[[down]] * 10, ["Hello."])
    await town.contacts(5)
    campaign = await town.campaign()
    await town.campaigns.start(town.scope, campaign.id)
    over = await town.over(campaign)
    assert (over.counts.failed, over.counts.done) == (5, 0)  # two attempts each
    [*failed] = await town.messages(over, state="failed")
    assert {each.error.message for each in failed if each.error} == {"The model is away."}
    await asyncio.gather(*(town.campaigns.retry(town.scope, campaign.id) for _ in range(3)))
    done = await town.over(campaign)
    assert (done.counts.failed, done.counts.done, len(town.model.requests)) == (0, 5, 15)


@pytest.mark.both
async def test_a_campaign_that_only_fails_waits_for_a_person(open_town: Open) -> None:
    town = await open_town([Invalid("The upstream refuses this.", code="upstream_refused")])
    await town.contacts(100)  # a page to the last row: the next one has nobody
    campaign = await town.campaign(concurrency=5)
    await town.campaigns.start(town.scope, campaign.id)
    paused = await town.over(campaign, "paused")
    assert 20 <= paused.counts.failed < 30
    assert paused.reason is not None
    assert paused.reason.code == "failing"
    assert "The upstream refuses this." in paused.reason.message


async def test_it_starts_when_it_was_told_to(town: Town) -> None:
    await town.contacts(2)
    at = now() + 0.3
    campaign = await town.campaign(start_at=at)
    started = await town.campaigns.start(town.scope, campaign.id)
    assert (await town.campaigns.start(town.scope, campaign.id)).job_id == started.job_id
    done = await town.over(campaign)
    assert done.counts.done == 2
    assert done.started_at is not None
    assert done.started_at.timestamp() > at - 0.01


async def test_before_its_time_it_can_be_cancelled(town: Town) -> None:
    await town.contacts(2)
    campaign = await town.campaign(start_at=now() + 3600)
    assert (await town.campaigns.start(town.scope, campaign.id)).state == "scheduled"
    await town.campaigns.cancel(town.scope, campaign.id)
    assert (await town.over(campaign, "cancelled")).counts.total == 0


async def test_others_do_not_have_it(town: Town, other: Scope) -> None:
    await town.contacts(2)
    campaign = await town.campaign()
    acts = town.campaigns
    for act in (acts.get, acts.start, acts.pause, acts.resume, acts.cancel, acts.retry, acts.delete, acts.preview,
                acts.approve_all, acts.messages, acts.coverage):  # fmt: skip
        with pytest.raises(Missing):
            await act(other, campaign.id)
    assert await acts.list(other) == ([], None)
    with pytest.raises(Missing):
        await acts.create(other, Wanted(list="Clients", template=campaign.template_id, model="fake/free"))


async def test_a_campaign_of_others_is_no_way_to_a_model_that_one_may_not_use(town: Town) -> None:
    await town.contacts(2)
    campaign = await town.campaign()
    [*_, template] = (await town.opened.templates.list(town.scope))[0]
    held, acts = replace(town.scope, models=(frozenset({"fake/odd"}),)), town.campaigns
    for act in (acts.start, acts.preview, acts.resume, acts.retry):
        with pytest.raises(Denied):
            await act(held, campaign.id)
    with pytest.raises(Denied):
        await acts.change(held, campaign.id, {"template": template.id})
    with pytest.raises(Denied):
        await acts.regenerate(held, campaign.id, "msg_1")
    assert town.model.requests == []
    filled = await town.campaign("Dear {{contact.name}}", mode="fill")  # asks none
    await acts.start(held, filled.id)
    await town.over(filled)


@pytest.mark.parametrize(
    "wanted",
    [
        {"concurrency": 0}, {"concurrency": 5000}, {"budget": -1.0}, {"budget": float("nan")}, {"budget": 1e12},
        {"name": "x" * 300}, {"options": Options(max_tokens=1)}, {"options": Options(temperature=9)},
        {"start_at": 1.0}, {"model": "fake/odd", "budget": 1.0},
    ],
)  # fmt: skip
async def test_bad_campaigns_are_refused(town: Town, wanted: dict[str, object]) -> None:
    await town.contacts(1)
    with pytest.raises(Invalid):
        await town.campaign(**wanted)


async def test_after_the_start_its_making_is_fixed(town: Town) -> None:
    await town.contacts(1)
    campaign = await town.campaign()
    await town.campaigns.start(town.scope, campaign.id)
    await town.over(campaign)
    with pytest.raises(Conflict, match="not model"):
        await town.campaigns.change(town.scope, campaign.id, {"model": "fake/gpt"})
    assert (await town.campaigns.change(town.scope, campaign.id, {"name": "New"})).name == "New"
