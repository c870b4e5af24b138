"""What one process of all does, whichever leads: start what is scheduled, watch folders, tidy once a day."""

import asyncio
import logging

from sqlalchemy.exc import DBAPIError

from terrace.assembly.house import House
from terrace.errors import TerraceError

log = logging.getLogger(__name__)

DAY = 86_400.0  # seconds


async def lead(house: House) -> None:
    """Until cancelled."""
    try:
        await house.schedules.start()
        house.watcher.start()
        await _keep_house(house)
    finally:
        await house.watcher.close()
        await house.schedules.close()


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
