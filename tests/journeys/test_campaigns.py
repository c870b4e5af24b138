"""A campaign on the page, from a table of people to exported messages."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.journeys.conftest import Server
from tests.journeys.scribe import Scribe
from tests.journeys.test_app import PHONE, accessible, accessible_and_fitting

Visit = Callable[..., Page]

TOWNS = ("Zürich", "Basel", "Lugano")
PEOPLE = [f"Person {n};p{n}@example.org;{TOWNS[n % 3]};Boots" for n in range(1, 11)]
BAD = "Nobody;this is no address;Basel;Boots"
TEXT = "Write a greeting to {{contact.name}} in {{contact.town}}."


@pytest.fixture(scope="module")
def scribe() -> Iterator[Scribe]:
    upstream = Scribe()
    yield upstream
    upstream.close()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory, scribe: Scribe) -> Iterator[Server]:
    """An installation whose model is the scribe."""
    server = Server(
        tmp_path_factory.mktemp("office") / "data",
        TERRACE_MODELS__PROVIDERS__DESK__KIND="openai",
        TERRACE_MODELS__PROVIDERS__DESK__BASE_URL=scribe.url,
    )
    server.start()
    yield server
    server.close()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """As a spreadsheet of another country saves it: a BOM, semicolons, and a row that cannot be."""
    path = tmp_path / "customers.csv"
    rows = ["Kunde;E-Mail;Ort;Bought", *PEOPLE[:4], BAD, *PEOPLE[4:]]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    return path


def choose(page: Page, button: str, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=button).click()
    chooser.value.set_files(path)


def forward(page: Page, heading: str, button: str = "Next") -> None:
    page.get_by_role("button", name=button, exact=True).click()
    expect(page.get_by_role("heading", name=heading)).to_be_focused()


def written(page: Page) -> int:
    return page.get_by_role("list", name="Messages").get_by_role("button").count()


def test_a_campaign_from_a_table_to_its_export(office: Server, scribe: Scribe, visit: Visit, table: Path) -> None:
    page = visit(f"{office.url}/campaigns", refusals=("400", "422"))
    expect(page.get_by_role("heading", name="No campaigns yet")).to_be_visible()
    page.get_by_role("link", name="New campaign").click()

    # contacts: looked at, mapped, brought in
    expect(page.get_by_text("There is no list yet")).to_be_visible()
    choose(page, "Upload CSV or XLSX", table)
    expect(page.get_by_text("10 new")).to_be_visible()
    expect(page.locator(".rowerrors")).to_contain_text("Line 6")
    kunde, ort = (page.get_by_label(f"Field for the column {column}") for column in ("Kunde", "Ort"))
    expect(page.get_by_label("Field for the column E-Mail")).to_have_value("email")
    expect(kunde).to_have_value("kunde")
    kunde.select_option("name")
    expect(kunde).to_have_value("name")
    ort.select_option("another name…")
    page.get_by_role("dialog").get_by_role("textbox").fill("town")
    page.keyboard.press("Enter")
    expect(ort).to_have_value("town")
    page.get_by_label("Field for the column Bought").select_option("leave it out")
    expect(page.get_by_label("Into the list")).to_have_value("customers")
    expect(page.get_by_role("button", name="Import", exact=True)).to_be_enabled()
    accessible(page)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.get_by_text("10 new, 0 changed")).to_be_visible()
    expect(page.get_by_role("radio", name=re.compile("customers"))).to_be_checked()

    # template: a wrong place is told while it is written, and mended
    forward(page, "What shall each message say?")
    page.get_by_label("Name of the template").fill("Greeting")
    text = page.get_by_label("Text", exact=True)
    text.fill("Write a greeting to \nmany in {{contat.town}}.")
    fault = page.locator(".problems")
    expect(fault).to_contain_text("Line 2, column 9")
    expect(fault).to_contain_text("Nothing is called `contat.town`")
    expect(page.locator(".mirror mark.wrong")).to_have_text("{{contat.town}}")
    expect(page.get_by_text("Mend the text first.")).to_be_visible()
    accessible(page)
    fault.get_by_role("button").click()
    page.keyboard.type("{{contact.colour}}")
    expect(page.locator(".lacking")).to_contain_text("{{contact.colour}} is missing for 10 contacts of 10")
    text.fill("Write a greeting to ")
    page.get_by_role("button", name="contact.name", exact=True).click()
    page.keyboard.type(" in ")
    page.get_by_role("button", name="contact.town", exact=True).click()
    page.keyboard.type(".")
    expect(text).to_have_value(TEXT)
    expect(page.locator(".templatetold", has_text="all 10 contacts have what it asks for")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)  # nothing is lost
    expect(page.get_by_label("Name of the template")).to_have_value("Greeting")
    page.get_by_label("Model", exact=True).select_option("desk/scribe")

    # preview: an unknown price is said and holds no budget; a known one tells what it may cost
    forward(page, "Look at a few before all are written")
    page.get_by_role("button", name="Show what would be asked").click()
    expect(page.locator(".letter").first).to_contain_text("Write a greeting to")
    expect(page.locator(".figures")).to_contain_text("Unknown")
    page.get_by_label("Budget in dollars").fill("2")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator(".wrong", has_text="Nobody knows the price")).to_be_visible()
    price = {"input": 1.0, "output": 10.0}
    httpx.put(f"{office.url}/api/prices/desk/scribe", json=price).raise_for_status()
    scribe.permit(5)
    page.get_by_role("button", name=re.compile("Write five")).click()
    expect(page.locator(".letter")).to_have_count(5)
    expect(page.locator(".letter").first).to_contain_text("Warm greetings to")
    expect(page.locator(".figures")).to_contain_text("$0.003")
    page.get_by_label("Messages written at a time").fill("2")
    accessible(page)

    # back and forth
    page.get_by_role("button", name="Contacts").and_(page.locator(".wizardsteps button")).click()
    expect(page.get_by_role("radio", name=re.compile("customers"))).to_be_checked()
    page.route("**/api/templates?*", lambda route: None)  # what the step offers besides does not come
    page.locator(".wizardsteps button", has_text="Template").click()
    expect(page.get_by_label("Text", exact=True)).to_have_value(TEXT)
    forward(page, "Look at a few before all are written")
    page.unroute_all(behavior="ignoreErrors")
    expect(page.locator(".letter")).to_have_count(5)
    expect(page.get_by_label("Messages written at a time")).to_have_value("2")
    forward(page, "Ready")
    expect(page.locator(".summary")).to_contain_text("10 contacts of the list “customers” each get one message")
    expect(page.locator(".summary")).to_contain_text("pauses before it costs more than $2.00")
    page.get_by_label("Name of the campaign").fill("Spring greetings")
    accessible(page)
    page.get_by_role("button", name="Start", exact=True).click()

    # the board: messages arrive, it is paused and goes on
    expect(page.get_by_role("heading", name="Spring greetings")).to_be_visible()
    messages = page.get_by_role("list", name="Messages").get_by_role("button")
    scribe.permit(3)
    expect(messages).to_have_count(3)
    expect(page.get_by_role("progressbar", name="Messages")).to_have_attribute("aria-valuetext", "3 of 10")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".boardstate")).to_contain_text("You paused it.")
    scribe.permit(2)  # what was being written is finished
    expect(messages).to_have_count(5)
    page.reload()
    expect(messages).to_have_count(5)
    scribe.free.set()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".boardstate")).to_contain_text("10 written")
    expect(messages).to_have_count(10)
    accessible(page)

    # one is edited, one approved
    messages.filter(has_text="Person 7").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("complementary", name="Contact")).to_contain_text("p7@example.org")
    expect(dialog.get_by_role("complementary", name="Contact")).to_contain_text(TOWNS[7 % 3])
    dialog.get_by_role("button", name="Edit").click()
    dialog.get_by_role("textbox", name="The message").fill("Dear seven, come and see us.")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.locator(".saying").first).to_have_text("Dear seven, come and see us.")
    dialog.get_by_role("button", name="Approve", exact=True).click()
    expect(dialog.get_by_text("Approved", exact=True).first).to_be_visible()
    accessible(page)
    dialog.get_by_role("button", name="The message after").or_(
        dialog.get_by_role("button", name="The message before")
    ).and_(dialog.locator("button:enabled")).first.click()
    expect(dialog.get_by_role("heading", level=2)).not_to_have_text("Person 7")
    before = scribe.answers
    dialog.get_by_role("button", name="Write it again").click()
    while scribe.answers == before:
        page.wait_for_timeout(50)
    expect(dialog.get_by_role("button", name="Write it again")).to_be_visible()
    expect(dialog.get_by_text("Warm greetings")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Edited", exact=True).click()
    expect(messages).to_have_count(1)
    expect(messages).to_contain_text("Dear seven")
    page.get_by_role("button", name="Needs approval", exact=True).click()
    expect(messages).to_have_count(9)

    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("menuitem", name="CSV, all messages").click()
    exported = download.value.path().read_text("utf-8-sig")
    assert len(exported.strip().splitlines()) == 11
    assert "Dear seven, come and see us." in exported
    page.get_by_role("link", name="Campaigns").first.click()
    line = page.get_by_role("list", name="Campaigns").get_by_role("listitem")
    expect(line).to_contain_text("10 of 10")


@pytest.fixture(scope="module")
def campaigns(office: Server, scribe: Scribe) -> tuple[str, str]:
    """One that is written, but for somebody without a name, and one that is a draft with its preview."""
    scribe.free.set()
    table = "\n".join(["email,name,town", *(f"g{n}@example.org,{'Guest' if n else ''},Basel" for n in range(4))])
    with httpx.Client(base_url=office.url, timeout=30) as client:
        files = {"file": ("guests.csv", table.encode())}
        job = (
            client.post("/api/contacts/import", files=files, data={"list": "guests"})
            .raise_for_status()
            .json()["job_id"]
        )
        while client.get(f"/api/jobs/{job}").json()["state"] != "succeeded":
            time.sleep(0.05)
        template = {"name": "Invitation", "body": "Invite {{contact.name}} to {{contact.town}}."}
        client.post("/api/templates", json=template).raise_for_status()
        wanted = {"list_id": "guests", "template_id": "Invitation", "model": "desk/scribe", "name": "An invitation"}
        wanted["options"] = {"incomplete": "skip"}  # type: ignore[assignment]
        done, draft = (client.post("/api/campaigns", json=wanted).raise_for_status().json()["id"] for _ in range(2))
        client.post(f"/api/campaigns/{done}/start").raise_for_status()
        client.post(f"/api/campaigns/{draft}/preview", json={"count": 2}).raise_for_status()
        while client.get(f"/api/campaigns/{done}").json()["state"] != "finished":
            time.sleep(0.05)
    return done, draft


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_every_view_of_campaigns_is_accessible_and_fits(
    office: Server, campaigns: tuple[str, str], visit: Visit, device: str
) -> None:
    done, draft = campaigns
    page = visit(f"{office.url}/campaigns", **(PHONE if device == "phone" else {}))
    for place, list_name in (
        ("/campaigns", "Campaigns"),
        ("/contacts", "Contacts"),
        ("/templates", "Templates"),
        (f"/campaigns/{done}", "Messages"),
    ):
        page.goto(office.url + place)
        expect(page.get_by_role("list", name=list_name).get_by_role("button").first).to_be_visible()
        accessible_and_fitting(page, place)
    page.get_by_role("list", name="Messages").get_by_role("button").last.click()
    expect(page.get_by_role("complementary", name="Contact").get_by_text("town")).to_be_visible()
    accessible_and_fitting(page, "a message")

    page.goto(f"{office.url}/campaigns/new?draft={draft}")
    expect(page.locator(".letter")).to_have_count(2)
    accessible_and_fitting(page, "the preview")
    forward(page, "Ready")
    expect(page.locator(".summary")).to_contain_text("4 contacts")
    accessible_and_fitting(page, "the run")
    page.locator(".wizardsteps button", has_text="Template").click()
    expect(page.locator(".templatetold")).to_contain_text("missing for 1 contact of 4")
    accessible_and_fitting(page, "the template")
    page.locator(".wizardsteps button", has_text="Contacts").click()
    expect(page.get_by_role("radio", name=re.compile("guests"))).to_be_checked()
    accessible_and_fitting(page, "the contacts")


def test_a_contact_is_corrected(office: Server, campaigns: tuple[str, str], visit: Visit) -> None:
    page = visit(f"{office.url}/contacts")
    people = page.get_by_role("list", name="Contacts")
    people.get_by_role("button").first.click()
    person = page.get_by_role("dialog")
    expect(person.get_by_text("town")).to_be_visible()
    person.get_by_role("button", name="Edit").click()
    dialog = page.get_by_role("dialog", name=re.compile("^Edit"))
    dialog.get_by_label("Name").fill("Wilhelmina")
    dialog.get_by_label("Details").fill("town: Ghent\nshoes")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("“shoes” is not name: value.")).to_be_visible()
    accessible_and_fitting(page, "a contact being edited")
    dialog.get_by_label("Details").fill("town: Ghent\nshoes: 42")
    dialog.get_by_role("button", name="Save").click()
    line = people.get_by_role("listitem").filter(has_text="Wilhelmina")
    expect(line).to_contain_text("town: Ghent")
    expect(line).to_contain_text("shoes: 42")
