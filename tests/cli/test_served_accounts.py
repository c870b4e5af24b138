"""Accounts from the command line, against the real server, from the first account on."""

import json
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.conftest import Done, environment, invoke, start

PASSWORD = "seven metres of quay"
SHOWN_CODE = re.compile(r"the code ([0-9A-Z]{8})")


@dataclass
class Person:
    """Somebody on a machine of their own: no data folder in common with the server."""

    home: Path
    server: str = ""

    def __call__(self, *arguments: str, input: str = "", code: int = 0, **more: str) -> str:
        """What is printed by a command that ends with `code`."""
        done = self._done(*arguments, input=input, **more)
        assert done.code == code, done.out + done.err
        return done.out

    def refused(self, *arguments: str, **more: str) -> str:
        """What a command says that ends with 3."""
        done = self._done(*arguments, **more)
        assert done.code == 3, done.out + done.err
        return done.err

    def _done(self, *arguments: str, input: str = "", **more: str) -> Done:
        return invoke(environment(self.home / "data", TERRACE_SERVER=self.server, **more), *arguments, input=input)


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Person, str, str]]:
    """A server that listens beyond loopback, before anybody has an account; with its address and setup code."""
    data = tmp_path_factory.mktemp("server") / "data"
    with start(data, "serve", "--host", "0.0.0.0") as process:
        assert process.stdout is not None
        patience = threading.Timer(100, process.kill)
        patience.start()
        ready = process.stdout.readline()
        more = process.stdout.readline()
        elsewhere, more = (more, process.stdout.readline()) if "other machines" in more else ("", more)
        code = SHOWN_CODE.search(more)
        patience.cancel()
        assert code
        port = ready.split("ready at ")[1].split()[0].rpartition(":")[2]
        if elsewhere:  # the machine has a network
            assert "localhost" not in elsewhere
            assert elsewhere.rstrip().endswith(f":{port}")
            assert f"{elsewhere.split()[-1]}/setup" in more
        yield Person(data.parent), f"http://127.0.0.1:{port}", code[1]
        process.terminate()
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def terminal(open_to_all: tuple[Person, str, str]) -> Person:
    """After the first account was made."""
    terminal, url, _ = open_to_all
    assert "wants to know who you are" in Person(terminal.home / "stranger", url).refused("jobs")
    terminal("user", "add", "eve@example.org", "--password-stdin", input=PASSWORD, code=2)  # not the owner
    made = terminal("user", "add", "ada@example.org", "--name", "Ada", "--owner", "--password-stdin", input=PASSWORD)
    assert "ada@example.org is here as owner" in made
    return terminal


@pytest.fixture
def ada(terminal: Person, open_to_all: tuple[Person, str, str], tmp_path: Path) -> Person:
    """The owner, logged in from elsewhere."""
    ada = Person(tmp_path, open_to_all[1])
    ada("login", "--email", "ada@example.org", "--password-stdin", input=PASSWORD)
    return ada


def test_an_owner_logs_in_asks_and_leaves(ada: Person) -> None:
    assert "Ada <ada@example.org>, owner of " in ada("whoami")
    assert ada("ask", "Anything?", "--no-documents")
    assert ada("ask", "Anything?", "--no-documents")  # with the refresh token that the first one left
    assert ada("jobs").count("chat.generate") >= 2
    ada("logout")
    assert "terrace login" in ada.refused("jobs")


def test_the_terminal_is_the_operator(terminal: Person) -> None:
    assert "The operator" in terminal("whoami")
    assert "ada@example.org" in terminal("user", "list")


def test_keys(ada: Person, tmp_path: Path) -> None:
    secret = ada(
        "key", "create", "ci", "--scope", "chat", "--expires", "1d", "--limit", "requests_per_minute=1"
    ).strip()
    assert secret.startswith("trc_")
    job = Person(tmp_path / "job", ada.server)
    assert job("ask", "Anything?", "--no-documents", TERRACE_API_KEY=secret)
    assert "permission" in job.refused("search", "quay", TERRACE_API_KEY=secret)
    job("ask", "Anything?", "--no-documents", code=6, TERRACE_API_KEY=secret)
    assert "requests_per_minute" in ada("limits", "ci")

    newer = ada("key", "rotate", "ci", "--overlap", "1h").strip()
    for each in (secret, newer):
        job("models", TERRACE_API_KEY=each)
    ada("key", "revoke", "ci", "--yes")
    assert "TERRACE_API_KEY" in job.refused("models", TERRACE_API_KEY=newer)
    assert "revoked" in ada("key", "list")


def test_people(terminal: Person, ada: Person, tmp_path: Path) -> None:
    ada("user", "add", "bob@example.org", "--role", "viewer", "--password-stdin", input=PASSWORD)
    ada("user", "add", "bob@example.org", "--password-stdin", input=PASSWORD, code=5)
    assert "[]" in ada("user", "invitations", "--json")
    bob = Person(tmp_path / "bob", ada.server)
    bob("login", "--email", "bob@example.org", "--password-stdin", input=PASSWORD)
    assert "viewer" in bob.refused("ask", "Anything?")
    ada("user", "role", "bob@example.org", "member")
    bob("ask", "Anything?", "--no-documents")
    assert "/join#" in ada("user", "invite", "carol@example.org")
    assert "/reset#" in ada("user", "reset-link", "bob@example.org")
    terminal("user", "disable", "bob@example.org")
    assert "has ended" in bob.refused("jobs")
    terminal("user", "disable", "bob@example.org", "--enable")
    terminal("user", "erase", "bob@example.org", "--yes")
    assert "bob@example.org" not in ada("user", "list")


def test_tenants(terminal: Person, ada: Person, tmp_path: Path) -> None:
    made = json.loads(terminal("tenant", "create", "--count", "3", "--prefix", "shop", "--json"))
    assert [each["name"] for each in made] == ["shop-1", "shop-2", "shop-3"]
    terminal("tenant", "create", "shop-2", code=5)
    limited = terminal("tenant", "limits", "shop-1", "money_per_month=20", "requests_per_minute=60")
    assert "money_per_month\t$20.00" in limited
    assert "requests_per_minute" not in terminal("tenant", "limits", "shop-1", "requests_per_minute=none")

    (tmp_path / "quay.txt").write_text("The quay is seven metres deep.")
    terminal("ingest", str(tmp_path / "quay.txt"), "--tenant", "shop-1")
    assert "quay.txt" in terminal("search", "quay", "--tenant", "shop-1")
    assert "quay.txt" not in terminal("search", "quay", TERRACE_TENANT="shop-2")
    ada("whoami", "--tenant", "shop-1", code=2)  # logged in to another

    to = tmp_path / "shop-1.zip"
    ada("tenant", "export", "shop-1", "-o", str(to))
    with zipfile.ZipFile(to) as archive:
        assert any("quay" in name for name in archive.namelist()), archive.namelist()
    terminal("tenant", "disable", "shop-3")
    assert "disabled" in terminal("tenant", "show", "shop-3")
    terminal("tenant", "delete", "shop-1", "--yes")
    assert "shop-1" not in terminal("tenant", "list")


def test_usage(ada: Person) -> None:
    ada("ask", "Anything?", "--no-documents")
    assert json.loads(ada("usage", "--json", "--by", "model"))["total"]["calls"] >= 1
    assert ada("usage", "--by", "user", "--csv").count("\n") >= 2
    assert ada("usage", "--tenant", "default")
    assert len(json.loads(ada("usage", "calls", "-n", "1", "--json"))) == 1
    ada("usage", "prices", "set", "mine/model", "--input", "0.15", "--output", "0.6", "--cached", "0.05")
    assert "mine/model\t$0.15\t$0.05\t$0.6" in ada("usage", "prices", "-q", "mine/")
    ada("usage", "prices", "remove", "mine/model")
    assert "mine/model" not in ada("usage", "prices")


def test_a_private_server_is_the_terminals(tmp_path: Path) -> None:
    """With accounts, and no server running: a command that starts one is its operator."""
    terminal = Person(tmp_path)
    terminal("user", "add", "ada@example.org", "--owner", "--password-stdin", input=PASSWORD)
    assert "ada@example.org" in terminal("user", "list")
    assert terminal("ask", "Anything?", "--no-documents")
