"""The house at work: served, worked in, tidied, looked over, and taken down in order."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from typing import Any

from sqlalchemy.exc import DBAPIError

from terrace.accounts import doctor as accounts_doctor
from terrace.assembly.house import House, assemble
from terrace.assembly.services import application
from terrace.errors import TerraceError
from terrace.jobs import doctor as jobs_doctor
from terrace.settings import Settings
from terrace.web import process, server

log = logging.getLogger(__name__)

DAY = 86_400.0  # seconds


async def serve(
    settings: Settings,
    *,
    started: Callable[[str], None],
    ownerless: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    announced: bool = True,
    token: str | None = None,
) -> None:
    """The page, the API and, unless `jobs.workers` is off, the workers; until a signal or `stop`.

    `ownerless` is told the setup code when an account is needed and there is none. `announced` leaves the address in
    the data folder, where commands find it, with a `token` that proves whose folder it is (made up when None).

    Raises Invalid for settings that can't be used, Conflict when the port is taken.
    """
    listener = server.bind(settings)
    url = server.url_of(listener, settings.host)
    stop = stop or process.signalled()
    try:
        async with assemble(settings, token) as house, working(house, stop, jobs=settings.jobs.workers):

            def ready() -> None:
                started(url)
                if ownerless is not None and needs_owner:
                    ownerless(house.accounts.people.setup_code)

            needs_owner = not house.accounts.gatekeeper.local and not await house.accounts.people.exists()
            token = house.accounts.gatekeeper.terminal_token
            with process.announced(settings.data, url, token) if announced else nullcontext():
                await server.serve(application(house), listener, settings, started=ready, stop=stop)
    finally:
        listener.close()


async def work(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """The workers alone, on the same data as a server; until a signal or `stop`."""
    stop = stop or process.signalled()
    async with assemble(settings) as house, working(house, stop, jobs=True):
        await stop.wait()


@asynccontextmanager
async def working(house: House, stop: asyncio.Event, *, jobs: bool) -> AsyncIterator[None]:
    """With what goes on behind the doors. `stop` begins the drain, so that answers being written reach their readers
    while the server ends; leaving waits for its end."""
    await house.prices.load()
    await house.ledger.start()
    await house.limits.start()
    await house.accounts.gatekeeper.start()
    house.models.start()
    await house.generations.start(build=jobs)
    if jobs:
        await house.jobs.start()
        await house.schedules.start()
        house.watcher.start()
    tidying = asyncio.create_task(_keep_house(house)) if jobs else None
    draining = asyncio.create_task(_drain(house, stop))
    try:
        yield
    finally:
        stop.set()
        await house.watcher.close()
        await house.schedules.close()
        if tidying is not None:
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)
        await draining
        await house.accounts.gatekeeper.close()
        await house.limits.close()
        await house.ledger.close()
        await house.prices.close()


async def _drain(house: House, stop: asyncio.Event) -> None:
    await stop.wait()
    house.webhooks.drain()
    await house.jobs.drain()
    house.drained.set()


async def _keep_house(house: House) -> None:
    """At the start and every day: embed what a model that was away has missed, remove what nobody refers to."""
    library = house.library_doctor
    while True:
        try:
            await house.blobs.sweep()
            await library.keep_house()
            await house.files.tidy()
            await house.analysed.tidy()
            await house.contact_imports.tidy()
            await house.usage.tidy(house.settings.limits.ledger_days)
            await house.webhooks.tidy()
        except (TerraceError, DBAPIError) as error:
            log.warning("the daily tidying stopped early and is tried again tomorrow: %s", error)
        await asyncio.sleep(DAY)


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
