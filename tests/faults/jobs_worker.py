"""A worker process for the fault tests: `python jobs_worker.py <database> <lease>`; killed and stopped by them."""

import asyncio
import random
import sys
from pathlib import Path

from sqlalchemy import text

from terrace.jobs.base import Context, Done, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Jobs as Options
from terrace.storage import SQLiteDatabase


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


KINDS = (JobKind("work", work), JobKind("patient", patient))


async def main() -> None:
    global database
    database = SQLiteDatabase(Path(sys.argv[1]), durability="normal")
    lease = float(sys.argv[2])
    options = Options(lease=lease, heartbeat=lease / 3, io_slots=20, max_crashes=1000)
    jobs = LocalJobs(database, options, KINDS)
    await jobs.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
