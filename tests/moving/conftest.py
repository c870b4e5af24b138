"""An installation that was lived in: documents with passages and vectors of two tenants, accounts, questions, files."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlmodel import Session
from tests.s3 import S3Service, s3_service

from terrace import assembly
from terrace.knowledge.index import SQLiteIndex
from terrace.moving.places import Place, open_side, place
from terrace.moving.sums import Sum, sums_of
from terrace.settings import Settings
from terrace.types import Scope

MODEL = "made-up"
DIMENSIONS = 16
WORDS = (
    "quay", "crane", "harbour", "tide", "rope", "ballast", "anchor", "mast", "keel",
    "buoy", "pilot", "tug", "berth", "cargo", "hull", "bow", "stern", "rudder",
)  # fmt: skip


def quiet(doing: str, done: int, total: int) -> None:
    return None


def settings_of(data: Path, **storage: object) -> Settings:
    return Settings(
        data=data,
        models={"discover": False},
        knowledge={"embedding": {"model": "none"}},
        storage={"durability": "normal", **storage},
    )


@dataclass(frozen=True)
class Installation:
    data: Path

    @property
    def settings(self) -> Settings:
        return settings_of(self.data)

    @property
    def place(self) -> Place:
        return place(f"sqlite:///{self.data / 'terrace.db'}")


def sums(where: Place) -> dict[str, Sum]:
    with closing(open_side(where)) as side:
        return sums_of(side, side.tables(), quiet)


def text(number: int) -> str:
    return ". ".join(
        f"The {WORDS[(number * 7 + line) % 18]} of the {WORDS[(number + line * 5) % 18]} is {number + line} metres"
        for line in range(60)
    )


async def live(settings: Settings) -> None:
    async with assembly.assemble(settings) as house:
        await house.jobs.start()
        for tenant in ("default", "globex"):
            scope = Scope(tenant)
            for number in range(6):
                content = text(number + len(tenant)).encode()
                document, _ = await house.knowledge.upload(scope, f"{number}.txt", pieces(content), tags=["harbour"])
                await ready(house, scope, document.id)
            await house.chat.create(scope, "About the quay")
            await house.database.write(add_vectors, house.index, scope)
        await house.jobs.drain()


async def ready(house: assembly.House, scope: Scope, document_id: str) -> None:
    async with asyncio.timeout(60):
        while (await house.knowledge.get(scope, document_id)).state != "ready":  # noqa: ASYNC110 a job's doing
            await asyncio.sleep(0.02)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def add_vectors(session: Session, index: SQLiteIndex, scope: Scope) -> None:
    run = session.connection().exec_driver_sql
    ids = [row[0] for row in run("SELECT id FROM chunks WHERE tenant_id = ?", (scope.tenant,))]
    vectors = np.random.default_rng(5).standard_normal((len(ids), DIMENSIONS)).astype(np.float32)
    index.add_vectors(session, scope, MODEL, ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="session")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("lived") / "data"
    asyncio.run(live(settings_of(data)))
    return data


@pytest.fixture
def installation(lived_in: Path, tmp_path: Path) -> Installation:
    """A copy of its own."""
    shutil.copytree(lived_in, tmp_path / "data")
    return Installation(tmp_path / "data")


@pytest.fixture(scope="session")
def bucket() -> Iterator[S3Service]:
    with s3_service() as service:
        asyncio.run(service.make())
        yield service
