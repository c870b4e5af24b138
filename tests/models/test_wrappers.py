"""Each wrapper alone, around the fake provider."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from terrace.errors import Invalid, Limited, Missing, TerraceError, Unavailable
from terrace.models.base import Call, ChatRequest, Delta, Demand, Finish, Provider, TextDelta, Usage
from terrace.models.providers.fake import Fake, Step
from terrace.models.tokens import bound_messages
from terrace.models.wrappers import Bounded, Choice, Fallback, Gate, Metered, Retry, Timeouts
from terrace.models.wrappers import Limited as GateLimited
from terrace.models.wrappers.metered import JOB_PATIENCE
from terrace.types import Scope

HELLO = ChatRequest("echo", [{"role": "user", "content": "hello"}], scope=Scope("acme"))


class Meter:
    """Lets everything pass, with `bound` as the longest answer; remembers what was asked and what came of it."""

    def __init__(self, bound: int | None = None) -> None:
        self.calls: list[Call] = []
        self.asked: list[tuple[Scope, Demand, float]] = []
        self.output_tokens = bound
        self.answer_tokens = bound or 0

    def begin(self, scope: Scope, demand: Demand) -> "Meter":
        self.asked.append((scope, demand, 0))
        return self

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> "Meter":
        self.asked.append((scope, demand, patience))
        return self

    def end(self, call: Call) -> None:
        self.calls.append(call)


class NoMeter:
    def begin(self, scope: Scope, demand: Demand) -> Meter:
        raise Limited("No room.", code="limit_reached")

    async def wait(self, scope: Scope, demand: Demand, patience: float) -> Meter:
        return self.begin(scope, demand)


def away(code: str = "upstream_unreachable", after: float | None = None) -> Unavailable:
    return Unavailable("It is away.", code=code, retry_after=after)


async def collect(provider: Provider | Fallback, request: ChatRequest = HELLO) -> list[Delta]:
    async with aclosing(provider.stream(request)) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


# Retry


async def test_a_call_that_could_not_begin_is_repeated() -> None:
    fake = Fake(scripts=[[away()], [away("upstream_broke")], ["yes"]])
    assert text(await collect(Retry(fake, 2, first_pause=0.001))) == "yes"
    assert len(fake.requests) == 3


async def test_not_more_often_than_told() -> None:
    fake = Fake(scripts=[[away()]])
    with pytest.raises(Unavailable):
        await collect(Retry(fake, 2, first_pause=0.001))
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    "error",
    [
        Invalid("No."),
        away("upstream_denied"),
        away("upstream_timeout"),
        away("upstream_busy"),
        away("upstream_error", after=60),
        Limited("Later.", code="upstream_limited", retry_after=60),
    ],
    ids=lambda error: f"{error.code}-{error.retry_after}",
)
async def test_what_would_fail_again_is_not_repeated(error: TerraceError) -> None:
    fake = Fake(scripts=[[error], ["yes"]])
    with pytest.raises(type(error)):
        await collect(Retry(fake, 2, first_pause=0.001))
    assert len(fake.requests) == 1


async def test_the_pause_an_upstream_asks_for_is_kept() -> None:
    fake = Fake(scripts=[[Limited("Later.", code="upstream_limited", retry_after=0.05)], ["yes"]])
    started = asyncio.get_running_loop().time()
    assert text(await collect(Retry(fake, 1, first_pause=0))) == "yes"
    assert asyncio.get_running_loop().time() - started >= 0.05


async def test_nothing_is_repeated_once_an_answer_began() -> None:
    fake = Fake(scripts=[["half", away("upstream_broke")], ["whole"]])
    with pytest.raises(Unavailable):
        await collect(Retry(fake, 2, first_pause=0.001))
    assert len(fake.requests) == 1


# Fallback


async def test_another_model_answers_when_the_first_cannot() -> None:
    first, second = Fake("a", [[away()]]), Fake("b", [["from b"]])
    heard: list[str] = []
    chain = Fallback([Choice("a/x", first, "x"), Choice("b/y", second, "y")], heard.append)
    assert text(await collect(chain)) == "from b"
    assert heard == ["a/x", "b/y"]
    assert second.requests[0].model == "y"


@pytest.mark.parametrize("error", [away("upstream_busy"), Limited("Later."), Missing("No such model.")])
async def test_being_busy_limited_or_gone_moves_on_too(error: TerraceError) -> None:
    chain = Fallback([Choice("a/x", Fake("a", [[error]]), "x"), Choice("b/y", Fake("b", [["b"]]), "y")], [].append)
    assert text(await collect(chain)) == "b"


async def test_a_wrong_request_does_not_move_on() -> None:
    second = Fake("b")
    chain = Fallback([Choice("a/x", Fake("a", [[Invalid("No.")]]), "x"), Choice("b/y", second, "y")], [].append)
    with pytest.raises(Invalid):
        await collect(chain)
    assert second.requests == []


async def test_an_answer_that_began_is_not_answered_by_another() -> None:
    second = Fake("b")
    first = Fake("a", [["half", away("upstream_broke")]])
    with pytest.raises(Unavailable):
        await collect(Fallback([Choice("a/x", first, "x"), Choice("b/y", second, "y")], [].append))
    assert second.requests == []


async def test_when_all_fail_the_first_ones_error_is_told() -> None:
    chain = Fallback(
        [Choice("a/x", Fake("a", [[away("upstream_denied")]]), "x"), Choice("b/y", Fake("b", [[away()]]), "y")],
        [].append,
    )
    with pytest.raises(Unavailable) as caught:
        await collect(chain)
    assert caught.value.code == "upstream_denied"


# Timeouts


@pytest.mark.parametrize(
    ("script", "bounds", "code"),
    [
        ([5.0, "late"], (0.02, 9, 9), "upstream_timeout"),
        (["a", 5.0, "late"], (9, 0.02, 9), "upstream_stalled"),
        (["a", 0.03, "b", 0.03, "c", 5.0], (9, 9, 0.08), "upstream_timeout"),
    ],
    ids=["first", "idle", "total"],
)
async def test_no_wait_is_endless(script: list[object], bounds: tuple[float, float, float], code: str) -> None:
    fake = Fake(scripts=[script])  # type: ignore[list-item]
    with pytest.raises(Unavailable) as caught:
        await collect(Timeouts(fake, *bounds))
    assert caught.value.code == code
    assert "`fake`" in caught.value.message
    assert fake.running == 0


async def test_a_slow_reader_is_not_the_upstreams_fault() -> None:
    seen = []
    async for delta in Timeouts(Fake(scripts=[["a", "b"]]), 0.05, 0.05, 0.05).stream(HELLO):
        await asyncio.sleep(0.06)
        seen.append(delta)
    assert isinstance(seen[-1], Finish)


async def test_a_silence_is_noticed_after_a_slow_reader_and_before_others_cancel() -> None:
    slow = Timeouts(Fake(scripts=[["a", "b", 5.0, "late"]]), 9, 0.05, 9).stream(HELLO)
    assert await anext(slow) == TextDelta("a")
    await asyncio.sleep(0.12)  # longer than the silence allowed
    assert await anext(slow) == TextDelta("b")
    with pytest.raises(Unavailable) as caught:
        await anext(slow)
    assert caught.value.code == "upstream_stalled"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_is_raised_in_place_of_the_cancellation_is_raised_and_leaves_none_behind() -> None:
    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise away("upstream_broke") from None

    with pytest.raises(Unavailable) as caught:
        await collect(Timeouts(Fake(scripts=[["a", stubborn]]), 9, 0.02, 9))
    assert caught.value.code == "upstream_broke"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_who_cancels_is_not_told_of_a_timeout() -> None:
    fake = Fake(scripts=[["a", 5.0]])
    task = asyncio.create_task(collect(Timeouts(fake, 9, 9, 9)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert fake.running == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await collect(Timeouts(Fake(scripts=[[5.0]]), 9, 9, 9))


# Bounded


async def test_an_answer_that_never_ends_is_cut_and_says_so() -> None:
    fake = Fake(scripts=[["x" * 40] * 1000])
    deltas = await collect(Bounded(fake, 100))
    assert text(deltas) == "x" * 80
    assert isinstance(deltas[-2], Usage)
    assert deltas[-2].estimated
    assert deltas[-1] == Finish("length")
    assert fake.left == 1


async def test_an_answer_of_the_very_size_is_whole() -> None:
    deltas = await collect(Bounded(Fake(scripts=[["é" * 50, Usage(1, 2)]]), 100))
    assert text(deltas) == "é" * 50
    assert deltas[-2:] == [Usage(1, 2), Finish("stop")]


# Metered


def metered(fake: Fake, meter: Meter, *, gate: Gate | None = None) -> Metered:
    return Metered(GateLimited(fake, gate or Gate("fake", 10, 0, 1)), meter, "fake")


async def test_a_good_call_leaves_one_record() -> None:
    meter = Meter()
    await collect(metered(Fake(scripts=[["a", "b", Usage(4, 2)]]), meter))
    (call,) = meter.calls
    assert (call.provider, call.model, call.operation, call.tenant) == ("fake", "echo", "chat", "acme")
    assert (call.outcome, call.code, call.usage) == ("ok", "", Usage(4, 2))
    assert call.first_token is not None
    assert 0 <= call.first_token <= call.duration


async def test_the_meter_is_asked_first_and_for_the_most() -> None:
    meter = Meter()
    tools = [{"type": "function", "function": {"name": "weather", "description": "about the weather" * 20}}]
    request = replace(HELLO, options={"max_tokens": 7, "tools": tools}, requests=1)
    await collect(metered(Fake(), meter), request)
    ((scope, demand, patience),) = meter.asked
    assert (scope, demand.provider, demand.kind, demand.model) == (Scope("acme"), "fake", "fake", "echo")
    assert (demand.output_tokens, demand.requests, patience) == (7, 1, 0)
    assert demand.input_tokens > bound_messages(HELLO.messages) + 150
    fake = Fake()
    with pytest.raises(Limited):
        await collect(Metered(fake, NoMeter(), "fake"))  # type: ignore[arg-type]
    assert fake.requests == []


async def test_jobs_are_patient_and_others_as_long_as_they_say() -> None:
    meter = Meter()
    for request in (replace(HELLO, scope=Scope("acme", job="job_1")), replace(HELLO, patience=5.0), HELLO):
        await collect(metered(Fake(), meter), request)
    assert [patience for *_, patience in meter.asked] == [JOB_PATIENCE, 5.0, 0]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, {"max_tokens": 50}),
        ({"seed": 1, "max_tokens": 0}, {"seed": 1, "max_tokens": 50}),
        ({"max_completion_tokens": "many"}, {"max_tokens": 50}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"max_completion_tokens": 9}, {"max_completion_tokens": 9}),
    ],
    ids=str,
)
async def test_the_bound_that_was_reserved_is_told_where_the_caller_named_none(
    options: dict[str, object], sent: dict[str, object]
) -> None:
    fake = Fake()
    await collect(metered(fake, Meter(bound=50)), replace(HELLO, options=options))
    assert fake.requests[0].options == sent


async def test_a_failed_call_leaves_its_code() -> None:
    meter = Meter()
    with pytest.raises(Unavailable):
        await collect(metered(Fake(scripts=[[away()]]), meter))
    (call,) = meter.calls
    assert (call.outcome, call.code, call.first_token, call.usage) == ("error", "upstream_unreachable", None, None)


INPUT = bound_messages(HELLO.messages)


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("script", "usage"),
    [
        (["a", "b", "c", away("upstream_broke")], Usage(INPUT, 3, estimated=True)),
        (["word " * 100, away("upstream_broke")], Usage(INPUT, 125, estimated=True)),
        ([away("upstream_timeout")], Usage(INPUT, 50, estimated=True)),
        ([RuntimeError("a bug")], Usage(INPUT, 50, estimated=True)),
        ([Invalid("No.", code="upstream_refused")], None),
        ([Limited("Later.", code="upstream_limited")], None),
        ([away("upstream_error")], None),
    ],
    ids=["pieces", "text", "timeout", "bug", "refused", "limited", "failed"],
)
async def test_what_a_broken_call_may_have_used(script: list[Step], usage: Usage | None) -> None:
    meter = Meter(bound=50)
    with pytest.raises((TerraceError, RuntimeError)):
        await collect(metered(Fake(scripts=[script]), meter))
    assert meter.calls[0].usage == usage


@pytest.mark.parametrize(
    ("after", "usage"),
    [
        (["b", forever], Usage(INPUT, 4, estimated=True)),
        (["b", Usage(5, 2)], Usage(5, 2)),
        (["b"] * 48 + [forever], Usage(INPUT, 50, estimated=True)),
    ],
    ids=["arrived", "told", "bounded"],
)
async def test_a_call_whose_reader_left_is_cancelled(after: list[Step], usage: Usage) -> None:
    """What had come by then counts, and as much again for what may be on its way, within the bound."""
    meter = Meter(bound=50)
    deltas = metered(Fake(scripts=[["a", *after]]), meter).stream(HELLO)
    await anext(deltas)
    await deltas.aclose()
    assert [(call.outcome, call.usage) for call in meter.calls] == [("cancelled", usage)]


async def test_a_call_that_is_cancelled_while_more_is_awaited() -> None:
    meter, begun = Meter(bound=50), asyncio.Event()

    async def hang() -> None:
        begun.set()
        await forever()

    task = asyncio.create_task(collect(metered(Fake(scripts=[["a", "b", hang]]), meter)))
    await begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(call.outcome, call.usage) for call in meter.calls] == [("cancelled", Usage(INPUT, 4, estimated=True))]


async def test_a_silent_provider_is_left_at_once() -> None:
    """Sooner than what one reads who is not silent; one of five times, as a busy machine pauses now and then."""
    clock, took = asyncio.get_running_loop().time, []
    for _ in range(5):
        deltas = metered(Fake(scripts=[["a", forever]]), Meter(bound=50)).stream(HELLO)
        await anext(deltas)
        left = clock()
        await deltas.aclose()
        took.append(clock() - left)
    assert min(took) < 0.09


async def test_where_nobody_tells_the_usage_it_is_counted_from_above() -> None:
    meter = Meter()
    await collect(metered(Fake(scripts=[["a", "b", Usage(1, 2, estimated=True)]]), meter))
    assert meter.calls[0].usage == Usage(INPUT, 2, estimated=True)


async def test_each_attempt_is_a_call_of_its_own_and_one_request() -> None:
    """What breaks off before its first word may be billed all the same."""
    meter = Meter(bound=50)
    fake = Fake(scripts=[[away("upstream_broke")], ["yes", Usage(4, 1)]])
    request = replace(HELLO, requests=1)
    await collect(Retry(metered(fake, meter), 2, first_pause=0.001), request)
    assert [call.usage for call in meter.calls] == [Usage(INPUT, 50, estimated=True), Usage(4, 1)]
    assert [demand.requests for _, demand, _ in meter.asked] == [1, 0]


@pytest.mark.parametrize(("free", "usage"), [(1, Usage(INPUT, 50, estimated=True)), (0, None)], ids=["sent", "not"])
async def test_cancelled_before_the_first_word(free: int, usage: Usage | None) -> None:
    """At the provider already, or still waiting for a place."""
    meter, gate = Meter(bound=50), Gate("fake", 1, 5, 5)
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    if not free:
        await gate.acquire(None)
    task = asyncio.create_task(collect(metered(Fake(scripts=[[hang]]), meter, gate=gate)))
    await (begun.wait() if free else asyncio.sleep(0.01))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(call.outcome, call.usage) for call in meter.calls] == [("cancelled", usage)]


async def test_embeddings_are_metered_too() -> None:
    meter = Meter()
    await metered(Fake(), meter).embed("echo", ["one"], Scope("acme"))
    assert [(call.operation, call.outcome, call.tenant) for call in meter.calls] == [("embed", "ok", "acme")]
    assert meter.asked[0][1].operation == "embed"


async def test_a_callers_own_limit_does_not_move_on_to_another_model() -> None:
    second = Fake("b")
    first = Metered(Fake("a"), NoMeter(), "fake")  # type: ignore[arg-type]
    with pytest.raises(Limited):
        await collect(Fallback([Choice("a/x", first, "x"), Choice("b/y", second, "y")], [].append))
    assert second.requests == []
