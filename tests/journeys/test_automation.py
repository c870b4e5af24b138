"""What goes on by itself, on the page: sources, schedules, the index's health and vectors, webhooks."""

import base64
import hashlib
import hmac
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.journeys.conftest import DESK, Server
from tests.journeys.test_app import PHONE, accessible, accessible_and_fitting

Visit = Callable[..., Page]
VIEWS = ("sources", "schedules", "index", "webhooks")
RESTED = 10  # seconds after which a file is no longer taken for half written


class Neighbour:
    """Beside the server: it embeds texts, and takes webhooks in. `answers` is its status for those."""

    def __init__(self) -> None:
        self.answers = 200
        self.received: list[tuple[dict[str, str], bytes]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(neighbour) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, {"object": "list", "data": [{"id": "small", "object": "model"}]})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/embeddings":
                    self._say(200, embedded(json.loads(body)["input"]))
                    return
                neighbour.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self._say(neighbour.answers, {"said": "thank you"})

            def _say(self, status: int, answer: object) -> None:
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler


def embedded(texts: list[str]) -> dict[str, object]:
    vectors = [[each / 255 for each in hashlib.sha256(text.encode()).digest()] for text in texts]
    data = [{"object": "embedding", "index": place, "embedding": each} for place, each in enumerate(vectors)]
    return {"object": "list", "model": "small", "data": data, "usage": {"prompt_tokens": 3, "total_tokens": 3}}


@pytest.fixture(scope="module")
def neighbour() -> Iterator[Neighbour]:
    made = Neighbour()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that may be watched."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, neighbour: Neighbour, shelf: Path) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("house") / "data",
        TERRACE_OUTBOUND__ALLOW='["127.0.0.0/8"]',
        TERRACE_SCHEDULES__FOLDERS=json.dumps([str(shelf)]),
        TERRACE_MODELS__PROVIDERS__LAB__KIND="openai",
        TERRACE_MODELS__PROVIDERS__LAB__BASE_URL=f"{neighbour.url}/v1",
        TERRACE_KNOWLEDGE__EMBEDDING__MODEL="lab/small",
    )
    server.start()
    yield server
    server.close()


def put(folder: Path, name: str, text: str) -> None:
    """As a file that rests."""
    (folder / name).write_text(text)
    os.utime(folder / name, (time.time() - RESTED, time.time() - RESTED))


def line(page: Page, name: str) -> Locator:
    return page.locator(".autolist > li").filter(has_text=name)


def test_a_watched_folder_from_adding_to_a_document_and_its_end(house: Server, shelf: Path, visit: Visit) -> None:
    put(shelf, "lease.md", "# Lease\n\nEither side may end this lease with three months' notice.\n")
    page = visit(f"{house.url}/sources", refusals=("422",))
    expect(page.get_by_role("heading", name="Nothing comes by itself yet")).to_be_visible()
    page.get_by_role("button", name="Add a source").first.click()
    folder = page.get_by_role("textbox", name="Folder")
    expect(folder).to_be_focused()
    accessible(page)
    folder.fill("/etc")
    page.get_by_role("button", name="Add and look now").click()
    expect(page.locator(".wrong", has_text="the operator names")).to_be_visible()
    expect(folder).to_be_focused()
    folder.fill(str(shelf))
    page.get_by_label("Name (optional)").fill("The shelf")
    page.get_by_label("When").select_option("Every night at 02:00")
    expect(page.get_by_role("list", name="The next times").get_by_role("listitem")).to_have_count(5)
    page.get_by_role("button", name="Add and look now").click()

    source = line(page, "The shelf")
    expect(source).to_contain_text("1 added")
    expect(source).to_contain_text(re.compile("Watched.*next in .*Every day at 02:00"))
    page.get_by_role("button", name="Items of The shelf").click()
    accessible(page)
    page.get_by_role("dialog").get_by_role("link", name="lease.md").click()
    expect(page).to_have_url(re.compile("/documents/doc_"))
    expect(page.locator("main")).to_contain_text("three months' notice")

    page.go_back()
    put(shelf, "mill.md", "# Mill\n\nThe miller keeps the race clear of leaves.\n")
    expect(source).to_contain_text("2 documents", timeout=60_000)  # nobody asked for it
    for each in shelf.iterdir():
        each.unlink()
    page.get_by_role("button", name="Run now: The shelf").click()
    page.get_by_role("button", name="Take out 2 documents").click()
    expect(page.get_by_role("dialog")).to_contain_text("no longer in")
    page.get_by_role("button", name="Take them out").click()
    expect(source).to_contain_text("2 removed")
    expect(source).to_contain_text("0 documents")


def test_a_webhook_from_making_to_its_deliveries(house: Server, neighbour: Neighbour, visit: Visit) -> None:
    page = visit(f"{house.url}/webhooks", refusals=("422",))
    expect(page.get_by_role("heading", name="Nobody is told yet")).to_be_visible()
    page.get_by_role("button", name="Add an endpoint").click()
    page.get_by_role("textbox", name="Address").fill("http://10.0.0.1/")
    page.get_by_label("Only these events").check()
    page.get_by_label("document.ready").uncheck()
    page.get_by_label("document.failed").check()
    page.get_by_label("analysis.failed").check()
    accessible(page)
    page.get_by_role("textbox", name="Address").fill(f"{neighbour.url}/hooks")
    page.get_by_role("button", name="Add the endpoint").click()
    secret = page.get_by_role("textbox", name="Secret", exact=True).input_value()
    accessible(page)
    page.get_by_role("button", name="I have kept it").click()
    expect(line(page, "/hooks")).to_contain_text("analysis.failed, document.failed")
    page.reload()
    expect(line(page, "/hooks")).to_be_visible()
    assert secret not in page.content()

    page.get_by_role("button", name="Send a test").click()
    log = page.get_by_role("dialog").get_by_role("listitem")
    expect(log.first).to_contain_text("webhook.test")
    expect(log.first).to_contain_text("answered 200")
    log.first.get_by_text("What was sent and answered").click()
    expect(log.first.get_by_role("region", name="What was answered")).to_contain_text("thank you")
    headers, body = neighbour.received[-1]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
    accessible(page)
    neighbour.answers = 503
    log.first.get_by_role("button", name="Send again").click()
    expect(log.first).to_contain_text(re.compile("On its way.*answered 503.*tried again in", re.DOTALL))
    neighbour.answers = 200
    assert neighbour.received[-1][0]["webhook-id"] == headers["webhook-id"]
    page.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="More about").click()
    page.get_by_role("menuitem", name="Rotate the secret").click()
    page.get_by_role("button", name="Make a new secret").click()
    assert page.get_by_role("textbox", name="Secret", exact=True).input_value() not in ("", secret)
    page.get_by_role("button", name="I have kept it").click()
    page.get_by_label("Send to").uncheck()
    expect(line(page, "/hooks")).to_contain_text("Switched off")


def test_a_schedule_is_made_run_and_seen_in_its_history(house: Server, visit: Visit) -> None:
    page = visit(f"{house.url}/schedules", refusals=("422", "409"), timezone_id="Europe/Berlin")
    expect(line(page, "Corpus health")).to_contain_text("built in")
    page.get_by_role("button", name="New schedule").click()
    page.get_by_label("What").select_option("Look through the corpus")
    page.get_by_label("Name").fill("Morning look")
    page.get_by_label("When").select_option("At times of my own (cron)")
    page.get_by_label("Cron expression").fill("0 0 31 2 *")
    expect(page.locator(".wrong", has_text="never fires")).to_be_visible()
    page.get_by_label("Cron expression").fill("30 6 * * 1-5")
    expect(page.locator(".nexttimes")).to_contain_text("Every Monday to Friday at 06:30, Europe/Berlin.")
    expect(page.get_by_role("list", name="The next times").get_by_role("listitem").last).to_contain_text("6:30")
    accessible(page)
    page.get_by_role("button", name="Make the schedule").click()

    schedule = line(page, "Morning look")
    expect(schedule).to_contain_text("Look through the corpus. Every Monday to Friday at 06:30")
    expect(schedule).to_contain_text(re.compile(r"Next in \d+ (second|minute|hour|day)s?"))
    expect(schedule).to_contain_text("Not run yet")
    page.get_by_role("button", name="Run now: Morning look").click()
    ticks = page.get_by_role("button", name="History of Morning look: 1 done")
    expect(ticks.locator(".succeeded")).to_have_count(1)
    ticks.click()
    expect(page.get_by_role("dialog").get_by_role("listitem").first).to_contain_text(
        re.compile("Done.*Run by hand", re.DOTALL)
    )
    accessible(page)
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Pause: Morning look").click()
    expect(schedule).to_contain_text("Paused")
    expect(page.get_by_role("button", name="Resume: Morning look")).to_be_focused()


def test_the_index_is_checked_mended_and_gets_new_vectors(house: Server, visit: Visit) -> None:
    with httpx.Client(base_url=house.url, timeout=30) as client:
        for name, content in (("broken.pdf", b"%PDF-1.4 nothing follows"), ("wheel.md", b"The wheel turns by day.")):
            client.post("/api/documents/upload", files={"file": (name, content)}).raise_for_status()
        while any(job["state"] in ("queued", "running") for job in client.get("/api/jobs").json()["items"]):
            time.sleep(0.05)
    page = visit(f"{house.url}/index")
    page.get_by_role("button", name="Check now").first.click()
    finding = page.get_by_role("list", name="Findings").get_by_role("listitem").filter(has_text="could not be read")
    expect(finding.get_by_role("link", name="broken.pdf")).to_be_visible()
    expect(page.get_by_role("group", name=re.compile("Findings at the last"))).to_be_visible()
    before = httpx.get(f"{house.url}/api/index/health").json()["report"]["checked_at"]
    page.get_by_role("button", name="Repair: Documents that could not be read").click()
    expect(page.get_by_role("dialog")).to_contain_text("read again from the stored files")
    page.get_by_role("button", name="Repair", exact=True).last.click()
    while httpx.get(f"{house.url}/api/index/health").json()["report"]["checked_at"] == before:
        time.sleep(0.05)
    expect(page.get_by_role("button", name="Check now").first).to_be_enabled()
    accessible(page)

    vectors = page.get_by_role("list", name="Generations of vectors").get_by_role("listitem")
    expect(vectors).to_have_count(1)
    page.get_by_role("button", name="Make all vectors anew").click()
    page.get_by_label("When they are made").select_option("they wait until I have looked at the comparison")
    page.get_by_role("button", name="Begin").click()
    ready = vectors.filter(has_text="Ready, waits")
    ready.get_by_role("button", name=re.compile("Have it serve")).click()
    page.get_by_role("button", name="Have them serve").click()
    expect(vectors.first).to_contain_text("Serves")
    kept = vectors.filter(has_text="Kept for a way back")
    kept.get_by_role("button", name=re.compile("Go back to it")).click()
    accessible(page)
    page.get_by_role("button", name="Go back", exact=True).click()
    expect(kept).to_have_count(1)
    expect(vectors).to_have_count(2)


def test_all_of_it_is_accessible_and_fits(house: Server, neighbour: Neighbour, shelf: Path, visit: Visit) -> None:
    with httpx.Client(base_url=house.url) as client:
        for path, body in (
            ("/api/sources", {"kind": "feed", "location": f"{neighbour.url}/{'long' * 20}.xml", "every": 3600}),
            ("/api/webhooks", {"url": f"{neighbour.url}/{'long' * 20}", "description": "The warehouse"}),
            ("/api/schedules", {"name": "A long name " * 9, "action": "index.health", "cron": "*/7 3-9 * * 2"}),
        ):
            client.post(path, json=body).raise_for_status()
        client.post(f"/api/sources/{client.get('/api/sources').json()['items'][0]['id']}/run")
        client.post("/api/index/health/check")
        while any(job["state"] in ("queued", "running") for job in client.get("/api/jobs").json()["items"]):
            time.sleep(0.05)
    for shape in ({"viewport": DESK}, PHONE):
        page = visit(f"{house.url}/sources", **shape)
        for view in VIEWS:
            page.get_by_role("navigation", name="Sources").get_by_role("link", name=view.title()).click()
            expect(page.get_by_role("heading", name=view.title(), level=1)).to_be_visible()
            accessible_and_fitting(page, view)
