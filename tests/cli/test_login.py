"""Logging in, staying logged in, and who a command is to a server."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cli.conftest import Here
from tests.cli.stub import ACME, Answer, Asked, events, problem

from terrace.cli.credentials import Login
from terrace.cli.keyring import Keyring
from terrace.cli.logins import Logins, Saved
from terrace.errors import Invalid, Unauthenticated, Unavailable

KEY = "trc_06bq_" + "s" * 43
ROOT = Path(__file__).parent.parent.parent


class Vault:
    """A keyring in memory, that can be locked."""

    def __init__(self, *, locked: bool = False) -> None:
        self.kept: dict[str, str] = {}
        self.locked = locked

    def get(self, name: str) -> str | None:
        return self._open().get(name)

    def put(self, name: str, secret: str) -> None:
        self._open()[name] = secret

    def remove(self, name: str) -> None:
        self._open().pop(name, None)

    def _open(self) -> dict[str, str]:
        if self.locked:
            raise Unavailable("The keyring is locked.")
        return self.kept


def test_log_in_ask_and_log_out(here: Here) -> None:
    said = here("login", "--email", "ada@example.org", "--password-stdin", input="correct horse\n")
    assert said.code == 0
    assert f"Logged in to {here.server.url} as ada@example.org, admin of acme." in said.out
    [kept] = here.logins.glob("*.json")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert here.logins.stat().st_mode & 0o077 == 0
    assert "correct horse" not in kept.read_text()
    assert "access" not in kept.read_text()  # in memory alone

    for _ in range(2):  # each command renews, and keeps what it got
        me = here("whoami")
        assert me.out == f"Ada <ada@example.org>, admin of acme, at {here.server.url} by login.\n"
        assert json.loads(kept.read_text())["refresh_token"] == here.server.refresh

    assert here("logout").out == f"Logged out of {here.server.url}.\n"
    assert here.server.sent("POST /api/auth/logout") == [{"refresh_token": here.server.refresh}]
    assert not list(here.logins.glob("*.json"))
    assert here("whoami").code == 3
    assert "not logged in" in here("logout").out


def test_whoami_tells_no_secret(here: Here) -> None:
    here.log_in()
    told = json.loads(here("whoami", "--json").out)
    assert (told["by"], told["user"]["email"]) == ("login", "ada@example.org")
    assert "csrf" not in told


def test_a_wrong_password_is_the_servers_to_tell(here: Here) -> None:
    failed = here("login", "--email", "ada@example.org", "--password-stdin", input="wrong\n")
    assert (failed.code, failed.err) == (3, "terrace: The address or the password is wrong.\n")
    assert not list(here.logins.glob("*.json"))


@pytest.mark.parametrize("given", ["", "\n", "x" * 5000 + "\n"])
def test_a_password_that_is_none(here: Here, given: str) -> None:
    assert here("login", "--email", "a@b.org", "--password-stdin", input=given).code == 2
    assert here.server.asked == []


def test_nothing_to_ask_at(here: Here) -> None:
    failed = here("login", "--email", "ada@example.org", input="")
    assert failed.code == 2
    assert "--password-stdin" in failed.err


def test_logging_in_again_ends_the_login_before(here: Here) -> None:
    here.log_in()
    before = here.server.refresh
    here("login", "--email", "ada@example.org", "--password-stdin", input="correct horse\n")
    assert here.server.sent("POST /api/auth/logout") == [{"refresh_token": before}]


def test_a_login_for_one_of_several_tenants(here: Here) -> None:
    here.server.on("POST /api/auth/switch", lambda asked: here.server._tokens() | {"tenant": ACME})
    other = {**ACME, "id": "tnt_globex", "name": "globex"}
    session = {"tenants": [ACME, other]}
    here.server.on("GET /api/auth/session", session)
    given = ("login", "--email", "ada@example.org", "--password-stdin", "--tenant")
    assert here(*given, "globex", input="correct horse\n").code == 0
    assert here.server.sent("POST /api/auth/switch") == [{"tenant": "tnt_globex"}]
    none = here(*given, "initech", input="correct horse\n")
    assert none.code == 2
    assert "acme, globex" in none.err


def test_forgotten_here_though_the_server_is_away(here: Here) -> None:
    here.log_in()
    here.server.on("POST /api/auth/logout", problem(503, "unavailable", "Not now."))
    out = here("logout")
    assert out.code == 0
    assert "could not be told" in out.err
    assert not list(here.logins.glob("*.json"))


def test_a_login_that_ended_says_what_to_do(here: Here) -> None:
    here.log_in()
    here.server.revoked = True
    failed = here("user", "list")
    assert failed.code == 3
    told = f"Your login at {here.server.url} has ended: run `terrace login --server {here.server.url}`."
    assert failed.err == f"terrace: {told}\n"


class TestWhoWeAre:
    """A key, else a login, else the terminal's token, else nobody."""

    def shown(self, here: Here, **more: str) -> str | None:
        here.server.on("GET /api/members", {"items": [], "next": None})
        here("user", "list", **more)
        return here.server.asked[-1].bearer

    def own(self, here: Here, token: str = "terminal-token", **more: str) -> None:
        here.server.keys.add(token)
        here.server.on("GET /api/status", {"data": str(here.data)})
        here.data.mkdir(exist_ok=True)
        (here.data / "server.json").write_text(json.dumps({"url": here.server.url, "pid": 1, "token": token, **more}))

    def test_in_this_order(self, here: Here) -> None:
        assert self.shown(here) is None
        self.own(here)
        assert self.shown(here) == "terminal-token"
        here.log_in()
        assert self.shown(here) == here.server.access
        assert self.shown(here, TERRACE_API_KEY=KEY) == KEY

    def test_the_terminals_token_goes_to_our_own_server_alone(self, here: Here) -> None:
        self.own(here, url="http://127.0.0.1:9")
        assert self.shown(here) is None

    def test_nor_to_another_server_at_its_address(self, here: Here) -> None:
        self.own(here)
        here.server.on("GET /api/status", {"data": "/elsewhere"})
        assert self.shown(here) is None

    def test_every_name_of_this_machine_is_the_same(self, here: Here) -> None:
        self.own(here)
        assert self.shown(here, TERRACE_SERVER=here.server.url.replace("127.0.0.1", "localhost")) == "terminal-token"

    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_our_own_server_needs_no_name(self, here: Here, host: str) -> None:
        self.own(here, url=here.server.url.replace("127.0.0.1", host))
        here.server.lists("/api/members")
        assert here("user", "list", TERRACE_SERVER="").code == 0
        assert {each.bearer for each in here.server.asked} == {"terminal-token"}

    def test_a_401_says_what_to_do(self, here: Here) -> None:
        url = here.server.url
        nobody = here("user", "list")
        assert (nobody.code, nobody.err) == (
            3,
            f"terrace: {url} wants to know who you are: run `terrace login --server {url}` or set TERRACE_API_KEY.\n",
        )
        wrong = here("user", "list", TERRACE_API_KEY=KEY)
        assert wrong.code == 3
        assert "does not take the key in TERRACE_API_KEY" in wrong.err
        assert KEY not in wrong.err

    @pytest.mark.parametrize("key", ["trc_a\nX-Evil: 1", "trc_é" * 5, "short", "x" * 5000])
    def test_a_key_that_fits_in_no_header_is_not_shown(self, here: Here, key: str) -> None:
        failed = here("user", "list", TERRACE_API_KEY=key)
        assert failed.code == 2
        assert key not in failed.err
        assert here.server.asked == []

    def test_a_tenant_is_chosen_at_the_terminal(self, here: Here) -> None:
        self.own(here)
        here.server.lists("/api/tenants", ACME, {"id": "tnt_other", "name": "acme2"})
        here.server.lists("/api/members")
        assert here("user", "list", "--tenant", "acme").code == 0
        assert here.server.asked[-1].headers["terrace-tenant"] == "tnt_acme"
        assert here("user", "list", TERRACE_TENANT="tnt_x").code == 0
        assert here.server.asked[-1].headers["terrace-tenant"] == "tnt_x"
        assert here("user", "list", "--tenant", "nobody").code == 4

    def test_who_asks_for_another_tenant_does_not_get_their_own(self, here: Here) -> None:
        here.log_in()
        here.server.lists("/api/members")
        assert here("user", "list", "--tenant", "acme").code == 0
        assert "terrace login --tenant 'globex'" in here("user", "list", "--tenant", "globex").err
        assert here("user", "list", "--tenant", "acme", TERRACE_API_KEY=KEY).code == 2


def test_no_room_tells_when_there_is(here: Here) -> None:
    here.server.open = True
    said = "Your 60 requests a minute are used up."
    here.server.on("GET /api/members", problem(429, "limited", said, code="limit_reached", Retry_After="12"))
    command = [sys.executable, "-m", "terrace", "user", "list"]
    done = subprocess.run(command, env=here.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == f"terrace: {said} There is room in 12 s.\n"


class TestKeeping:
    def saved(self, token: str = "trr_1", url: str = "http://a") -> Saved:
        return Saved(url, "ada@example.org", token)

    def test_in_the_keyring(self, tmp_path: Path) -> None:
        vault = Vault()
        logins = Logins(tmp_path, vault)
        assert logins.put(self.saved()) == "the system's keyring."
        assert "trr_1" not in "".join(path.read_text() for path in tmp_path.glob("*"))
        assert logins.get("http://a") == self.saved()
        assert logins.get("http://b") is None
        logins.remove("http://a")
        assert vault.kept == {}
        assert logins.get("http://a") is None

    def test_in_a_file_where_there_is_none(self, tmp_path: Path) -> None:
        logins = Logins(tmp_path / "new" / "folder", Vault(locked=True))
        said = logins.put(self.saved())
        assert said.endswith("since: The keyring is locked.")
        where = Path(said.partition(",")[0])
        assert where.stat().st_mode & 0o777 == 0o600
        assert logins.get("http://a") == self.saved()
        logins.put(self.saved("trr_2", "http://b"))
        logins.remove("http://a")
        assert logins.get("http://a") is None
        assert logins.get("http://b") == self.saved("trr_2", "http://b")

    def test_a_keyring_that_is_locked_is_told(self, tmp_path: Path) -> None:
        vault = Vault()
        logins = Logins(tmp_path, vault)
        logins.put(self.saved())
        vault.locked = True
        with pytest.raises(Unavailable, match="locked"):
            logins.get("http://a")

    def test_a_broken_file_says_what_to_do(self, tmp_path: Path) -> None:
        logins = Logins(tmp_path, Vault(locked=True))
        for broken in ("{", "[]", '{"url": "x"}'):
            Path(logins.put(self.saved()).partition(",")[0]).write_text(broken)
            with pytest.raises(Invalid, match="terrace login"):
                logins.get("http://a")
        logins.remove("http://a")

    def test_a_secret_is_in_no_repr(self) -> None:
        assert "trr_1" not in repr(self.saved())

    @pytest.mark.parametrize("keyring", [Vault(), Vault(locked=True)])
    def test_many_at_once_use_no_token_twice(self, here: Here, tmp_path: Path, keyring: Keyring) -> None:
        url = here.server.url
        Logins(tmp_path, keyring).put(self.saved("trr_0", url))

        def ask(_: int) -> str:
            return Login(self.saved("", url), Logins(tmp_path, keyring)).token()

        with ThreadPoolExecutor(8) as commands:
            assert len(set(commands.map(ask, range(16)))) == 16
        assert not here.server.revoked
        kept = Logins(tmp_path, keyring).get(url)
        assert kept is not None
        assert kept.refresh_token == here.server.refresh

    def test_logged_out_meanwhile(self, here: Here, tmp_path: Path) -> None:
        with pytest.raises(Unauthenticated, match="has ended"):
            Login(self.saved("", here.server.url), Logins(tmp_path, Vault())).token()


def test_commands_at_once(here: Here) -> None:
    """The lock holds between processes."""
    here.log_in()
    command = [sys.executable, "-m", "terrace", "whoami"]
    running = [subprocess.Popen(command, env=here.environment(), stdout=subprocess.PIPE) for _ in range(4)]
    outputs = [each.communicate(timeout=90)[0] for each in running]
    assert [each.returncode for each in running] == [0] * 4
    assert all(b"by login" in out for out in outputs)


def test_a_keyring_of_the_system(here: Here) -> None:
    """The real library, with a backend that keeps what it is given in a file."""
    more = {"PYTHON_KEYRING_BACKEND": "tests.cli.keyrings.FileKeyring", "PYTHONPATH": str(ROOT)}
    more["TEST_KEYRING"] = str(here.folder / "keyring.json")

    def run(*arguments: str, input: str = "") -> str:
        command = [sys.executable, "-m", "terrace", *arguments]
        done = subprocess.run(
            command, env=here.environment(**more), input=input, capture_output=True, text=True, check=True
        )
        return done.stdout

    said = run("login", "--email", "ada@example.org", "--password-stdin", input="correct horse\n")
    assert "kept in the system's keyring" in said
    assert "trr_" not in next(here.logins.glob("*.json")).read_text()
    assert "by login" in run("whoami")
    keyring = Path(more["TEST_KEYRING"])
    assert list(json.loads(keyring.read_text()).values()) == [here.server.refresh]
    run("logout")
    assert json.loads(keyring.read_text()) == {}


def test_interrupted_while_it_renews(here: Here) -> None:
    """The new refresh token is kept though Ctrl-C came before it did."""
    here.log_in()
    arrived, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        arrived.set()
        go_on.wait(60)

    here.server.before_refresh = slow
    command = [sys.executable, "-m", "terrace", "whoami"]
    with subprocess.Popen(command, env=here.environment(), stderr=subprocess.PIPE, text=True) as process:
        assert arrived.wait(60)
        process.send_signal(signal.SIGINT)
        go_on.set()
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
    [kept] = here.logins.glob("*.json")
    assert json.loads(kept.read_text())["refresh_token"] == here.server.refresh == "trr_2"


class TestExpiry:
    """An access token that ends while it is used."""

    def test_a_stream_goes_on_where_it_stopped(self, here: Here) -> None:
        here.log_in()
        told = [
            (1, "start", {"conversation_id": "cnv_1"}),
            (2, "text", {"text": "The quay is "}),
            (3, "text", {"text": "seven metres deep."}),
            (4, "answer", {"sources": []}),
            (5, "done", {"state": "succeeded"}),
        ]

        def begin(asked: Asked) -> Answer:
            here.server.expire()  # and the connection is cut
            whole = events(*told)
            return Answer(whole, headers={"X-Job-Id": "job_1"}, cut=len(whole) - len(events(*told[:2])) - 5)

        def go_on(asked: Asked) -> Answer:
            return Answer(events(*told[int(asked.headers["last-event-id"]) :]))

        here.server.on("POST /api/chat", begin)
        here.server.on("GET /api/jobs/job_1/events", go_on)
        asked = here("ask", "How deep?")
        assert asked.out == "The quay is seven metres deep.\n"
        assert len(here.server.sent("POST /api/chat")) == 1
        assert len(here.server.sent("POST /api/auth/refresh")) == 2

    def test_a_file_is_sent_again_from_its_beginning(self, here: Here) -> None:
        here.log_in()
        (here.folder / "quay.txt").write_text("The quay is seven metres deep.")
        document = {"id": "doc_1", "duplicate": False, "chunks": 1, "searchable": "words"}
        taken: list[Asked] = []

        def take(asked: Asked) -> Answer:
            taken.append(asked)
            if len(taken) == 1:
                here.server.expire()
                return problem(401, "unauthenticated", "Say who you are.")
            return Answer({"document": document, "error": None})

        here.server.on("POST /api/documents/upload", take)
        sent = here("ingest", str(here.folder / "quay.txt"), "--no-wait")
        assert sent.code == 0, sent.err
        assert b"seven metres" in taken[1].raw
        assert taken[0].bearer != taken[1].bearer

    def test_it_is_renewed_before_it_ends(self, here: Here, tmp_path: Path) -> None:
        logins = Logins(tmp_path, Vault())
        logins.put(Saved(here.server.url, "ada@example.org", "trr_0"))
        here.server.on("POST /api/auth/refresh", lambda asked: here.server._refresh(asked) | {"expires_in": 0})
        login = Login(Saved(here.server.url, "", ""), logins)
        assert login.token() != login.token()


def test_a_server_that_is_away_is_told(here: Here) -> None:
    here.log_in()
    here.server.on("POST /api/auth/refresh", problem(503, "unavailable", "The database is away."))
    failed = here("whoami")
    assert (failed.code, failed.err) == (7, "terrace: The database is away.\n")


def test_the_password_is_not_sent_in_the_clear_unnoticed(here: Here) -> None:
    failed = here(
        "login", "--server", "http://terrace.invalid", "--email", "a@b.org", "--password-stdin", input="correct horse\n"
    )
    assert failed.code == 7
    assert "without encryption" in failed.err
    assert os.environ.get("TERRACE_SERVER") is None
