"""`kill -9` at random moments while a database is moved, kept and restored: nothing lost, nothing half-done used."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.moving import made_up, make
from tests.postgres import Postgres

from terrace.errors import Conflict, Missing
from terrace.moving.places import Place, open_side, place
from terrace.moving.state import read_state
from terrace.moving.sums import Sum, sums_of
from terrace.settings import Settings
from terrace.storage import open_database
from terrace.storage.migrate import UNFINISHED

CHUNKS = 3000
KILLS = 3
SEED = int(os.environ.get("FAULT_SEED", random.randrange(2**32)))

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Place]:
    url = postgres.create(empty=True)
    yield place(url)
    postgres.drop(url)


async def killed(data: Path, after: float, *words: str) -> int:
    """The exit code; -9 when it was killed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "terrace", *words, env={**environment, "TERRACE_DATA": str(data)},
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return await asyncio.wait_for(process.wait(), after)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        return await process.wait()


def sums(where: Place) -> dict[str, Sum]:
    with closing(open_side(where)) as side:
        return sums_of(side, side.tables(), lambda *_: None)


async def is_refused(where: Place, data: Path) -> None:
    """What is half there cannot be opened by a server."""
    try:
        with closing(open_side(where)) as side:
            half = side.version() == UNFINISHED
            assert half == (read_state(side) is not None and not read_state(side).sums)  # type: ignore[union-attr]
    except Missing:
        return
    if half:
        with pytest.raises(Conflict, match="still being moved"):
            await open_database(Settings(data=data, storage={"url": where.address}))


@pytest.mark.parametrize("way", ["to postgresql", "to sqlite"])
async def test_a_move_killed_at_any_moment_goes_on(way: str, empty: Place, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    await make(tmp_path / "source.db", made_up(CHUNKS))
    source = place(f"sqlite:///{tmp_path / 'source.db'}")
    before = sums(source)
    there = empty if way == "to postgresql" else place(f"sqlite:///{tmp_path / 'there.db'}")
    (tmp_path / "data").mkdir()
    kills, code = 0, -9
    while code != 0:
        delay = chance.uniform(1.5, 6) if kills < KILLS else 250
        code = await killed(tmp_path / "data", delay, "move", source.address, there.address, "--resume")
        assert code in (0, -9), f"seed {SEED}"
        kills += code != 0
        await is_refused(there, tmp_path / "data")
    assert sums(there) == sums(source) == before, f"seed {SEED}"
    print(f"killed {kills} times, {sum(each.rows for each in before.values()):,} rows, none lost, none changed")


async def test_a_backup_and_a_restore_killed_at_any_moment(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    data = tmp_path / "data"
    data.mkdir()
    await make(data / "terrace.db", made_up(CHUNKS))
    for number in range(200):
        path = data / "blobs" / "acme" / f"file_{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * 20_000)
    file, before = tmp_path / "terrace.tar", sums(place(f"sqlite:///{data / 'terrace.db'}"))
    kills, code = 0, -9
    while code != 0:
        code = await killed(data, chance.uniform(1, 3) if kills < 3 else 250, "backup", str(file))
        if code and file.exists():  # killed between its last rename and its end: it is whole, then
            code = await killed(data, 250, "verify", str(file))
        assert file.exists() == (code == 0), f"seed {SEED}"
        kills += code != 0
    new, restoring, code = tmp_path / "new", 0, -9
    while code != 0:
        delay = chance.uniform(1, 4) if restoring < KILLS else 250
        code = await killed(new, delay, "restore", str(file), "--resume")
        assert code in (0, -9), f"seed {SEED}"
        restoring += code != 0
    assert sums(place(f"sqlite:///{new / 'terrace.db'}")) == before
    assert len(list((new / "blobs" / "acme").iterdir())) == 200
    print(f"backup killed {kills} times, restore {restoring} times, nothing lost")
