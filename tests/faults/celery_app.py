"""An app for the fault tests, as `terrace.jobs.engines.celery.app` is, whose house is but an engine and two kinds.

celery -A tests.faults.celery_app worker        on the database and with the broker of the settings in force
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Iterable

from sqlalchemy import text

from terrace.jobs.base import Context, Done, JobKind, Lane
from terrace.jobs.engines.celery import CeleryJobs
from terrace.jobs.engines.celery.broker import Broker
from terrace.jobs.engines.celery.building import JobApp
from terrace.jobs.engines.celery.children import adopt
from terrace.jobs.engines.celery.residence import ThreadResidence
from terrace.settings import Settings
from terrace.storage import open_database

OUTCOMES = "CREATE TABLE outcomes (job TEXT, attempt INTEGER, pid INTEGER)"


async def work(context: Context) -> Done:
    """Talk, wait, and write a row in the transaction that ends the job."""
    for n in range(5):
        context.emit("text", {"n": n})
        await asyncio.sleep(random.uniform(0.002, 0.02))
    row = {"job": context.job_id, "attempt": context.attempt, "pid": os.getpid()}
    insert = text("INSERT INTO outcomes VALUES (:job, :attempt, :pid)")
    return Done({"n": context.payload["n"]}, lambda session: session.execute(insert, row))


async def patient(context: Context) -> None:
    context.emit("text", {"attempt": context.attempt})
    await asyncio.sleep(3600)


async def stubborn(context: Context) -> None:
    """Holds up its whole process, as a parser that hangs; no timeout of asyncio reaches it."""
    await context.write(lambda session: session.execute(text(f"INSERT INTO outcomes VALUES ('', 0, {os.getpid()})")))
    time.sleep(3600)  # noqa: ASYNC251


KINDS = (
    JobKind("work", work),
    JobKind("crunch", work, lane="cpu"),
    JobKind("patient", patient),
    JobKind("patient-cpu", patient, lane="cpu"),
    JobKind("stubborn", stubborn, lane="cpu", timeout=0.5),
)
GRACE = 1.5  # seconds


def _settings() -> Settings:
    return Settings.load(jobs={"engine": "celery"})


@contextlib.asynccontextmanager
async def opened(settings: Settings, lanes: Iterable[Lane]) -> AsyncIterator[CeleryJobs]:
    database = await open_database(settings)
    jobs = CeleryJobs(database, settings.jobs, KINDS, broker=Broker(app), grace=GRACE)
    jobs.serve(lanes)
    await jobs.start()
    yield jobs
    await jobs.close()
    await database.close()


app = JobApp(_settings, lambda app: ThreadResidence(lambda lanes: opened(app.terrace, lanes)))
_children = adopt(app)
