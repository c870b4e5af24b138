"""The gate before a provider: so many at a time, tenants in turn, a bounded line, and nobody lost."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrace.errors import Unavailable
from terrace.models.wrappers import Gate
from terrace.types import Scope


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_more_than_the_limit_wait_for_a_place() -> None:
    gate = Gate("up", limit=2, queue=10, wait=10)
    await gate.acquire(None)
    await gate.acquire(None)
    third = asyncio.create_task(gate.acquire(None))
    await settle()
    assert not third.done()
    assert (gate.active, gate.waiting) == (2, 1)
    gate.release()
    await third
    assert (gate.active, gate.waiting) == (2, 0)


async def test_a_full_line_refuses_at_once_and_says_when() -> None:
    gate = Gate("up", limit=1, queue=1, wait=10)
    await gate.acquire(None)
    waiting = asyncio.create_task(gate.acquire(None))
    await settle()
    with pytest.raises(Unavailable) as caught:
        await gate.acquire(None)
    assert caught.value.code == "upstream_busy"
    assert caught.value.retry_after == 10
    assert gate.refused == 1
    waiting.cancel()


async def test_nobody_waits_longer_than_the_bound() -> None:
    gate = Gate("up", limit=1, queue=5, wait=0.01)
    await gate.acquire(None)
    with pytest.raises(Unavailable):
        await gate.acquire(None)
    assert (gate.active, gate.waiting) == (1, 0)
    gate.release()
    assert gate.try_acquire()


async def test_tenants_take_turns() -> None:
    gate = Gate("up", limit=1, queue=100, wait=10)
    await gate.acquire(None)
    served: list[str] = []

    async def call(tenant: str) -> None:
        async with gate.enter(Scope(tenant)):
            served.append(tenant)

    flood = [asyncio.create_task(call("flood")) for _ in range(20)]
    await settle()
    light = [asyncio.create_task(call(name)) for name in ("ada", "bob")]
    await settle()
    gate.release()
    await asyncio.gather(*flood, *light)
    assert served.index("ada") <= 3
    assert served.index("bob") <= 3
    assert gate.active == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from(["ask", "leave", "cancel"])), max_size=40))
async def test_no_place_is_lost_or_given_twice(steps: list[tuple[str, str]]) -> None:
    """Whatever is asked, given back and cancelled, even in the moment a place is handed over."""
    gate = Gate("up", limit=3, queue=8, wait=10)
    tasks: list[asyncio.Task[None]] = []
    held = 0

    async def hold(tenant: str, done: asyncio.Event) -> None:
        nonlocal held
        async with gate.enter(Scope(tenant)):
            held += 1
            assert held <= 3
            try:
                await done.wait()
            finally:
                held -= 1

    events: list[asyncio.Event] = []
    for number, (tenant, step) in enumerate(steps):
        if step == "ask":
            events.append(asyncio.Event())
            tasks.append(asyncio.create_task(hold(tenant, events[-1])))
        elif events:
            chosen = number % len(events)
            events[chosen].set() if step == "leave" else tasks[chosen].cancel()
        if number % 3:
            await settle()
    for event in events:
        event.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (gate.active, gate.waiting, held) == (0, 0, 0)
    assert all(gate.try_acquire() for _ in range(3))
