"""The real command in a process of its own, against a server of the test or none."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

QUICK = {
    "TERRACE_PORT": "0",
    "TERRACE_MODELS__DISCOVER": "false",
    "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
    "TERRACE_STORAGE__DURABILITY": "normal",
}
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(data: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")}
    return {**clean, **QUICK, "TERRACE_DATA": str(data), **more}


def start(data: Path, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "terrace", *arguments],
        env=environment(data, **more), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def served(data: Path) -> Iterator[str]:
    """The address of a server that runs on `data`."""
    with start(data, "serve") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "ready at" in line, line
        yield line.split("ready at ")[1].split()[0]
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def terrace(data: Path, tmp_path: Path) -> Run:
    """Run a command to its end, in an empty folder."""

    def run(
        *arguments: str, input: str | None = None, on: Path = data, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "terrace", *arguments],
            env=environment(on, **more), input=input, cwd=tmp_path,
            text=True, capture_output=True, timeout=60, check=False,
        )  # fmt: skip

    return run
