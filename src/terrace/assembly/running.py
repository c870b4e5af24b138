"""The house at work: served, worked in, tidied, looked over, and taken down in order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from typing import Any

from terrace.accounts import doctor as accounts_doctor
from terrace.assembly import clock
from terrace.assembly.house import House, assemble, own_folder
from terrace.assembly.roles import CLOCK, Duties, duties
from terrace.assembly.services import application, small_application
from terrace.inference import open_inference
from terrace.jobs import doctor as jobs_doctor
from terrace.settings import Settings
from terrace.storage.leading import Leadership
from terrace.web import process, server
from terrace.web.edge import Edge
from terrace.web.security import Guard, is_loopback

Started = Callable[[str], None]

LAST_SECONDS = 5.0  # beyond what streams and jobs get to end: to write down what is left, if the database lets us


async def serve(
    settings: Settings,
    *,
    started: Started,
    ownerless: Started | None = None,
    stop: asyncio.Event | None = None,
    announced: bool = True,
    token: str | None = None,
) -> None:
    """What `settings.role` names, until a signal or `stop`; by default the page, the API and the workers.

    `ownerless` is told the setup code when an account is needed and there is none. `announced` leaves the address in
    the data folder, where commands find it, with a `token` that proves whose folder it is (made up when None).

    Raises Invalid for settings that can't be used, Conflict when the port is taken.
    """
    listener = server.bind(settings)
    url = server.url_of(listener, settings.host)
    stop = stop or process.signalled()
    closed = asyncio.Event()  # nobody is let in any more
    try:
        if settings.role == "inference":
            await _infer(settings, listener, partial(started, url), stop, closed)
            return
        does = duties(settings)
        async with assemble(settings, token) as house, working(house, stop, closed, does) as at_work:

            def ready() -> None:
                started(url)
                if ownerless is not None and needs_owner:
                    ownerless(house.accounts.people.setup_code)

            gatekeeper = house.accounts.gatekeeper
            needs_owner = does.doors and not gatekeeper.local and not await house.accounts.people.exists()
            make = application if does.doors else small_application
            announcing = announced and does.doors
            with process.announced(settings.data, url, gatekeeper.terminal_token) if announcing else nullcontext():
                app = make(house, at_work.told)
                await server.serve(app, listener, settings, started=ready, stop=stop, closed=closed)
    finally:
        listener.close()


async def work(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """A worker without any door, on the same data as a server; until a signal or `stop`."""
    stop = stop or process.signalled()
    async with assemble(settings) as house, working(house, stop, stop, Duties(doors=False, jobs=True, clock=False)):
        await stop.wait()


async def _infer(
    settings: Settings, listener: Any, started: Callable[[], None], stop: asyncio.Event, closed: asyncio.Event
) -> None:
    """The model server, at the same edge as the rest."""
    own_folder(settings)
    loopback = is_loopback(settings.host)
    async with open_inference(settings, stop, loopback=loopback) as inference:
        app = Edge(
            inference.door,
            guard=Guard(settings.web.hosts, open=lambda: not settings.inference.key.get_secret_value()),
            metrics=inference.metrics,
            max_body=settings.inference.max_body_bytes,
        )
        await server.serve(app, listener, settings, started=started, stop=stop, closed=closed)


class AtWork:
    """What goes on behind the doors, for whoever asks how it does."""

    def __init__(self, house: House, does: Duties, leadership: Leadership, stop: asyncio.Event) -> None:
        self._house = house
        self._does = does
        self._leadership = leadership
        self._stop = stop

    def told(self) -> dict[str, str]:
        """A line for `/ready` about each thing this process does; no line but `ok` once it stops."""
        lines = {}
        if self._does.jobs:
            lines["jobs"] = f"ok: {self._house.jobs.running} running"
        if self._does.clock:
            lines["clock"] = "ok: this process leads" if self._leadership.leads else "ok: stands by"
        if self._stop.is_set():
            lines["stopping"] = "takes no new requests"
        return lines


@asynccontextmanager
async def working(house: House, stop: asyncio.Event, closed: asyncio.Event, does: Duties) -> AsyncIterator[AtWork]:
    """With what goes on behind the doors. Once these are `closed` the drain begins, so that answers being written reach
    their readers while the server ends; leaving waits for its end."""
    await house.prices.load()
    await house.ledger.start()
    await house.limits.start()
    await house.accounts.gatekeeper.start()
    if house.settings.redis.url:
        house.jobs.listen()  # else what is put in here reaches Redis only when somebody follows something
    house.models.start()
    await house.generations.start(build=does.jobs)
    if does.jobs:
        await house.jobs.start()
    leadership = Leadership(house.database, CLOCK)
    leading = asyncio.create_task(leadership.forever(partial(clock.lead, house))) if does.clock else None
    draining = asyncio.create_task(_drain(house, closed))
    try:
        yield AtWork(house, does, leadership, stop)
    finally:
        stop.set()
        closed.set()
        if leading is not None:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
        await draining
        await house.accounts.gatekeeper.close()
        await house.limits.close()
        await house.ledger.close()
        await house.prices.close()


async def _drain(house: House, closed: asyncio.Event) -> None:
    await closed.wait()
    settings = house.settings
    house.database.end_within(max(settings.web.shutdown_grace, settings.jobs.drain) + LAST_SECONDS)
    house.webhooks.drain()
    await house.jobs.drain()
    house.drained.set()


async def doctor(settings: Settings, *, repair: bool) -> list[dict[str, Any]]:
    """What every room's doctor found: {room, code, message, subject, state: found | repaired}."""
    async with assemble(settings) as house:
        library = house.library_doctor
        found: list[Any] = [
            *accounts_doctor.examine(settings, accounts=await house.accounts.people.exists()),
            *await jobs_doctor.examine(house.jobs),
            *await library.examine(),
        ]
        repaired = [*await jobs_doctor.repair(house.jobs), *await library.repair()] if repair else []
    return [{**asdict(each), "state": "repaired" if each in repaired else "found"} for each in found]
