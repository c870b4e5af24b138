"""What an event costs: where nobody listens, where somebody does, and until it has arrived.

    python -m benchmarks.webhooks

The receiver answers at once, on loopback, in a process of its own. The reference is aiohttp posting the same body as
often, with as many at a time and a connection each, and no log.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from sqlmodel import Session

from terrace.accounts.audit import Audit
from terrace.accounts.base import LOCAL
from terrace.accounts.secret import Secret
from terrace.jobs.engines.local import LocalJobs
from terrace.outbound import open_outbound
from terrace.settings import Jobs, Outbound
from terrace.settings import Webhooks as Options
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope
from terrace.webhooks.courier import AT_ONCE
from terrace.webhooks.endpoints import Endpoints
from terrace.webhooks.service import Webhooks

EVENTS = 2000
SILENT = 100_000
DATA = {"id": "doc_0123456789", "name": "quay.pdf", "state": "ready", "chunks": 12}
ME = LOCAL.scope
NOBODY = Scope("nobody")
RECEIVER = """
import asyncio
async def answer(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\\r\\n") if line[:15] == b"content-length:")
    await reader.readexactly(length)
    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok")
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


async def main() -> None:
    receiver = await asyncio.create_subprocess_exec(sys.executable, "-c", RECEIVER, stdout=asyncio.subprocess.PIPE)
    assert receiver.stdout is not None
    url = f"http://127.0.0.1:{int(await receiver.stdout.readline())}/hook"
    try:
        rows = [*await terrace(url), ("reference: aiohttp alone", f"{EVENTS / await reference(url):,.0f} a second")]
    finally:
        receiver.kill()
        await receiver.wait()
    for what, measured in rows:
        print(f"{what:<52} {measured:>20}")


async def terrace(url: str) -> list[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(Path(folder) / "bench.db")
        await database.write(lambda session: migrate(session.connection()))
        jobs = LocalJobs(database, Jobs())
        outbound = open_outbound(Outbound(allow=("127.0.0.1",)))
        sealer = Secret("kq2Vn8sJw0ZpXy5RtLb7Hd3GfMc9Ea1U")
        webhooks = Webhooks(database, jobs, outbound, sealer, Options())
        for kind in webhooks.kinds():
            jobs.register(kind)
        await jobs.start()
        endpoints = Endpoints(database, webhooks, outbound, sealer, Audit(database), Options())
        endpoint, _ = await endpoints.create(LOCAL, url=url, events=["document.ready"])

        silent = await timed(lambda: database.write(emit, webhooks, NOBODY, SILENT))
        begun = time.perf_counter()
        loud = await timed(lambda: database.write(emit, webhooks, ME, EVENTS))
        for waiting in iter(lambda: endpoints.deliveries(ME, endpoint.id, state="queued", limit=1), None):
            if not (await waiting)[0]:
                break
            await asyncio.sleep(0.2)
        arrived = time.perf_counter() - begun
        await jobs.close()
        await outbound.close()
        await database.close()
    return [
        ("an event where nobody listens", f"{silent / SILENT * 1e9:,.0f} ns"),
        ("an event to one endpoint, in its transaction", f"{loud / EVENTS * 1e6:,.0f} us"),
        ("delivered, signed and logged", f"{EVENTS / arrived:,.0f} a second"),
    ]


def emit(session: Session, webhooks: Webhooks, scope: Scope, count: int) -> None:
    for _ in range(count):
        webhooks.emit(session, scope, "document.ready", DATA)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def reference(url: str) -> float:
    from aiohttp import ClientSession, TCPConnector

    left = iter(range(EVENTS))

    async def post(session: ClientSession) -> None:
        for _ in left:
            async with session.post(url, json=DATA) as answer:
                await answer.read()

    async with ClientSession(connector=TCPConnector(force_close=True)) as session:
        return await timed(lambda: asyncio.gather(*(post(session) for _ in range(AT_ONCE))))


if __name__ == "__main__":
    asyncio.run(main())
