"""A worker process for the fault tests: `python jobs_worker.py <file or URL> <lease> [<Redis>]`; killed and stopped by
them."""

import asyncio
import random
import sys
from pathlib import Path

from sqlalchemy import text

from terrace.jobs.base import Context, Done, JobKind
from terrace.jobs.carriers import open_carrier
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.settings import Redis
from terrace.storage import Database, SQLiteDatabase


async def work(context: Context) -> Done:
    """Talk, wait, and write a row in the transaction that ends the job."""
    for n in range(5):
        context.emit("text", {"n": n})
        await asyncio.sleep(random.uniform(0.002, 0.02))
    row = {"job": context.job_id, "attempt": context.attempt}
    return Done(
        {"n": context.payload["n"]},
        lambda session: session.execute(text("INSERT INTO outcomes VALUES (:job, :attempt)"), row),
    )


async def patient(context: Context) -> Done:
    """Run until told otherwise by a row, as a model call that takes long."""
    context.emit("text", {"attempt": context.attempt})
    while True:
        if await database.read(lambda session: session.execute(text("SELECT COUNT(*) FROM outcomes")).scalar()):
            return Done({"attempt": context.attempt})
        await asyncio.sleep(0.05)


async def talk(context: Context) -> None:
    """A stream, as a model writes it."""
    for n in range(context.payload["tokens"]):
        context.emit("text", {"n": n})
        await asyncio.sleep(0.02)


KINDS = (JobKind("work", work), JobKind("patient", patient), JobKind("talk", talk))


def opened(where: str) -> Database:
    if not where.startswith("postgresql"):
        return SQLiteDatabase(Path(where), durability="normal")
    from terrace.storage.postgresql import PostgreSQLDatabase

    return PostgreSQLDatabase(where, connections=4)


async def main() -> None:
    global database
    database = opened(sys.argv[1])
    lease = float(sys.argv[2])
    options = Options(lease=lease, heartbeat=lease / 3, io_slots=20, max_crashes=1000)
    if len(sys.argv) > 3:
        options = options.model_copy(update={"io_slots": 100})
    jobs = LocalJobs(database, options, KINDS)
    jobs.carry(open_carrier(Redis(url=sys.argv[3] if len(sys.argv) > 3 else "")))
    await jobs.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
