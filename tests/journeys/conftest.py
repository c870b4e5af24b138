"""A real server in a process of its own, a real browser, and what must hold on every page: no error, no violation."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.journeys.tortoise import Tortoise
from tests.ports import free_port

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")  # the first takes a third less
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 20_000  # milliseconds: a busy machine is slow, and what never comes never comes
DESK = {"width": 1360, "height": 860}


class Server:
    """`terrace serve` on a free port with a data folder of its own; it can be killed and started again."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://localhost:{self.port}"
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TERRACE_", "OPENAI_", "ANTHROPIC_"))
        }
        self._environment = clean | {
            "TERRACE_DATA": str(data),
            "TERRACE_PORT": str(self.port),
            "TERRACE_MODELS__DISCOVER": "false",
            "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
            **settings,
        }
        self.log = data.parent / f"{data.name}.log"
        self._log = self.log.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def set(self, **settings: str) -> None:
        """Before it is started."""
        self._environment |= settings

    def start(self) -> None:
        command = [sys.executable, "-c", "from terrace.cli import main; main()", "serve"]
        self._process = subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log)
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the server ended: {self.log.read_text()[-2000:]}"
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        raise AssertionError("the server did not start in 90 seconds")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()


@pytest.fixture(scope="module")
def quoting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fresh installation: no model, no document."""
    server = Server(tmp_path_factory.mktemp("quoting") / "data")
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def tortoise() -> Iterator[Tortoise]:
    upstream = Tortoise()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, tortoise: Tortoise) -> Iterator[Server]:
    """An installation whose model is the tortoise."""
    server = Server(
        tmp_path_factory.mktemp("slow") / "data",
        TERRACE_MODELS__PROVIDERS__SLOW__KIND="openai",
        TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL=tortoise.url,
    )
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One for all journeys: each page has a context of its own. Closed before other tests go on, which have event loops
    of their own: this folder is a package for that."""
    if CHROMIUM is None:
        pytest.fail("The page is tested in Chromium: run `make browser`, or name yours in CHROMIUM.")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a page in a context of its own. Console errors, exceptions and refusals by the policy fail the test.

    `reload_breaks=True` forgives what a killed server must cause: requests that found nobody. `refusals` forgives what
    the journey itself brings about, such as ("401",).
    """
    contexts, complaints = [], []

    def open_page(url: str, *, reload_breaks: bool = False, refusals: tuple[str, ...] = (), **options: object) -> Page:
        context = browser.new_context(**{"viewport": DESK, "reduced_motion": "reduce", **options})  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)

        def heard(text: str) -> None:
            if not (reload_breaks and "ERR_" in text) and not any(f"status of {each}" in text for each in refusals):
                complaints.append(text)

        page.on("console", lambda message: heard(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: heard(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints
