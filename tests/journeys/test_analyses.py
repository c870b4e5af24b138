"""Files analysed on the page, from the upload to the fields, with a model that looks at the pictures it is sent."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.analysis.seer import Asked
from tests.analysis.sheets import numbered
from tests.journeys.conftest import Server
from tests.journeys.test_app import PHONE, accessible_and_fitting

Visit = Callable[..., Page]
PAGES = 10  # more than go into one call
INVOICE = {
    "number": "R-2041",
    "date": "2026-03-04",
    "due_date": None,
    "seller": {"name": "Mill & Sons", "address": "Weir Lane 3, Basalt City", "tax_id": "GB 123"},
    "buyer": {"name": "Terrace Ltd", "address": None, "tax_id": None},
    "currency": "EUR",
    "items": [
        {"description": f"Stones of kind {n}, dressed", "quantity": n, "unit_price": 2.5, "amount": 2.5 * n}
        for n in range(1, 4)
    ],
    "subtotal": 15.0,
    "tax": 3.15,
    "total": 18.15,
    "iban": "DE02 1203 0000 0000 2020 51",
}
MARKDOWN = "# Invoice R-2041\n\n| what | how many |\n|---|---|\n| Stones | 6 |\n\nTo be paid within **30 days**."
DROP = """name => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([], name));
    for (const type of ["dragenter", "dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
}"""
SCHEMA = {"type": "object", "properties": {"bars": {"type": "integer"}}, "required": ["bars"]}


class Eye:
    """A vision model in OpenAI's form: it decodes each picture, and waits with the second call until `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def says(self, asked: Asked) -> str:
        notes = [f"{each.bars} bars on {each.colour}" for each in asked.pictures]
        pages = [{"page": number, "note": note} for number, note in zip(asked.numbers, notes, strict=False)]
        fields = {"bars": len(notes)} if '"bars"' in asked.text else INVOICE
        return json.dumps({"markdown": MARKDOWN, "pages": pages, "fields": fields})

    def _handler(eye) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send("application/json", {"object": "list", "data": [{"id": "pixtral", "object": "model"}]})

            def do_POST(self) -> None:
                asked = Asked(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                eye.asked.append(asked)
                if asked.pictures and 1 not in asked.numbers:
                    eye.gate.wait(100)
                choice = {"index": 0, "delta": {"content": eye.says(asked)}, "finish_reason": "stop"}
                chunk = {"id": "1", "object": "chat.completion.chunk", "model": "pixtral", "choices": [choice]}
                self._send("text/event-stream", chunk, "data: ", "\n\ndata: [DONE]\n\n")

            def _send(self, kind: str, body: object, before: str = "", after: str = "") -> None:
                data = f"{before}{json.dumps(body)}{after}".encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture(scope="module")
def eye() -> Iterator[Eye]:
    upstream = Eye()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, eye: Eye) -> Iterator[Server]:
    """An installation whose model reads images."""
    server = Server(
        tmp_path_factory.mktemp("seeing") / "data",
        TERRACE_MODELS__PROVIDERS__LAB__KIND="openai",
        TERRACE_MODELS__PROVIDERS__LAB__BASE_URL=eye.url,
    )
    server.start()
    yield server
    server.close()


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Choose files|Add more")).click()
    chooser.value.set_files(list(files))


def test_from_the_upload_to_the_fields(house: Server, eye: Eye, visit: Visit, tmp_path: Path) -> None:
    eye.gate.clear()
    invoice = tmp_path / "invoice.pdf"
    invoice.write_bytes(numbered(PAGES, ("white", "red")))
    page = visit(f"{house.url}/analyses")
    expect(page.get_by_role("heading", name="Nothing was analysed yet")).to_be_visible()
    page.get_by_role("button", name="Analyse", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("Choose a file first")
    page.get_by_role("radio", name=re.compile("^Invoice")).check()
    choose(page, invoice)
    page.reload()  # files are gone with a reload, what was said of them is not
    expect(page.get_by_role("radio", name=re.compile("^Invoice"))).to_be_checked()
    choose(page, invoice)
    page.get_by_role("button", name="Analyse 1 file").click()

    expect(page).to_have_url(re.compile(r"/analyses/ana_\w+$"))
    expect(page.get_by_role("heading", name="invoice.pdf")).to_be_visible()
    pages = page.get_by_role("region", name="Pictures of the pages").get_by_role("listitem")
    expect(pages).to_have_count(PAGES)
    expect(pages.nth(0)).to_contain_text("1 bars on white", timeout=20_000)  # while the others are still looked at
    expect(pages.nth(1)).to_contain_text("2 bars on red")
    expect(page.get_by_text(f"8 of {PAGES} pages answered")).to_be_visible()
    expect(page.get_by_role("progressbar", name="Analysing invoice.pdf")).to_have_attribute("aria-valuenow", "80")
    page.reload()
    expect(pages.nth(1)).to_contain_text("2 bars on red")
    eye.gate.set()

    fields = page.get_by_role("table", name="Fields")
    expect(fields).to_contain_text("R-2041")
    expect(fields.get_by_role("table", name="Seller")).to_contain_text("Weir Lane 3")
    expect(fields.get_by_role("table", name="Items").get_by_role("row")).to_have_count(4)
    expect(page.get_by_text("`lab/pixtral`")).to_have_count(0)
    expect(page.get_by_text("A model looked at the pages")).to_be_visible()
    expect(page.get_by_text("3 calls of the model")).to_be_visible()
    expect(pages.nth(PAGES - 1)).to_contain_text("10 bars on red")
    first = page.get_by_role("img", name="Page 1 of invoice.pdf")
    expect(first).to_be_visible()
    page.wait_for_function("document.querySelector('.pagepicture img').naturalWidth > 1000")
    narrow = first.bounding_box()["width"]
    page.get_by_role("button", name="Larger pages").click()
    assert first.bounding_box()["width"] > narrow * 1.4
    last = page.get_by_role("img", name=f"Page {PAGES} of invoice.pdf")
    assert last.evaluate("image => image.naturalWidth") == 0  # not in sight, so not fetched
    last.scroll_into_view_if_needed()
    page.wait_for_function(
        "name => document.querySelector(`img[alt='${name}']`).naturalWidth > 1000", arg=f"Page {PAGES} of invoice.pdf"
    )
    assert {(each.pictures[0].width, each.pictures[0].height) for each in eye.asked if each.pictures} == {(1653, 2339)}

    page.get_by_role("button", name="JSON", exact=True).click()
    expect(page.get_by_role("region", name="The result as JSON")).to_contain_text('"iban": "DE02 1203')
    page.get_by_role("button", name="Fields", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download", exact=True).click()
    assert download.value.suggested_filename == "invoice.json"
    assert json.loads(download.value.path().read_text()) == INVOICE
    page.get_by_role("button", name="Text", exact=True).click()
    expect(page.get_by_text("To be paid within")).to_be_visible()

    page.get_by_role("button", name="Add to the documents").click()
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile("Invoice R-2041|invoice"))).to_be_visible()


def test_what_is_wrong_is_told_where_it_is(house: Server, eye: Eye, visit: Visit, tmp_path: Path) -> None:
    eye.gate.set()
    good, broken = tmp_path / "plan.pdf", tmp_path / "broken.pdf"
    good.write_bytes(numbered(2))
    broken.write_bytes(b"%PDF-1.4 nothing of a PDF follows")
    page = visit(f"{house.url}/analyses", refusals=("422",))
    page.get_by_text("Your own words, fields and model").click()
    schema = page.get_by_label("Fields to fill, as a JSON schema")
    schema.fill('{"type": "objekt"}')
    expect(page.get_by_text('"objekt" is no type')).to_be_visible()
    choose(page, good)
    page.get_by_role("button", name="Analyse 1 file").click()
    expect(schema).to_be_focused()
    schema.fill('{"$ref": "https://example.org/schema"}')  # only the server knows that it won't fetch it
    page.get_by_role("button", name="Analyse 1 file").click()
    expect(page.locator(".wrong", has_text="A schema refers only to itself")).to_be_visible()
    expect(schema).to_be_focused()
    accessible_and_fitting(page, "/analyses, refused")
    schema.fill(json.dumps(SCHEMA))
    expect(page.get_by_text("Fits: 1 field, bars.")).to_be_visible()
    choose(page, broken)
    page.evaluate(DROP, "empty.txt")
    page.get_by_role("button", name="Analyse 3 files").click()

    waiting = page.get_by_role("list", name="On their way").get_by_role("listitem")
    expect(waiting).to_have_count(1)
    expect(waiting).to_contain_text("This file is empty (0 bytes).")
    waiting.get_by_role("button", name="Dismiss").click()
    rows = page.get_by_role("list", name="Analyses").get_by_role("listitem")
    failed = rows.filter(has_text="broken.pdf")
    expect(failed.get_by_text("Failed", exact=True)).to_be_visible()
    why = failed.locator(".why .grow").inner_text()
    assert "damaged" in why
    expect(rows.filter(has_text="plan.pdf")).to_contain_text("Done")
    page.get_by_role("button", name="Failed", exact=True).click()
    expect(rows).to_have_count(1)
    failed.get_by_role("link").click()
    expect(page.locator(".notice.bad")).to_have_text(why)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("It is tried again")).to_be_visible()
    expect(page.locator(".notice.bad")).to_have_text(why)
    accessible_and_fitting(page, "a failed analysis")
    page.get_by_role("button", name="More about broken.pdf").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(f"{house.url}/analyses")
    expect(rows.filter(has_text="plan.pdf")).to_be_visible()
    expect(rows.filter(has_text="broken.pdf")).to_have_count(0)


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_both_views_are_accessible_and_fit(house: Server, eye: Eye, visit: Visit, device: str) -> None:
    eye.gate.set()
    with httpx.Client(base_url=house.url, timeout=30) as client:
        file = ("a rather long name of an invoice.pdf", numbered(3))
        sent = client.post("/api/analyses", files={"file": file}, data={"type": "invoice"})
        place = f"/analyses/{sent.raise_for_status().json()['id']}"
    page = visit(house.url + place, **(PHONE if device == "phone" else {}))
    for face in ("Fields", "Text", "JSON"):
        page.get_by_role("button", name=face, exact=True).click()
        accessible_and_fitting(page, f"{place}, {face}")
    page.goto(f"{house.url}/analyses")
    expect(page.get_by_role("list", name="Analyses")).to_contain_text("a rather long name")
    accessible_and_fitting(page, "/analyses")
    page.get_by_text("Your own words, fields and model").click()
    accessible_and_fitting(page, "/analyses, with everything open")
