"""A process that makes jobs and delivers what they tell, for the fault test: `python webhook_worker.py <database>`.

Each job emits its event in the transaction that ends it. Killed by the test.
"""

import asyncio
import random
import sys
from pathlib import Path

from terrace.accounts.secret import Secret
from terrace.jobs.base import Context, Done, JobKind
from terrace.jobs.engines.local import LocalJobs
from terrace.outbound import open_outbound
from terrace.settings import Jobs, Outbound
from terrace.settings import Webhooks as Options
from terrace.storage import SQLiteDatabase
from terrace.webhooks.service import Webhooks

SECRET = "kq2Vn8sJw0ZpXy5RtLb7Hd3GfMc9Ea1U"


async def main() -> None:
    database = SQLiteDatabase(Path(sys.argv[1]), durability="normal")
    jobs = LocalJobs(database, Jobs(lease=1.5, heartbeat=0.5, io_slots=20, max_crashes=1000))
    outbound = open_outbound(Outbound(allow=("127.0.0.1",)))
    webhooks = Webhooks(database, jobs, outbound, Secret(SECRET), Options(), backoff=(0.05, 0.1, 0.2))

    async def work(context: Context) -> Done:
        await asyncio.sleep(random.uniform(0.001, 0.02))
        told = {"number": context.payload["number"]}
        return Done({}, lambda session: webhooks.emit(session, context.scope, "document.ready", told))

    for kind in (JobKind("work", work), *webhooks.kinds()):
        jobs.register(kind)
    await jobs.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
