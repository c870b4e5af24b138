"""What PostgreSQL costs through Terrace: a read, a write, many writers at once; beside the same by bare psycopg.

    python -m benchmarks.postgres [--works 2000]

Starts a private server (`terrace[postgres-server]`) that keeps what is committed, as a real one does.
"""

import argparse
import asyncio
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import text
from sqlmodel import Session

from terrace.settings import Settings
from terrace.storage import Database, open_database, own_locks
from terrace.storage.postgresql.server import PrivateServer
from terrace.types import Scope

READ = "SELECT name FROM collections WHERE tenant_id = {} AND id = {}"
WRITE = "UPDATE collections SET name = {} WHERE tenant_id = {} AND id = {}"
CONNECTIONS = 8
EVERYBODY = "-c terrace.tenant=*"  # through the wall between tenants
SCOPE = Scope("acme")
SCOPED_READ = text(READ.format(":tenant", ":id"))
SCOPED_WRITE = text(WRITE.format(":name", ":tenant", ":id"))


def read(session: Session, scope: Scope, number: int) -> object:
    return session.execute(SCOPED_READ, {"tenant": scope.tenant, "id": f"col_{number}"}).scalar_one()


def write(session: Session, scope: Scope, number: int) -> None:
    session.execute(SCOPED_WRITE, {"name": "new", "tenant": scope.tenant, "id": f"col_{number}"})


@own_locks
def write_by_itself(session: Session, scope: Scope, number: int) -> None:
    write(session, scope, number)


def bare_read(connection: "psycopg.Connection[Any]", number: int) -> object:
    row = connection.execute(READ.format("%s", "%s"), ("acme", f"col_{number}")).fetchone()
    connection.commit()
    return row


def bare_write(connection: "psycopg.Connection[Any]", number: int) -> None:
    connection.execute(WRITE.format("%s", "%s", "%s"), ("new", "acme", f"col_{number}"))
    connection.commit()


class Row:
    """One line of the table, measured as it is made: milliseconds a call, calls a second, CPU of this process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.took: list[float] = []
        self._began, self._cpu = time.perf_counter(), _cpu()

    def show(self, calls: int) -> None:
        wall, cpu = time.perf_counter() - self._began, _cpu() - self._cpu
        median = f"{statistics.median(self.took) * 1000:9.3f}" if self.took else " " * 9
        print(f"{self.name:<44}{median}{calls / wall:12,.0f}{cpu / calls * 1e6:12,.0f}")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def bare(url: str, name: str, call: Callable[..., object], works: int) -> None:
    with psycopg.connect(url, options=EVERYBODY) as connection:
        row = Row(name)
        for number in range(works):
            began = time.perf_counter()
            call(connection, number)
            row.took.append(time.perf_counter() - began)
        row.show(works)


def bare_many(url: str, name: str, works: int) -> None:
    def share(first: int) -> None:
        with psycopg.connect(url, options=EVERYBODY) as connection:
            for number in range(first, works, CONNECTIONS):
                bare_write(connection, number)

    threads = [threading.Thread(target=share, args=(first,)) for first in range(CONNECTIONS)]
    row = Row(name)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    row.show(works)


async def through(way: Callable[..., Any], name: str, work: Callable[..., Any], works: int) -> None:
    row = Row(name)
    for number in range(works):
        began = time.perf_counter()
        await way(work, SCOPE, number)
        row.took.append(time.perf_counter() - began)
    row.show(works)


async def many(way: Callable[..., Any], name: str, work: Callable[..., Any], works: int) -> None:
    row = Row(name)
    await asyncio.gather(*(way(work, SCOPE, number) for number in range(works)))
    row.show(works)


async def measure(url: str, works: int) -> None:
    settings = Settings(storage={"url": url, "connections": CONNECTIONS})
    database: Database = await open_database(settings)
    with psycopg.connect(url, options=EVERYBODY) as connection:
        connection.execute(
            "INSERT INTO collections SELECT 'col_' || n, 'acme', 'old', n::text, 0 FROM generate_series(0, %s) n",
            (works,),
        )
        connection.execute("ANALYZE")
    print(f"{'':<44}{'median ms':>9}{'a second':>12}{'CPU us':>12}")
    await asyncio.to_thread(bare, url, "a read, bare psycopg", bare_read, works)
    await through(database.read, "a read", read, works)
    await asyncio.to_thread(bare, url, "a write, bare psycopg", bare_write, works)
    await through(database.write, "a write", write, works)
    await through(database.write, "a write with its own locks", write_by_itself, works)
    await asyncio.to_thread(bare_many, url, f"writes by {CONNECTIONS} at once, bare psycopg", works)
    await many(database.write, f"{works:,} writes at once", write, works)
    await many(database.write, f"{works:,} at once with their own locks", write_by_itself, works)
    await many(database.read, f"{works:,} reads at once", read, works)
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--works", type=int, default=2000)
    works = parser.parse_args().works
    folder = Path(tempfile.mkdtemp(prefix="terrace-bench-"))
    server = PrivateServer(folder / "postgres")
    try:
        asyncio.run(measure(server.start(), works))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
