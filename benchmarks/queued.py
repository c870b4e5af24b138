"""A thousand documents queued at once: `python -m benchmarks.queued [--times 10]`.

The mix of `benchmarks.ingest` so many times over, each file different, with a few broken ones among them, all put in
before the first is read. Every second some of those that wait are asked how long they will; the reference is how long
they then did wait. Ends with 1 if a budget is missed.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ingest import SCOPE, House, Meter, generate, opened, pieces
from terrace.settings import Settings
from terrace.types import now

ASKED = 20  # jobs asked each time
EVERY = 1.0  # seconds
LONG = 5.0  # seconds of waiting from which on the error of a foretold wait counts
A_MINUTE = 100
BROKEN = {
    "broken.pdf": b"%PDF-1.4\n1 0 obj\n",
    "cut.pdf": b"%PDF-1.7\nstartxref\n9\n%%EOF",
    "bare.html": b"<html></html>",
}


@dataclass(frozen=True)
class Foretold:
    """What a job that waited was told at `at`: that it would wait `wait` seconds more."""

    job_id: str
    at: float
    wait: float


async def put_in(house: House, paths: list[Path]) -> tuple[list[str], list[str]]:
    """Documents and their jobs."""
    documents, job_ids = [], []
    for path in paths:
        document, job_id = await house.knowledge.upload(SCOPE, path.name, pieces(path))
        documents.append(document.id)
        if job_id is not None:
            job_ids.append(job_id)
    return documents, job_ids


async def ask(house: House, job_ids: list[str], over: asyncio.Event) -> list[Foretold]:
    chance, told = random.Random(1), []
    while not over.is_set():
        for job_id in chance.sample(job_ids, min(ASKED, len(job_ids))):
            job = await house.jobs.get(SCOPE, job_id)
            if job.expected_wait is not None:
                told.append(Foretold(job_id, now(), job.expected_wait))
        await asyncio.sleep(EVERY)
    return told


async def run(paths: list[Path], data: Path) -> bool:
    async with opened(Settings(data=data)) as house:
        documents, job_ids = await put_in(house, paths)
        over = asyncio.Event()
        with Meter() as cost:
            begun = time.perf_counter()
            await house.jobs.start()
            asking = asyncio.create_task(ask(house, job_ids, over))
            for job_id in job_ids:
                await house.jobs.wait(SCOPE, job_id)
            seconds = time.perf_counter() - begun
            over.set()
            told = await asking
        started = {
            job_id: job.started_at.timestamp()
            for job_id in {each.job_id for each in told}
            if (job := await house.jobs.get(SCOPE, job_id)).started_at is not None
        }
        ended = [await house.knowledge.get(SCOPE, document_id) for document_id in documents]
    states = Counter(each.state for each in ended)
    silent = [each.name for each in ended if each.state == "failed" and not (each.error or {}).get("message")]
    waited = [(each.wait, started[each.job_id] - each.at) for each in told if each.job_id in started]
    errors = sorted(abs(said - true) / true for said, true in waited if true >= LONG)
    rate = len(documents) / seconds * 60
    whole = set(states) <= {"ready", "failed"} and not silent
    print(f"{len(documents):,} documents in {seconds:.0f} s and {cost.cpu:.0f} CPU s, at most {cost.peak_mb:.0f} MB\n")
    print(f"{'documents a minute':44}{rate:>12,.0f}   >= {A_MINUTE}")
    print(f"{'states':44}{', '.join(f'{n} {state}' for state, n in sorted(states.items())):>12}   done or failed")
    print(f"{'failed without a reason':44}{len(silent):>12}   0")
    if errors:
        print(f"{f'foretold waits of {LONG:g} s and more, asked for':44}{len(errors):>12,}")
        print(f"{'  their error, median':44}{errors[len(errors) // 2]:>12.0%}")
        print(f"{'  and of nine in ten at most':44}{errors[int(len(errors) * 0.9)]:>12.0%}")
    return whole and rate >= A_MINUTE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    times = parser.parse_args().times
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as data:
        for seed in range(times):
            folder = Path(made) / str(seed)
            folder.mkdir()
            generate(folder, seed)
        for name, content in BROKEN.items():
            (Path(made) / name).write_bytes(content)
        paths = sorted(path for path in Path(made).rglob("*") if path.is_file())
        sys.exit(0 if asyncio.run(run(paths, Path(data))) else 1)


if __name__ == "__main__":
    main()
