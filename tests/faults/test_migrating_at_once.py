"""Ten processes open an empty PostgreSQL at the same moment: one migrates it, nine find it done."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.postgres import Postgres

from terrace.storage.migrate import head

pytestmark = pytest.mark.faults

OPEN = """
import asyncio, sys
from terrace.settings import Settings
from terrace.storage import open_database
sys.stdin.read(1)  # all of them at once
async def main():
    database = await open_database(Settings(data=sys.argv[1], storage={"url": sys.argv[2], "connections": 2}))
    await database.close()
asyncio.run(main())
"""
PROCESSES = 10


def test_ten_processes_migrate_once(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.create(empty=True)
    command = [sys.executable, "-c", OPEN, str(tmp_path), url]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.flush()
    told = [process.communicate(timeout=240)[1] for process in processes]
    assert [(process.returncode, words) for process, words in zip(processes, told, strict=True)] == [
        (0, "")
    ] * PROCESSES
    with postgres.connection(url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(head(),)]
    postgres.drop(url)
