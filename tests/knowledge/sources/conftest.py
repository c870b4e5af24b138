"""Sources without a network: a web that is a dictionary, and everything else as it is."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from terrace import settings
from terrace.accounts.limits.unlimited import Unlimited
from terrace.errors import TerraceError
from terrace.knowledge.receiving import Door
from terrace.knowledge.sources.base import NewSource, Options
from terrace.knowledge.sources.fetching import Pace
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.running import Runner
from terrace.knowledge.sources.service import Sources
from terrace.knowledge.sources.visiting import Visitor
from terrace.outbound.base import NO_HEADERS, Fetched, check_url
from terrace.types import Scope

SITE = "http://site.example"


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Web:
    """An Outbound: pages by address. `etag`s are honoured; what is not there is a 404; an error is raised."""

    pages: dict[str, Answer | TerraceError] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    before: Callable[[str], Any] | None = None

    def put(self, path: str, body: str | bytes = "", status: int = 200, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[_at(path)] = Answer(data, status, {"content-type": "text/html; charset=utf-8", **given})

    def page(self, path: str, text: str, *links: str, title: str = "", **headers: str) -> None:
        anchors = "".join(f'<a href="{link}">x</a>' for link in links)
        head = f"<title>{title or text[:20]}</title>"
        self.put(path, f"<html><head>{head}</head><body><p>{text}</p>{anchors}</body></html>", **headers)

    def fail(self, path: str, error: TerraceError) -> None:
        self.pages[_at(path)] = error

    @property
    def paths(self) -> list[str]:
        """What was asked for, without robots.txt and the address that is not there."""
        told = (url.removeprefix(SITE) for url, _ in self.asked)
        return [path for path in told if path != "/robots.txt" and "is-not-there" not in path]

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes | None = None,
        max_bytes: int | None = None,
        timeout: float | None = None,
        redirects: int = 0,
        same_site: bool = False,
        truncate: bool = False,
    ) -> Fetched:
        self.asked.append((url, headers))
        if self.before is not None:
            self.before(url)
        answer = self.pages.get(url, Answer(b"<p>Nothing is here.</p>", 404))
        if isinstance(answer, TerraceError):
            raise answer
        if redirects and 300 < answer.status < 400 and answer.status != 304:
            return await self.fetch(method, answer.headers["location"], headers=headers, redirects=redirects - 1)
        etag = answer.headers.get("etag")
        if etag and headers.get("If-None-Match") == etag:
            return Fetched(url, 304, answer.headers, b"")
        return Fetched(url, answer.status, answer.headers, answer.body)

    def check(self, url: str) -> str:
        return check_url(url)

    async def close(self) -> None:
        pass


def _at(path: str) -> str:
    return path if "://" in path else SITE + path


class Here:
    """Processes that are this one."""

    async def run(self, function: Callable[..., Any], *arguments: Any, timeout: float, memory: int) -> Any:
        return function(*arguments)


class Lab:
    def __init__(self, library: Any, folders: tuple[Path, ...], **options: Any) -> None:
        self.library = library
        self.web = Web()
        self.options = settings.Schedules(folders=folders, **{"delay": 0, **options})
        knowledge = settings.Knowledge(max_file_bytes=1_000_000)
        door = Door(library.blobs, library.processes, knowledge)
        self.keeper = Keeper(library.database, library.blobs, library.jobs, library.index, door, Unlimited())
        self.visitor = Visitor(library.database, Here(), self.keeper, settings.Outbound(), knowledge)  # type: ignore[arg-type]
        self.runner = Runner(
            library.database,
            Here(),
            self.web,
            self.keeper,
            self.options,
            self.visitor,
            Pace(),
            settled=0.1,  # type: ignore[arg-type]
        )
        library.jobs.register(self.runner.kind())
        self.sources = Sources(library.database, library.blobs, library.jobs, self.keeper, self.web, self.options)

    async def make(self, scope: Scope, kind: Any, location: str, **more: Any) -> Any:
        options = Options(**{name: more.pop(name) for name in ("include", "exclude", "depth", "pages") if name in more})
        return await self.sources.create(scope, NewSource(kind, location, options=options, **more))

    async def run(self, scope: Scope, source: Any, *, confirm: bool = False, writes: int = 100_000) -> Any:
        """One run to its end as an engine would do it; the report."""
        job_id = await self.sources.run(scope, source.id, confirm=confirm)
        await self.library.run(scope, job_id, writes=writes)
        await self.end(scope, job_id)
        return (await self.sources.get(scope, source.id)).report

    async def end(self, scope: Scope, job_id: str) -> None:
        """The engine is not at work here, so the job is told to be over."""
        query = text("UPDATE jobs SET state = 'succeeded' WHERE id = :id")
        await self.library.database.write(lambda session: session.execute(query, {"id": job_id}) and None)

    async def texts(self, scope: Scope) -> dict[str, str]:
        """Every document's name and original."""
        found, _ = await self.library.knowledge.list(scope, limit=500)
        told = {}
        for each in found:
            _, stream = await self.library.knowledge.original(scope, each.id)
            told[each.name] = b"".join([piece async for piece in stream]).decode()
        return told

    async def items(self, scope: Scope, source: Any, outcome: Any = None) -> dict[str, str]:
        found, _ = await self.sources.items(scope, source.id, outcome=outcome, limit=200)
        return {each.key.removeprefix(SITE): f"{each.outcome}: {each.reason}".removesuffix(": ") for each in found}


@pytest.fixture
def lab(library: Any, tmp_path: Path) -> Lab:
    folder = tmp_path / "watched"
    folder.mkdir()
    return Lab(library, (folder, tmp_path / "{tenant}"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the first tenant."""
    place = tmp_path / "watched"
    place.mkdir(exist_ok=True)
    return place


def write(path: Path, text: str, *, age: float = 60.0) -> None:
    """A file that rests since `age` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    at = time.time() - age
    os.utime(path, (at, at))
