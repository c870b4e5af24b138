"""The real command in a process of its own, against a server of the test or none."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.stub import Stub, stub
from typer.testing import CliRunner

from terrace.cli.app import run

QUICK = {
    "TERRACE_PORT": "0",
    "TERRACE_MODELS__DISCOVER": "false",
    "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
    "TERRACE_STORAGE__DURABILITY": "normal",
}
NO_KEYRING = "keyring.backends.fail.Keyring"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(data: Path, **more: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TERRACE_")}
    home = str(data.parent / "home")  # nobody's own logins and keyring
    private = {"HOME": home, "XDG_CONFIG_HOME": f"{home}/.config", "PYTHON_KEYRING_BACKEND": NO_KEYRING}
    return {**clean, **QUICK, **private, "TERRACE_DATA": str(data), **more}


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
        assert process.wait(60) == 0


@pytest.fixture
def terrace(data: Path, tmp_path: Path) -> Run:
    """Run a command to its end, in an empty folder."""

    def execute(
        *arguments: str, input: str | None = None, on: Path = data, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "terrace", *arguments],
            env=environment(on, **more), input=input, cwd=tmp_path,
            text=True, capture_output=True, timeout=100, check=False,
        )  # fmt: skip

    return execute


@pytest.fixture
def quickly(data: Path, tmp_path: Path) -> Run:
    """As `terrace`, but in this process: what is asked of a server needs none of its own, and is ten times as quick."""

    def execute(
        *arguments: str, input: str | None = None, on: Path = data, **more: str
    ) -> "subprocess.CompletedProcess[str]":
        with chdir(tmp_path):
            done = invoke(environment(on, **more), *arguments, input=input)
        return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)

    return execute


@pytest.fixture
def server() -> Iterator[Stub]:
    with stub() as told:
        yield told


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


def invoke(environment: dict[str, str], *arguments: str, input: str | None = None) -> Done:
    """A command in this process, which is quicker than one of its own."""
    others = dict.fromkeys(name for name in os.environ if name not in environment)
    with CliRunner().isolation(input, {**others, **environment}) as (out, err, _), called(*arguments):
        code: object = 0
        try:
            run()
        except SystemExit as ended:
            code = ended.code or 0
        sys.stderr.flush()
        said = out.getvalue().decode(), err.getvalue().decode()
    assert isinstance(code, int)
    return Done(code, *said)


@contextmanager
def called(*arguments: str) -> Iterator[None]:
    before, sys.argv = sys.argv, ["terrace", *arguments]
    try:
        yield
    finally:
        sys.argv = before


@dataclass
class Here:
    """Commands in this process, against the stub: quick. Each `Here` is a person with a home of their own."""

    server: Stub
    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def logins(self) -> Path:
        return self.folder / "home" / ".config" / "terrace" / "logins"

    def environment(self, **more: str) -> dict[str, str]:
        return environment(self.data, **{"TERRACE_SERVER": self.server.url, **more})

    def __call__(self, *arguments: str, input: str | None = None, **more: str) -> Done:
        return invoke(self.environment(**more), *arguments, input=input)

    def log_in(self) -> None:
        assert self("login", "--email", "ada@example.org", "--password-stdin", input="correct horse\n").code == 0
        self.server.asked.clear()


@pytest.fixture
def here(server: Stub, tmp_path: Path) -> Here:
    return Here(server, tmp_path)
