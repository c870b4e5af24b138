"""What a person does on the page, in a real browser against a real server."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, Route, expect

from tests import samples
from tests.journeys.conftest import Server
from tests.journeys.tortoise import Tortoise

Visit = Callable[..., Page]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
PLACES = ("/", "/documents", "/documents?tab=search", "/jobs", "/settings")
# Of what is in order it would tell as much as of what is not.
VIOLATIONS = "async (options) => (await axe.run({ resultTypes: ['violations'], ...options })).violations"
# What is on its way in, axe does not see yet: under a dialog it would look at the page. Spinners never arrive.
SETTLED = """() => document.getAnimations().every(
    ({ playState, effect }) => playState !== "running" || effect.getComputedTiming().endTime === Infinity,
)"""
TURN = "Each terrace receives water for three hours, in turn from the highest to the lowest."


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PDF whose second page holds TURN."""
    first = ["Dry stone terraces hold the soil of a steep slope and slow the water", "that runs over it."]
    second = ["The spring gives forty litres a minute in April.", TURN, "A household that misses its turn waits."]
    path = tmp_path_factory.mktemp("files") / "handbook.pdf"
    path.write_bytes(
        samples.pdf([samples.page_of_lines(first), samples.page_of_lines(second)], title="Hillside handbook")
    )
    return path


@pytest.fixture(scope="module")
def lease(handbook: Path) -> Path:
    path = handbook.with_name("lease.md")
    clauses = "".join(
        f"## Clause {n}\n\nClause {n} deals with the wheel, the race and the stones.\n\n" for n in range(300)
    )
    path.write_text(
        f"# Lease of the mill\n\n{clauses}## Notice\n\nEither side may end this lease with three months' notice.\n"
    )
    return path


@pytest.fixture(scope="module")
def broken(handbook: Path) -> Path:
    path = handbook.with_name("broken.pdf")
    path.write_bytes(b"%PDF-1.4 nothing of a PDF follows")
    return path


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, handbook: Path, lease: Path, broken: Path) -> Iterator[Server]:
    """An installation in use: two documents, one that could not be read, and a question that was answered."""
    server = Server(tmp_path_factory.mktemp("library") / "data")
    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in (handbook, lease, broken):
            client.post("/api/documents/upload", files={"file": (path.name, path.read_bytes())}).raise_for_status()
        while any(job["state"] in ("queued", "running") for job in client.get("/api/jobs").json()["items"]):
            time.sleep(0.1)
        client.post("/api/chat", json={"message": "How long does each terrace receive water?"}).raise_for_status()
    yield server
    server.close()


def add(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=re.compile("Add documents|Choose files")).first.click()
    chooser.value.set_files(list(files))


def ask(page: Page, question: str) -> None:
    page.get_by_label("Your message").fill(question)
    page.keyboard.press("Enter")


def answer(page: Page) -> "object":
    return page.get_by_role("article", name="Answer").last


def accessible(page: Page, **options: object) -> None:
    expect(page.locator("h1").first).to_be_attached()  # the view is here, not only on its way
    page.wait_for_function(SETTLED)
    if not page.evaluate("'axe' in window"):  # half a megabyte
        page.evaluate(AXE_SCRIPT)
    violations = page.evaluate(VIOLATIONS, options)
    told = [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} ({each['nodes'][0]['failureSummary'][:300]})"
        for each in violations
    ]
    assert not told, "\n".join(told)


def accessible_and_fitting(page: Page, place: str) -> None:
    """In light; then in dark, where nothing but the colours may be another."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 24, 22)"
        assert dark == (scheme == "dark")
        accessible(page, **({"runOnly": ["color-contrast"]} if dark else {}))
    wide = page.evaluate("Math.max(document.documentElement.scrollWidth, document.querySelector('#main').scrollWidth)")
    assert wide <= page.viewport_size["width"], f"{place} is {wide} pixels wide"


def test_first_run_to_a_page_with_the_quoted_words_marked(
    quoting: Server, visit: Visit, handbook: Path, lease: Path, broken: Path
) -> None:
    page = visit(quoting.url)
    expect(page.get_by_role("heading", name="Ask your documents")).to_be_visible()
    expect(page.get_by_text("quote model answers by quoting")).to_be_visible()
    accessible(page)

    add(page, handbook, lease, broken)
    tray = page.get_by_role("region", name="Uploads")
    expect(tray.get_by_text("Ready to be asked")).to_have_count(2)
    page.get_by_role("link", name="Documents").click()
    row = page.get_by_role("listitem").filter(has=page.get_by_role("link", name="handbook.pdf"))
    expect(row.get_by_text("Found by words", exact=True)).to_be_visible()
    failed = page.locator(".doc", has_text="broken.pdf")
    expect(failed).to_contain_text("Could not be read")
    expect(failed.get_by_role("button", name="Try again")).to_be_visible()
    accessible(page)
    add(page, handbook)
    expect(tray.get_by_text("Already here")).to_be_visible()
    page.get_by_role("button", name="Close uploads").click()

    page.get_by_role("link", name="New chat").first.click()
    ask(page, "How long does each terrace receive water?")
    expect(answer(page).locator(".prose")).to_contain_text("three hours")
    expect(page).to_have_url(re.compile(r"/chat/cnv_"))
    source = page.get_by_role("complementary", name="Sources").get_by_role("link").first
    expect(source).to_contain_text("Page 2")
    accessible(page)
    answer(page).locator("a.cite").first.click()
    viewer = page.get_by_role("dialog")
    expect(viewer.get_by_role("img", name=re.compile("Page 2.*the quoted words marked"))).to_be_visible()
    expect(viewer.locator(".canvas")).to_have_attribute("data-marks", re.compile("[1-9]"))
    assert viewer.locator("img").evaluate("image => image.naturalWidth") > 500
    accessible(page)
    viewer.get_by_role("button", name="Previous page").click()
    expect(viewer.get_by_label("Page", exact=True)).to_have_value("1")
    page.keyboard.press("Escape")
    expect(viewer).to_have_count(0)


def test_the_text_of_other_documents_is_opened_at_the_quote(library: Server, visit: Visit) -> None:
    page = visit(library.url)
    ask(page, "With how much notice may either side end the lease?")
    expect(answer(page).locator(".prose")).to_contain_text("three months")
    answer(page).locator("a.cite").first.click()
    mark = page.get_by_role("dialog").locator("mark")
    expect(mark).to_contain_text("three months")
    expect(mark).to_be_in_viewport()
    page.get_by_role("link", name="Open as a page").click()
    expect(page).to_have_url(re.compile(r"/documents/doc_.*start=\d+"))
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Lease of the mill")
    expect(page.locator("mark")).to_be_in_viewport()


def test_a_library_is_filtered_tagged_and_searched(library: Server, visit: Visit) -> None:
    page = visit(f"{library.url}/documents")
    page.get_by_role("button", name="More about lease.md").click()
    page.get_by_role("menuitem", name="Tags").click()
    page.get_by_label("Tags, separated by commas").fill("mill, contract")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="mill 1", exact=True).click()
    expect(page.locator(".doc")).to_have_count(1)
    page.get_by_role("button", name="Try a search").click()
    page.get_by_label("What to look for").fill("notice lease")
    page.keyboard.press("Enter")
    expect(page.locator(".hit").first).to_contain_text("three months")
    accessible(page)


def test_reloading_in_the_middle_goes_on_in_the_same_words(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.clear()
    before = tortoise.answers
    page = visit(slow.url)
    ask(page, "Who wins?")
    prose = answer(page).locator(".prose")
    expect(prose).to_contain_text("wins the race")
    expect(prose.locator("strong")).to_have_text("wins")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/chat/cnv_"))
    page.reload()
    expect(prose).to_contain_text("wins the race")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    tortoise.gate.set()
    expect(prose).to_contain_text("That is all.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert tortoise.answers == before + 1
    assert prose.inner_text().count("Slow and steady") == 1
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_text("Code copied")).to_be_visible()


def test_stop_regenerate_edit_and_branch(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.clear()
    page = visit(slow.url)
    ask(page, "Who loses?")
    expect(answer(page).locator(".prose")).to_contain_text("wins the race")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("stopped")
    expect(answer(page).locator(".prose")).to_contain_text("wins the race")

    tortoise.gate.set()
    answer(page).get_by_role("button", name="Answer again").click()
    expect(answer(page)).to_contain_text("That is all.")
    expect(answer(page)).to_contain_text("2/2")
    answer(page).get_by_role("button", name="Previous version").click()
    expect(answer(page)).to_contain_text("1/2")
    expect(answer(page)).to_contain_text("stopped")
    page.reload()
    expect(answer(page)).to_contain_text("1/2")

    mine = page.get_by_role("article", name="You")
    mine.hover()
    mine.get_by_role("button", name="Edit and ask again").click()
    page.get_by_label("Edit your message").fill("Who loses, and why?")
    page.get_by_role("button", name="Ask again").click()
    expect(mine).to_contain_text("Who loses, and why?")
    expect(mine).to_contain_text("2/2")
    expect(answer(page)).to_contain_text("That is all.")
    mine.get_by_role("button", name="Previous version").click()
    expect(mine).to_contain_text("Who loses?")
    expect(mine).to_contain_text("1/2")


def test_a_killed_server_comes_back_and_the_answer_goes_on(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.clear()
    page = visit(slow.url, reload_breaks=True)
    ask(page, "Who comes back?")
    expect(answer(page).locator(".prose")).to_contain_text("wins the race")
    slow.kill()
    expect(page.get_by_text("Server not reachable")).to_be_visible()
    tortoise.gate.set()
    slow.start()
    expect(page.get_by_text("Server not reachable")).to_be_hidden()
    expect(answer(page)).to_contain_text("That is all.")
    assert answer(page).locator(".prose").inner_text().count("Slow and steady") == 1


def test_by_keyboard_alone(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.set()
    page = visit(f"{slow.url}/jobs")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    accessible(page)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    expect(page.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("That is all.")
    page.keyboard.press("Control+k")
    expect(page.get_by_label("Search conversations")).to_be_focused()
    page.keyboard.type("second")
    page.keyboard.press("Tab")  # before what was looked for is found, and the list is drawn anew
    expect(page.get_by_role("heading", name="Found")).to_be_visible()
    expect(page.locator(".talk")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("menuitem", name="Rename")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("A better name")
    page.keyboard.press("Enter")
    expect(page).to_have_title("A better name · Terrace")
    page.keyboard.press("/")
    expect(page.get_by_label("Your message")).to_be_focused()


def test_a_conversation_is_deleted(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.set()
    page = visit(slow.url)
    ask(page, "Shall this stay?")
    expect(answer(page)).to_contain_text("That is all.")
    page.get_by_role("button", name="More about Shall this stay?").click()
    page.get_by_role("menuitem", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".talk", has_text="Shall this stay?")).to_have_count(0)
    expect(page).to_have_url(f"{slow.url}/")


def test_jobs_show_their_log(library: Server, visit: Visit) -> None:
    page = visit(f"{library.url}/jobs")
    expect(page.locator(".joblist > li").first).to_be_visible()
    page.get_by_role("button", name="Failed").click()
    expect(page.locator(".joblist .why").first).to_be_visible()
    page.locator(".joblist .what button").first.click()
    expect(page.get_by_role("dialog").locator(".log li").first).to_be_visible()
    accessible(page)


@pytest.mark.parametrize("cut", ["before the answer", "after the headers"])
def test_a_question_whose_sending_broke_off_is_asked_once(
    slow: Server, tortoise: Tortoise, visit: Visit, cut: str
) -> None:
    tortoise.gate.set()
    page = visit(slow.url, reload_breaks=True)

    def break_off(route: Route) -> None:
        answered = route.fetch()
        if cut == "before the answer":
            route.abort()
        else:
            route.fulfill(status=200, headers={"x-job-id": answered.headers["x-job-id"]}, body=": cut\n\n")

    page.route("**/api/chat", break_off, times=1)
    before = tortoise.answers
    ask(page, f"What is lost {cut}?")
    expect(answer(page)).to_contain_text("That is all.")
    expect(page).to_have_url(re.compile(r"/chat/cnv_"))
    expect(page.get_by_label("Your message")).to_have_value("")
    assert tortoise.answers == before + 1


def test_two_tabs_go_on_with_one_conversation(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.set()
    first = visit(slow.url)
    ask(first, "Who is first?")
    expect(answer(first)).to_contain_text("That is all.")
    second = first.context.new_page()
    second.goto(first.url)
    ask(second, "Who is second?")
    expect(second.get_by_role("button", name="Send")).to_be_visible()
    expect(answer(second)).to_contain_text("That is all.")
    expect(second.get_by_role("article", name="You")).to_have_count(2)
    first.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(first.get_by_role("article", name="You")).to_have_count(2)


def test_who_asks_before_the_conversation_is_there_goes_on_with_it(
    slow: Server, tortoise: Tortoise, visit: Visit
) -> None:
    tortoise.gate.set()
    page = visit(slow.url)
    ask(page, "Who is first?")
    expect(answer(page)).to_contain_text("That is all.")
    held: list[Route] = []
    page.route("**/api/conversations/*", lambda route: held.append(route), times=1)
    with page.expect_request("**/api/conversations/*"):
        page.reload()
    ask(page, "Who is quick?")
    expect(page.get_by_label("Your message")).to_have_value("")
    held[0].continue_()
    expect(page.get_by_role("article", name="You")).to_have_count(2)
    expect(answer(page)).to_contain_text("That is all.")


def test_a_refused_answer_says_why_and_is_tried_again(slow: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.set()
    tortoise.refusing.set()
    page = visit(slow.url)
    ask(page, "Who may come in?")
    again = answer(page).get_by_role("button", name="Try again")
    expect(answer(page)).to_contain_text("does not accept")
    accessible(page)
    tortoise.refusing.clear()
    again.focus()
    page.keyboard.press("Enter")
    expect(answer(page)).to_contain_text("That is all.")
    expect(answer(page)).to_be_focused()
    expect(again).to_have_count(0)
    page.close()
    slow.kill()  # who was refused turns to another model for a while
    slow.start()


def test_what_was_asked_before_is_answered_as_then_where_one_wants_it(library: Server, visit: Visit) -> None:
    page = visit(library.url)
    page.get_by_role("button", name="Choose collections, tags and more").click()
    page.get_by_role("checkbox", name="Take the answer of then").check()
    accessible_and_fitting(page, "the options")
    page.keyboard.press("Escape")
    for again in (False, True):
        ask(page, "In which order do the terraces receive water?")
        expect(answer(page).get_by_role("button", name="Answer again")).to_be_visible()
        expect(answer(page).get_by_text("answered just now")).to_have_count(int(again))
        if not again:
            page.get_by_role("link", name="New chat").click()
    page.reload()
    expect(answer(page).get_by_text("answered just now")).to_be_visible()


def test_a_collection_is_made_filled_and_deleted(library: Server, visit: Visit, handbook: Path) -> None:
    note = handbook.with_name("note.md")
    note.write_text("# A note\n\nThe lower gate sticks when it rains.\n")
    page = visit(f"{library.url}/documents")
    page.get_by_role("button", name="New collection").click()
    page.get_by_label("Name", exact=True).fill("gates")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    add(page, note)
    expect(page.locator(".doc")).to_have_count(1)
    expect(page.locator(".doc")).to_contain_text("Found by words")
    page.get_by_role("button", name="Delete gates").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
    expect(page.get_by_role("button", name=re.compile("^gates"))).to_have_count(0)
    expect(page.locator(".doc", has_text="handbook.pdf")).to_be_visible()
    expect(page.locator(".doc", has_text="note.md")).to_have_count(0)


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_every_view_is_accessible_and_fits(library: Server, visit: Visit, device: str) -> None:
    page = visit(library.url, **(PHONE if device == "phone" else {}))
    talk = page.request.get(f"{library.url}/api/conversations").json()["items"][0]["id"]
    documents = page.request.get(f"{library.url}/api/documents?state=ready").json()["items"]
    read = [f"/documents/{each['id']}" for each in documents]
    for place in (*PLACES, f"/chat/{talk}", *read):
        page.goto(library.url + place)
        page.wait_for_load_state("networkidle") if place in ("/", "/settings") else page.wait_for_timeout(400)
        accessible_and_fitting(page, place)


def test_the_chosen_theme_stays(library: Server, visit: Visit) -> None:
    page = visit(f"{library.url}/settings", color_scheme="light")
    page.get_by_role("button", name="Dark", exact=True).click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_on_a_phone_the_menu_and_the_sources_open(library: Server, visit: Visit) -> None:
    page = visit(library.url, **PHONE)
    page.get_by_role("button", name="Open menu").click()
    expect(page.get_by_role("button", name="Close menu")).to_be_focused()
    accessible(page)
    page.locator(".talk a").first.click()
    expect(page.get_by_role("button", name="Open menu")).to_be_visible()
    page.get_by_role("button", name=re.compile(r"\d sources?$")).first.click()
    sheet = page.get_by_role("dialog", name="Sources")
    expect(sheet).to_be_visible()
    accessible(page)
    sheet.get_by_role("link").first.click()
    expect(page.locator("dialog .viewer")).to_be_visible()
