"""Logging in by another provider, a real one: the button, the way there and back, and what is said when it fails."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.journeys.conftest import Server
from tests.journeys.test_accounts import ADA, Visit, enter, register
from tests.journeys.test_app import accessible

PROVIDER = Path(__file__).parent.parent / "accounts" / "provider.py"
SOURCES = Path(__file__).parents[2] / "src" / "terrace"
SECRET = "a secret of the tests"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An installation with its owner Ada and a provider that knows her, too."""
    server = Server(tmp_path_factory.mktemp("provided") / "data", TERRACE_ACCOUNTS__REGISTRATION="closed")
    back = f"{server.url}/api/auth/oidc/lab/callback"
    command = [sys.executable, str(PROVIDER), "terrace", SECRET, back]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as provider:
        assert provider.stdin is not None
        assert provider.stdout is not None
        server.set(
            TERRACE_ACCOUNTS__OIDC__LAB__ISSUER=provider.stdout.readline().strip(),
            TERRACE_ACCOUNTS__OIDC__LAB__CLIENT_ID="terrace",
            TERRACE_ACCOUNTS__OIDC__LAB__CLIENT_SECRET=SECRET,
            TERRACE_ACCOUNTS__OIDC__LAB__LABEL="The Lab",
        )
        server.start()
        register(server, ADA)
        yield server
        server.close()
        provider.stdin.close()
        provider.wait(10)


def as_seen_by_the_provider(name: str) -> dict[str, object]:
    return {"extra_http_headers": {"X-User": name}}


def test_there_and_back_to_where_one_wanted_to_go(house: Server, visit: Visit) -> None:
    page = visit(f"{house.url}/documents?tab=search", **as_seen_by_the_provider("ada"))
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    accessible(page)
    with page.expect_response("**/api/auth/refresh"):  # which tells the page until when the login is good
        page.get_by_role("link", name=re.compile("The Lab")).click()
    expect(page.get_by_role("button", name=re.compile("^Ada"))).to_be_visible()
    expect(page).to_have_url(f"{house.url}/documents?tab=search")


def test_who_is_not_let_in_reads_why_and_may_log_in_otherwise(house: Server, visit: Visit) -> None:
    page = visit(f"{house.url}/jobs", **as_seen_by_the_provider("bob"))
    page.get_by_role("link", name=re.compile("The Lab")).click()
    expect(page.get_by_text("has not verified your address")).to_be_visible()
    accessible(page)
    enter(page, ADA)
    expect(page).to_have_url(f"{house.url}/jobs")


def test_the_page_has_a_sentence_for_every_refusal() -> None:
    server = "".join(path.read_text() for path in (SOURCES / "accounts").glob("oidc*.py"))
    page = (SOURCES / "web" / "app" / "js" / "views" / "login.js").read_text()
    codes = set(re.findall(r'code="(oidc_\w+)"', server))
    assert codes
    assert codes <= set(re.findall(r"^  (oidc_\w+):", page, re.MULTILINE))
