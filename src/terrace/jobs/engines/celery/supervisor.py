"""`terrace worker --engine celery`: a worker of Celery for each lane, kept alive, drained and ended together."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time

from terrace.jobs.engines.celery.broker import require, url_of
from terrace.settings import Settings

log = logging.getLogger(__name__)

STEADY_SECONDS = 60.0  # whoever lived for so long is started again at once
PAUSE_SECONDS, PAUSE_MAX = 1.0, 30.0
END_SECONDS = 30.0  # beyond the drain, before it is killed


async def supervise(settings: Settings, stop: asyncio.Event) -> None:
    """Until `stop`. Raises Invalid when no broker is named, Unavailable where Celery is not installed."""
    require()
    url_of(settings)
    async with asyncio.TaskGroup() as group:
        for lane, command in commands(settings).items():
            group.create_task(_keep(lane, command, settings.jobs.drain + END_SECONDS, stop))


def commands(settings: Settings) -> dict[str, list[str]]:
    """What is run for each lane; `celery -A terrace.jobs.engines.celery.app worker` takes the same options."""
    celery = [sys.executable, "-m", "terrace.jobs.engines.celery", "worker", "--without-gossip", "--without-mingle"]
    prefix, level, own = settings.redis.prefix, settings.logs.level, os.getpid()
    # To Celery `prefork` means the pool of the app, where it has one of its own.
    prefork = ["--pool", "processes", "--concurrency", str(settings.jobs.cpu_slots)]
    return {
        "io": [*celery, "-l", level, "-Q", f"{prefix}.io", "-n", f"io-{own}@%h"],
        "cpu": [*celery, "-l", level, "-Q", f"{prefix}.cpu", "-n", f"cpu-{own}@%h", *prefork],
    }


async def _keep(lane: str, command: list[str], patience: float, stop: asyncio.Event) -> None:
    pause = PAUSE_SECONDS
    while not stop.is_set():
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        await _until_gone(process, patience, stop)
        if stop.is_set():
            return
        pause = PAUSE_SECONDS if time.monotonic() - began > STEADY_SECONDS else min(pause * 2, PAUSE_MAX)
        log.error("the Celery worker of the lane %s ended (status %s) and is started again", lane, process.returncode)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


async def _until_gone(process: asyncio.subprocess.Process, patience: float, stop: asyncio.Event) -> None:
    gone, stopped = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((gone, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            process.send_signal(signal.SIGTERM)
            await asyncio.wait((gone,), timeout=patience)
    finally:
        stopped.cancel()
        if not gone.done():
            process.kill()
            await gone
