"""People, keys, tenants, limits and usage, as a script and as a person at a terminal meet them."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Here
from tests.cli.stub import ACME, ADA, Answer, Asked, problem

BOB = {**ADA, "id": "usr_bob", "name": "Bob", "email": "bob@example.org"}
KEY = {
    "id": "key_1", "name": "ci", "user_id": "usr_ada", "scopes": ["chat"], "models": [], "addresses": [],
    "created_at": "2026-11-01T08:00:00Z", "expires_at": None, "last_used_at": None, "revoked_at": None, "hint": "wxyz",
}  # fmt: skip
SECRET = "trc_1_" + "s" * 43
TENANT = {**ACME, "created_at": "2026-11-01T08:00:00Z", "disabled": False, "models": [], "members": 3, "limits": []}
LINE = {
    "group": "", "label": "", "calls": 0, "failed": 0, "unpriced": 0, "input_tokens": 0, "cached_tokens": 0,
    "output_tokens": 0, "cost": 0.0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def as_admin(here: Here) -> None:
    """Everybody may: who is who has its own tests."""
    here.server.open = True
    here.server.on(
        "GET /api/auth/session", {"mode": "accounts", "setup_code_needed": False, "permissions": ["members"]}
    )
    members = [{"user": each, "role": "member", "joined_at": "2026-11-01T08:00:00Z"} for each in (ADA, BOB)]
    here.server.lists("/api/members", *members)
    here.server.lists("/api/keys", KEY)
    here.server.lists("/api/tenants", TENANT)
    here.server.on("GET /api/tenants/tnt_acme", TENANT)


def at_terminal(here: Here, *arguments: str, typed: tuple[tuple[str, str], ...] = (), **more: str) -> tuple[int, str]:
    """The command with a terminal in front of it: how it ended, and all that was to be read there.

    `typed` is what to answer to which question. Each is typed when its question is there: what comes before is thrown
    away where a password is asked for.
    """
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "terrace", *arguments]
    env = here.environment(TERM="xterm", COLUMNS="120", **more)
    with subprocess.Popen(
        command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        patience = threading.Timer(100, process.kill)
        patience.start()
        shown, answers = b"", list(typed)
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux's way to say that nobody holds the other end
                break
            if not piece:
                break
            shown += piece
            if answers and answers[0][0].encode() in shown:
                os.write(ours, answers.pop(0)[1].encode() + b"\n")
        patience.cancel()
        os.close(ours)
        return process.wait(20), shown.decode()


class TestPeople:
    def test_a_list_in_a_pipe(self, here: Here) -> None:
        head, *rows = here("user", "list").out.splitlines()
        assert head.split("\t")[:3] == ["id", "e-mail", "name"]
        assert rows[1].split("\t")[:5] == ["usr_bob", "bob@example.org", "Bob", "member", "never"]
        assert len(json.loads(here("user", "list", "--json").out)) == 2

    def test_all_pages_are_read(self, here: Here) -> None:
        def page(asked: Asked) -> Any:
            first = "cursor" not in asked.query
            return {"items": [{"user": ADA if first else BOB, "role": "member"}], "next": "more" if first else None}

        here.server.on("GET /api/members", page)
        assert len(json.loads(here("user", "list", "--json").out)) == 2

    def test_the_first_account(self, here: Here) -> None:
        here.server.on("GET /api/auth/session", {"mode": "local", "setup_code_needed": False})
        here.server.on("POST /api/users", ADA)
        refused = here("user", "add", "ada@example.org", "--password-stdin", input="correct horse\n")
        assert refused.code == 2
        assert "--owner" in refused.err
        made = here("user", "add", "ada@example.org", "--owner", "--password-stdin", input="correct horse\n")
        assert made.out == "ada@example.org is here as owner: usr_ada\n"
        sent = {"name": "ada", "email": "ada@example.org", "password": "correct horse"}
        assert here.server.sent("POST /api/users") == [sent]

    def test_the_first_account_from_another_machine_needs_the_setup_code(self, here: Here) -> None:
        here.server.on("GET /api/auth/session", {"mode": "setup", "setup_code_needed": True})
        here.server.on("POST /api/users", ADA)
        given = ("user", "add", "ada@example.org", "--owner", "--password-stdin")
        assert here(*given, input="correct horse\nK7WQ2MXA\n").code == 0
        assert here.server.sent("POST /api/users")[0]["setup_code"] == "K7WQ2MXA"
        assert here(*given, input="correct horse\n").code == 2

    def test_further_ones_come_by_an_invitation_used_at_once(self, here: Here) -> None:
        made = {"invitation": {"id": "inv_1"}, "token": "hush", "url": ""}
        here.server.on("POST /api/invitations", made)
        here.server.on("POST /api/users", BOB)
        given = ("user", "add", "bob@example.org", "--name", "Bob", "--role", "viewer", "--password-stdin")
        assert here(*given, input="correct horse\n").code == 0
        assert here.server.sent("POST /api/invitations") == [{"email": "bob@example.org", "role": "viewer"}]
        assert here.server.sent("POST /api/users")[0]["invitation"] == "hush"

        here.server.on("POST /api/users", problem(409, "conflict", "There is such an account.", code="email_taken"))
        here.server.on("DELETE /api/invitations/inv_1", None)
        assert here(*given, input="correct horse\n").code == 5
        assert len(here.server.sent("DELETE /api/invitations/inv_1")) == 1  # it would let somebody in

    @pytest.mark.parametrize("command", [("user", "invite", "bob@example.org"), ("user", "add", "--invite")])
    def test_a_link_alone_on_standard_output(self, here: Here, command: tuple[str, ...]) -> None:
        invitation = {"id": "inv_1", "expires_at": "2026-11-28T08:00:00Z"}
        url = "https://terrace.example.org/join#" + "t" * 120
        here.server.on("POST /api/invitations", {"invitation": invitation, "token": "t", "url": url})
        assert here(*command).out == f"{url}\n"

    def test_a_reset_link(self, here: Here) -> None:
        made = {"url": "https://x/reset#t", "token": "t", "expires_at": "2026-11-28T08:00:00Z"}
        here.server.on("POST /api/users/usr_bob/reset-link", made)
        assert here("user", "reset-link", "BOB@example.org").out == "https://x/reset#t\n"

    def test_roles_and_ends(self, here: Here) -> None:
        for route in ("PATCH /api/members/usr_bob", "DELETE /api/members/usr_bob", "DELETE /api/users/usr_bob"):
            here.server.on(route, None)
        here.server.on("PATCH /api/users/usr_bob", BOB)
        here.server.on("GET /api/users/usr_bob", BOB)
        assert here("user", "role", "bob@example.org", "admin").code == 0
        assert here.server.sent("PATCH /api/members/usr_bob") == [{"role": "admin"}]
        assert here("user", "disable", "usr_bob").code == 0
        assert here("user", "disable", "usr_bob", "--enable").code == 0
        assert here.server.sent("PATCH /api/users/usr_bob") == [{"disabled": True}, {"disabled": False}]
        assert "bob@example.org" in here("user", "show", "bob@example.org").out
        assert here("user", "remove", "usr_bob", "--yes").code == 0
        assert here("user", "erase", "usr_bob", "--yes").code == 0
        assert here("user", "role", "usr_bob", "king").code == 2
        assert here("user", "show", "eve@example.org").code == 4

    def test_invitations_are_listed_and_taken_back(self, here: Here) -> None:
        here.server.lists("/api/invitations")
        here.server.on("DELETE /api/invitations/inv_1", None)
        assert here("user", "invitations", "--revoke", "inv_1").code == 0
        assert here.server.sent("DELETE /api/invitations/inv_1") == [None]


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (("user", "erase", "usr_bob"), "DELETE /api/users/usr_bob"),
        (("user", "remove", "usr_bob"), "DELETE /api/members/usr_bob"),
        (("key", "revoke", "ci"), "DELETE /api/keys/key_1"),
        (("key", "rotate", "ci"), "POST /api/keys/key_1/rotate"),
        (("tenant", "delete", "acme"), "DELETE /api/tenants/tnt_acme"),
    ],
)
def test_what_cannot_be_undone_is_asked_first(here: Here, command: tuple[str, ...], route: str) -> None:
    here.server.on(route, {"key": KEY, "secret": SECRET} if "rotate" in route else None)
    unasked = here(*command)
    assert unasked.code == 2
    assert "--yes" in unasked.err
    assert here.server.sent(route) == []
    assert here(*command, "--yes").code == 0
    assert len(here.server.sent(route)) == 1


@pytest.mark.parametrize(("answer", "code"), [("n", 1), ("y", 0)])
def test_a_person_is_asked(here: Here, answer: str, code: int) -> None:
    here.server.on("DELETE /api/users/usr_bob", None)
    ended, shown = at_terminal(here, "user", "erase", "usr_bob", typed=(("[y/N]:", answer),))
    assert ended == code
    assert "can't be undone" in shown
    assert len(here.server.sent("DELETE /api/users/usr_bob")) == (answer == "y")


def test_a_password_is_not_echoed(here: Here) -> None:
    ended, shown = at_terminal(here, "login", typed=(("E-mail:", "ada@example.org"), ("Password:", "correct horse")))
    assert ended == 0, shown
    assert "Password" in shown
    assert "correct horse" not in shown


class TestKeys:
    def test_the_secret_alone_on_standard_output(self, here: Here) -> None:
        here.server.on("POST /api/keys", {"key": KEY, "secret": SECRET})
        given = (
            "--scope",
            "chat",
            "--model",
            "openai/*",
            "--address",
            "10.0.0.0/8",
            "--expires",
            "2027-01-01T00:00:00Z",
        )
        made = here("key", "create", "ci", *given)
        assert made.out == f"{SECRET}\n"
        assert SECRET not in made.err
        [sent] = here.server.sent("POST /api/keys")
        assert sent == {
            "name": "ci", "scopes": ["chat"], "models": ["openai/*"], "addresses": ["10.0.0.0/8"],
            "expires_at": "2027-01-01T00:00:00+00:00",
        }  # fmt: skip
        assert json.loads(here("key", "create", "ci", "--json").out)["secret"] == SECRET

    def test_no_key_is_left_without_the_limits_it_was_to_have(self, here: Here) -> None:
        here.server.on("POST /api/keys", {"key": KEY, "secret": SECRET})
        here.server.on("PUT /api/limits/key:key_1", {"subject": "key:key_1", "limits": []})
        limited = ("key", "create", "ci", "--limit", "money_per_day=1.5", "--limit", "tokens_per_day=20k")
        assert here(*limited).out == f"{SECRET}\n"
        assert here.server.sent("PUT /api/limits/key:key_1") == [{"money_per_day": 1.5, "tokens_per_day": 20_000}]

        here.server.on("PUT /api/limits/key:key_1", problem(403, "denied", "This needs the permission `limits`."))
        here.server.on("DELETE /api/keys/key_1", None)
        refused = here(*limited)
        assert (refused.code, refused.out) == (3, "")
        assert here.server.sent("DELETE /api/keys/key_1") == [None]
        assert here("key", "create", "ci", "--limit", "money_per_dya=1").err.endswith("is money_per_day meant?\n")

    def test_rotation_with_overlap_needs_no_question(self, here: Here) -> None:
        here.server.on("POST /api/keys/key_1/rotate", {"key": KEY, "secret": SECRET})
        assert here("key", "rotate", "ci", "--overlap", "1h").out == f"{SECRET}\n"
        assert here.server.sent("POST /api/keys/key_1/rotate") == [{"overlap": 3600.0}]

    def test_a_list(self, here: Here) -> None:
        assert here("key", "list", "--all").out.splitlines()[1].split("\t")[:4] == ["key_1", "ci", "…wxyz", "chat"]
        assert here.server.asked[-1].query["all"] == "true"

    def test_a_name_that_several_have(self, here: Here) -> None:
        here.server.lists("/api/keys", KEY, {**KEY, "id": "key_2"}, {**KEY, "id": "key_3", "revoked_at": "2026"})
        both = here("key", "revoke", "ci", "--yes")
        assert both.code == 5
        assert "key_1, key_2." in both.err
        assert here("key", "revoke", "other", "--yes").code == 4


class TestTenants:
    def test_many_at_once(self, here: Here) -> None:
        here.server.on("POST /api/tenants", lambda asked: {**TENANT, **asked.body, "id": f"tnt_{asked.body['name']}"})
        made = here("tenant", "create", "--count", "100", "--prefix", "shop", "--limit", "money_per_month=20")
        assert made.code == 0
        names = [each["name"] for each in here.server.sent("POST /api/tenants")]
        assert (names[0], names[-1], len(names)) == ("shop-001", "shop-100", 100)
        assert all(each["limits"] == {"money_per_month": 20} for each in here.server.sent("POST /api/tenants"))
        assert made.out.splitlines()[1] == "tnt_shop-001\tshop-001"

    def test_what_was_made_is_told_though_it_ended_early(self, here: Here) -> None:
        def make(asked: Asked) -> Any:
            if asked.body["name"] == "shop-3":
                return problem(409, "conflict", "There is a tenant of that name. Take another.")
            return {**TENANT, "name": asked.body["name"]}

        here.server.on("POST /api/tenants", make)
        stopped = here("tenant", "create", "--count", "5", "--prefix", "shop", "--json")
        assert stopped.code == 5
        assert [each["name"] for each in json.loads(stopped.out)] == ["shop-1", "shop-2"]
        assert "2 of 5 were made" in stopped.err

    @pytest.mark.parametrize("given", [(), ("a", "--count", "2"), ("--count", "2"), ("a", "--prefix", "b")])
    def test_one_or_many(self, here: Here, given: tuple[str, ...]) -> None:
        assert here("tenant", "create", *given).code == 2

    def test_by_name_or_id(self, here: Here) -> None:
        here.server.on("PATCH /api/tenants/tnt_acme", TENANT)
        assert here("tenant", "disable", "acme").code == 0
        assert here("tenant", "enable", "tnt_acme").code == 0
        assert here("tenant", "change", "acme", "--name", "Acme Ltd", "--every-model").code == 0
        sent = [{"disabled": True}, {"disabled": False}, {"name": "Acme Ltd", "models": []}]
        assert here.server.sent("PATCH /api/tenants/tnt_acme") == sent
        assert here("tenant", "change", "acme").code == 2
        assert here("tenant", "disable", "globex").code == 4

    def test_limits(self, here: Here) -> None:
        limit = {
            "name": "money_per_month", "value": 20.0, "used": 1.25, "resets_in": 864_000.0, "set_by": "terminal",
            "set_at": "2026-11-01T08:00:00Z",
        }  # fmt: skip
        here.server.on("PUT /api/tenants/tnt_acme/limits", {"subject": "tenant", "limits": [limit]})
        changed = here("tenant", "limits", "acme", "money_per_month=20", "documents=none")
        assert here.server.sent("PUT /api/tenants/tnt_acme/limits") == [{"money_per_month": 20, "documents": None}]
        assert changed.out.splitlines()[1] == "acme\tmoney_per_month\t$20.00\t$1.25\tin 10 days\tterminal"
        assert here("tenant", "limits", "acme").out == "There are no limits.\n"

    def test_a_list_and_one(self, here: Here) -> None:
        used = {"today": {**LINE, "cost": 1.5}, "month": {**LINE, "cost": 20.0, "unpriced": 2}}
        here.server.lists("/api/tenants", {**TENANT, "usage": used})
        assert here("tenant", "list").out.splitlines()[1] == "tnt_acme\tacme\t3\t$1.50\t$20.00 + unpriced\t"
        assert "tnt_acme" in here("tenant", "show", "acme").out
        here.server.on("GET /api/tenant", {**TENANT, "name": "mine"})
        assert "mine" in here("tenant", "show").out


class TestExport:
    @pytest.fixture
    def archive(self, here: Here) -> bytes:
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as archive:
            archive.writestr("documents/quay.txt", "The quay is seven metres deep. " * 1000)
        here.server.on("GET /api/tenants/tnt_acme/export", lambda asked: Answer(written.getvalue()))
        return written.getvalue()

    def test_is_whole_and_private(self, here: Here, archive: bytes, tmp_path: Path) -> None:
        to = tmp_path / "acme.zip"
        assert here("tenant", "export", "acme", "-o", str(to)).code == 0
        assert to.read_bytes() == archive
        assert to.stat().st_mode & 0o777 == 0o600
        again = here("tenant", "export", "acme", "-o", str(to))
        assert again.code == 5
        assert here("tenant", "export", "acme", "-o", str(to), "--force").code == 0

    def test_that_was_cut_leaves_nothing(self, here: Here, archive: bytes, tmp_path: Path) -> None:
        here.server.on("GET /api/tenants/tnt_acme/export", Answer(archive, cut=10))
        cut = here("tenant", "export", "acme", "-o", str(tmp_path / "acme.zip"))
        assert cut.code == 7
        assert not list(tmp_path.glob("acme.zip*"))


class TestUsage:
    def report(self, here: Here, *rows: dict[str, Any], by: str = "model") -> None:
        lines = [{**LINE, **row} for row in rows]
        total = {**LINE, **{name: sum(row[name] for row in lines) for name in LINE if name not in ("group", "label")}}
        found = {"by": by, "from": "2026-11-01", "to": "2026-11-21", "rows": lines, "total": total}
        here.server.on("GET /api/usage", found)
        here.server.on("GET /api/tenants/tnt_acme/usage", found)

    ROWS = (
        {"label": "openai/gpt", "calls": 3, "input_tokens": 1200, "output_tokens": 80, "cost": 0.5},
        {"label": "new/model", "calls": 2, "unpriced": 2, "input_tokens": 10, "output_tokens": 1},
    )

    def test_an_unknown_price_is_said(self, here: Here) -> None:
        self.report(here, *self.ROWS)
        _, priced, unknown, total, told = here("usage", "--by", "model").out.splitlines()
        assert priced.split("\t") == ["openai/gpt", "3", "0", "1,200", "0", "80", "$0.5000"]
        assert unknown.split("\t")[-1] == "unknown"
        assert total.split("\t")[-1] == "$0.5000 + unknown"
        assert "The price of 2 calls is not known" in told

    def test_bars_on_a_terminal(self, here: Here) -> None:
        self.report(here, self.ROWS[0], {**self.ROWS[0], "label": "half", "cost": 0.25}, by="day")
        _, shown = at_terminal(here, "usage")
        bars = {line.split()[0]: line.count("█") for line in shown.splitlines() if line.strip()}
        assert bars["openai/gpt"] == 2 * bars["half"] > 0
        assert bars["all"] == 0

    def test_what_is_asked_for(self, here: Here) -> None:
        self.report(here, *self.ROWS)
        asked = here("usage", "--by", "key", "--from", "2026-11-01", "--to", "2026-11-21", "--user", "bob@example.org")
        assert asked.code == 0
        want = {"by": "key", "from": "2026-11-01", "to": "2026-11-21", "user": "usr_bob"}
        assert here.server.asked[-1].query == want
        assert here("usage", "--tenant", "acme").code == 0
        assert here.server.asked[-1].path == "/api/tenants/tnt_acme/usage"
        assert here("usage", "--tenant", "acme", "--key", "ci").code == 2
        assert here("usage", "--from", "soon").code == 2

    def test_nothing_used(self, here: Here) -> None:
        self.report(here)
        assert here("usage").out == "Nothing was used from 2026-11-01 to 2026-11-21.\n"

    def test_csv_is_passed_on(self, here: Here) -> None:
        here.server.on("GET /api/usage", Answer(b"model,calls\r\nopenai/gpt,3\r\n"))
        assert list(csv.reader(io.StringIO(here("usage", "--csv").out)))[1] == ["openai/gpt", "3"]
        assert here.server.asked[-1].query["format"] == "csv"
        assert here("usage", "--csv", "--json").code == 2

    def test_calls(self, here: Here) -> None:
        call = {
            "id": "use_1", "started_at": "2026-11-21T08:00:00Z", "provider": "openai", "model": "gpt",
            "operation": "chat", "outcome": "error", "code": "timeout", "input_tokens": 1200, "cached_tokens": 0,
            "output_tokens": 7, "estimated": True, "cost": None, "duration": 1.26, "first_token": None,
            "user_id": None, "key_id": None, "job_id": None,
        }  # fmt: skip
        here.server.lists("/api/usage/calls", call)
        [row] = here("usage", "calls", "-n", "5").out.splitlines()[1:]
        told = ["2026-11-21 08:00:00", "openai/gpt", "error: timeout", "~1,200", "~7", "unknown", "1.3", "use_1"]
        assert row.split("\t") == told

    def test_prices(self, here: Here) -> None:
        price = {"model": "a/b c", "input": 0.15, "cached": 0.075, "output": 0.6, "dated": "2026-11-01"}
        here.server.lists("/api/prices", {**price, "source": "shipped"})
        here.server.on("PUT /api/prices/a/b c", {**price, "source": "set"})
        here.server.on("DELETE /api/prices/a/b c", None)
        assert here("usage", "prices").out.splitlines()[1] == "a/b c\t$0.15\t$0.075\t$0.6\t2026-11-01\tshipped"
        assert here("usage", "prices", "set", "a/b c", "--input", "0.15", "--output", "0.6").code == 0
        assert here.server.sent("PUT /api/prices/a/b c") == [{"input": 0.15, "output": 0.6}]
        assert here("usage", "prices", "remove", "a/b c").code == 0
        assert here("usage", "prices", "set", "a", "--input", "-1", "--output", "1").code == 2


class TestLimits:
    def test_whose(self, here: Here) -> None:
        for subject in ("tenant", "user:usr_bob", "key:key_1"):
            here.server.on(f"PUT /api/limits/{subject}", {"subject": subject, "limits": []})
        for given in ("tenant", "bob@example.org", "user:usr_bob", "ci", "key:key_1", "key:ci"):
            assert here("limits", given, "documents=5").code == 0, given
        sent = [each.path.rpartition("/")[2] for each in here.server.asked if each.method == "PUT"]
        assert sent == ["tenant", "user:usr_bob", "user:usr_bob", "key:key_1", "key:key_1", "key:key_1"]

    def test_shown(self, here: Here) -> None:
        limit = {"name": "documents", "value": 10, "used": 4, "resets_in": None, "set_by": "usr_ada"}
        items = [{"subject": each, "limits": [limit]} for each in ("tenant", "key:key_1", "user:usr_bob")]
        here.server.on("GET /api/limits", {"items": items})
        assert len(here("limits").out.splitlines()) == 4
        assert here("limits", "bob@example.org").out.splitlines()[1].startswith("user:bob@example.org\t")
        assert here("limits", "ci").out.splitlines()[1] == "key:ci\tdocuments\t10\t4\t\tada@example.org"

    def test_a_change_needs_a_subject(self, here: Here) -> None:
        assert "terrace limits tenant documents=5" in here("limits", "documents=5").err
        assert here("limits", "tenant", "documents").code == 2


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("terrace ", {"login", "user", "key", "tenant", "usage", "limits"}),
        ("terrace user ", {"add", "invite", "erase", "reset-link"}),
        ("terrace user role x ", {"viewer", "member", "admin", "owner"}),
        ("terrace tenant limits acme mon", {"money_per_day=", "money_per_month="}),
        ("terrace usage --by ", {"day", "model", "user", "key"}),
        ("terrace usage prices ", {"set", "remove"}),
    ],
)
def test_the_shell_completes(here: Here, words: str, offered: set[str]) -> None:
    last = len(words.split()) - (0 if words.endswith(" ") else 1)
    shell = {"_TERRACE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(last)}
    program = "import sys; sys.argv = ['terrace']; from terrace.cli import main; main()"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=here.environment(**shell), capture_output=True, text=True, check=False)
    assert offered <= set(done.stdout.split())
