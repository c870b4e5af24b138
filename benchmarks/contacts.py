"""What bringing contacts in costs: `python -m benchmarks.contacts`.

100,000 contacts of six columns from CSV and from XLSX, through the job as a person starts it: the wait, the processor's
time of the server and of the process that reads, and the memory both come to hold. Then the dry run, the same file
again, and the fields counted. Reference in the same run: Python's csv module and sqlite3's executemany alone, into a
table with the same columns and unique key. Ends with 1 if a budget is missed.
"""

import asyncio
import csv
import os
import resource
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from terrace import settings
from terrace.campaigns.contacts.files import FileImports, How
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.contacts.service import Contacts
from terrace.campaigns.contacts.tasks import job_kinds
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.storage import FolderBlobs, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope

ROWS = 100_000
FEW = 10
BUDGET = 10.0  # s of processor for ROWS from CSV or XLSX, on one core
MEMORY_BUDGET = 60.0  # MB more than before, besides what the database maps
HEADER = ["email", "name", "city", "plan", "since", "spent"]
LOOK = 0.25  # s between two looks at the memory, each of which costs some milliseconds
SCOPE = Scope("tnt_bench", "usr_bench")


@dataclass
class House:
    contacts: Contacts
    files: FileImports
    jobs: LocalJobs


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[House]:
    database = SQLiteDatabase(folder / "terrace.db")
    await database.write(lambda session: migrate(session.connection()))
    options, processes, blobs = settings.Campaigns(), Processes(2), FolderBlobs(folder / "blobs")
    jobs = LocalJobs(database, settings.Jobs())
    intake = Intake(database, blobs, options)
    files = FileImports(database, blobs, jobs, processes, intake)
    for kind in job_kinds(files, intake):
        jobs.register(kind)
    await jobs.start()
    yield House(Contacts(database, options), files, jobs)
    await jobs.close()
    await processes.close()
    await database.close()


def row(number: int) -> list[str]:
    city = ("Rome", "Oslo", "Zürich")[number % 3]
    return [f"person{number}@example.org", f"Person {number}", city, "gold", "2026-01-05", f"{number}.5"]


def write_csv(path: Path, rows: int = ROWS) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(row(number) for number in range(rows))


def write_xlsx(path: Path, rows: int = ROWS) -> None:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(HEADER)
    for number in range(rows):
        sheet.append(row(number))
    book.save(path)


def reference(path: Path, folder: Path) -> float:
    """CPU seconds of the least that could be done."""
    begun = time.process_time()
    connection = sqlite3.connect(folder / "reference.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE contacts (email TEXT UNIQUE, name TEXT, city TEXT, plan TEXT, since TEXT, spent TEXT)"
    )
    with path.open(newline="", encoding="utf-8") as file, connection:
        rows = csv.reader(file)
        next(rows)
        connection.executemany("INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    return time.process_time() - begun


class Watched:
    """CPU of this process and of its children, the wait, and how much the private memory of both grew."""

    def __init__(self) -> None:
        self.wall = self.cpu = self.grown = 0.0
        self._stop = threading.Event()

    def __enter__(self) -> "Watched":
        self._before, self._begun = self._spent(), time.perf_counter()
        self._held = most = _private()

        def look() -> None:
            nonlocal most
            while not self._stop.wait(LOOK):
                most = max(most, _private())
                self.grown = most - self._held

        self._thread = threading.Thread(target=look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.wall, self.cpu = time.perf_counter() - self._begun, self._spent() - self._before

    def _spent(self) -> float:
        """Of living children too, which getrusage does not count."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        gone = resource.getrusage(resource.RUSAGE_CHILDREN)
        living = sum(_cpu_of(child) for child in _children())
        return own.ru_utime + own.ru_stime + gone.ru_utime + gone.ru_stime + living


def _children() -> list[int]:
    try:
        found = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    except OSError:
        return []
    return [int(each) for each in found]


def _cpu_of(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _private() -> float:
    """MB that are no file's: a database that is mapped into memory does not count."""
    total = 0
    for process in (os.getpid(), *_children()):
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
    return total / 1024


async def bring(house: House, path: Path) -> Watched:
    with Watched() as watched:
        async with house.files.receive(SCOPE, path.name, _pieces(path)) as upload:
            job_id, _ = await house.files.start(SCOPE, upload, "Everybody", How({}))
        job = await house.jobs.wait(SCOPE, job_id, 600)
    assert job.result is not None, job.error
    assert job.result["new"] + job.result["changed"] + job.result["unchanged"] == ROWS
    return watched


async def look(house: House, path: Path) -> Watched:
    with Watched() as watched:
        async with house.files.receive(SCOPE, path.name, _pieces(path)) as upload:
            examined = await house.files.examine(SCOPE, upload, How({}))
    assert examined.rows in (ROWS, FEW)
    return watched


async def count(house: House) -> Watched:
    with Watched() as watched:
        total, _ = await house.contacts.field_counts(SCOPE, "Everybody")
    assert total == ROWS
    return watched


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 18):
            yield piece


async def main() -> int:
    with tempfile.TemporaryDirectory(prefix="terrace-contacts-") as name:
        folder = Path(name)
        table, book = folder / "people.csv", folder / "people.xlsx"
        await asyncio.to_thread(write_csv, table)
        await asyncio.to_thread(write_xlsx, book)
        few = folder / "few.xlsx"
        await asyncio.to_thread(write_xlsx, few, FEW)
        bare = min([await asyncio.to_thread(_again, reference, table, folder) for _ in range(3)])
        async with opened(folder) as house:
            await look(house, few)  # the subprocess is warm, as it is in a server that has read a file before
            done = {
                "dry run, CSV": await look(house, table),
                "import, CSV": await bring(house, table),
                "the same again": await bring(house, table),
                "fields counted": await count(house),
            }
        (folder / "other").mkdir()
        async with opened(folder / "other") as house:
            await look(house, few)
            done["import, XLSX"] = await bring(house, book)
    print(f"{ROWS:,} contacts\n{'':16} {'wait s':>8} {'CPU s':>8} {'x ref':>7} {'MB more':>8}")
    print(f"{'csv + sqlite3':16} {'':8} {bare:8.2f} {1:7.1f}")
    for what, each in done.items():
        print(f"{what:16} {each.wall:8.2f} {each.cpu:8.2f} {each.cpu / bare:7.1f} {each.grown:8.0f}")
    missed = [
        *(f"{what}: {done[what].cpu:.1f} s" for what in ("import, CSV", "import, XLSX") if done[what].cpu > BUDGET),
        *(f"{what}: {each.grown:.0f} MB" for what, each in done.items() if each.grown > MEMORY_BUDGET),
    ]
    print("missed: " + "; ".join(missed) if missed else f"within {BUDGET:g} s of CPU and {MEMORY_BUDGET:g} MB")
    return 1 if missed else 0


def _again(measure: Callable[[Path, Path], float], table: Path, folder: Path) -> float:
    for left in folder.glob("reference.db*"):
        left.unlink()
    return measure(table, folder)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
