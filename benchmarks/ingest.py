"""How fast documents become searchable: `python -m benchmarks.ingest [FOLDER]`.

Ingests a folder (or a generated mix: 8 PDF, 52 TXT, 37 HTML and 6 MD, about 2,000 passages) through the real library,
parsers, queue, index and embedding model. Reference: the same passages through the embedding model alone, measured
right after: the least that any ingestion with this model can take. What it does to `/health` is measured by
`python -m benchmarks.start`. Peers need torch and are not run; their figures stand below.
"""

import argparse
import asyncio
import os
import random
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlmodel import col, select
from tests.samples import page_of_lines, pdf

from benchmarks.start import memory_mb, tree
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.index import SQLiteIndex
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.receiving import Door
from terrace.knowledge.service import Knowledge
from terrace.knowledge.tables import ChunkRow
from terrace.knowledge.tasks import job_kinds
from terrace.settings import Settings
from terrace.storage import Database, FolderBlobs, open_database
from terrace.types import Scope

SCOPE = Scope("bench")
TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.2
_WORDS = """
water river station pressure engine report model value surface control system result method temperature energy history
government city people language music war king century island north southern population company market price contract
law court judge member school student teacher book paper author title chapter section table figure increase decrease
measured observed described considered provided required according between within without during after before under
over large small high low early late first second third several many other another certain
"""
VOCABULARY = _WORDS.split()


@dataclass
class Cost:
    """Wall and CPU seconds of this process and all it started, and the largest memory they had together."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak_mb: float = 0.0


class Meter:
    """Watches the process tree while a block runs."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._seen: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Cost:
        self._before = self._cpu()
        self._begun = time.perf_counter()
        self._thread.start()
        return self.cost

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cost.seconds = time.perf_counter() - self._begun
        self._stop.set()
        self._thread.join()
        self.cost.cpu = self._cpu() - self._before

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._cpu()
            try:
                self.cost.peak_mb = max(self.cost.peak_mb, memory_mb(os.getpid()))
            except OSError:  # a process ended while it was looked at
                continue

    def _cpu(self) -> float:
        """Of every process ever seen; one that ended counts with what it had when last looked at."""
        for pid in tree(os.getpid()):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            self._seen[pid] = (int(fields[11]) + int(fields[12])) / TICK
        return sum(self._seen.values())


@dataclass
class House:
    database: Database
    jobs: LocalJobs
    knowledge: Knowledge
    embedder: Any


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        processes = Processes(settings.jobs.cpu_slots + 1)
        stack.push_async_callback(processes.close)
        embedder = open_embedder(settings.knowledge.embedding, settings.data)
        stack.push_async_callback(embedder.close)
        jobs = LocalJobs(database, settings.jobs)
        stack.push_async_callback(jobs.close)
        blobs, index = FolderBlobs(settings.data / "blobs"), SQLiteIndex(database)
        files = FileParser(settings.knowledge, processes)
        for kind in job_kinds(Ingest(database, blobs, files, index, embedder)):
            jobs.register(kind)
        door = Door(blobs, processes, settings.knowledge)
        yield House(database, jobs, Knowledge(database, blobs, jobs, index, door, files), embedder)


async def pieces(path: Path) -> AsyncIterator[bytes]:
    yield await asyncio.to_thread(path.read_bytes)


async def ingest(house: House, paths: list[Path]) -> None:
    await house.jobs.start()
    job_ids = [(await house.knowledge.upload(SCOPE, path.name, pieces(path)))[1] for path in paths]
    for job_id in job_ids:
        if job_id is not None:
            await house.jobs.wait(SCOPE, job_id)


async def embed_alone(house: House) -> None:
    texts = await house.database.read(
        lambda session: list(session.exec(select(ChunkRow.text).order_by(col(ChunkRow.number))))
    )
    texts.sort(key=len)
    await house.embedder.embed(texts)


async def run(paths: list[Path], data: Path) -> None:
    settings = Settings(data=data)
    async with opened(settings) as house:
        with Meter() as whole:
            await ingest(house, paths)
        counts = await house.knowledge.counts(SCOPE)
        with Meter() as alone:
            if house.embedder.state().state != "absent":
                await embed_alone(house)
        print(f"{len(paths)} files, {counts['bytes'] / 1e6:.1f} MB, {house.embedder.state().model}")
        print(f"states {counts['states']}, {counts['chunks']} passages, {counts['vectors']} vectors\n")
        show(whole, alone, counts["chunks"])


def show(whole: Cost, alone: Cost, chunks: int) -> None:
    print(f"{'':34}{'seconds':>9}{'CPU s':>9}{'passages/s':>12}{'peak MB':>9}")
    for name, cost in (("Terrace, file to searchable", whole), ("embedding alone (reference)", alone)):
        rate = chunks / cost.seconds if cost.seconds else 0
        print(f"{name:34}{cost.seconds:9.1f}{cost.cpu:9.1f}{rate:12.1f}{cost.peak_mb:9.0f}")
    print(f"{'ratio of CPU':34}{'':9}{whole.cpu / max(alone.cpu, 0.01):9.2f}")
    print("\nFor 1,995 passages on two quiet cores LangChain takes 147 s and 1,062 MB; budget: 59 s and 400 MB.")


def generate(folder: Path, seed: int = 2) -> None:
    """The mix that the budget names, the same each time for a seed."""
    chance = random.Random(seed)
    for suffix, count in ((".pdf", 8), (".txt", 52), (".html", 37), (".md", 6)):
        for number in range(count):
            paragraphs = [prose(chance) for _ in range(13)]
            (folder / f"{number:03}{suffix}").write_bytes(as_file(suffix, paragraphs))


def prose(chance: random.Random) -> str:
    sentences = [" ".join(chance.choices(VOCABULARY, k=chance.randrange(8, 22))) for _ in range(10)]
    return " ".join(sentence.capitalize() + "." for sentence in sentences)


def as_file(suffix: str, paragraphs: list[str]) -> bytes:
    if suffix == ".pdf":
        lines = [line for paragraph in paragraphs for line in wrapped(paragraph)]
        return pdf([page_of_lines(lines[at : at + 45]) for at in range(0, len(lines), 45)])
    if suffix == ".html":
        body = "".join(f"<h2>{p[:30]}</h2><p>{p}</p>" for p in paragraphs)
        return f"<!doctype html><html><title>{paragraphs[0][:40]}</title><body>{body}</body></html>".encode()
    heads = "## " if suffix == ".md" else ""
    return "\n\n".join(f"{heads}{p[:30]}\n\n{p}" for p in paragraphs).encode()


def wrapped(paragraph: str) -> list[str]:
    words, lines = paragraph.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 85:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    chosen = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as data:
        if chosen is None:
            generate(Path(made))
        paths = sorted(path for path in (chosen or Path(made)).rglob("*") if path.is_file())
        asyncio.run(run(paths, Path(data)))


if __name__ == "__main__":
    main()
