"""People with accounts, on the page: from the first owner to a limit that is reached and what it cost."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Response, Route, expect

from tests.journeys.conftest import Server
from tests.journeys.test_app import PHONE, accessible, accessible_and_fitting, answer, ask
from tests.journeys.tortoise import Tortoise

Visit = Callable[..., Page]
PASSWORD = "seven stones in the wall"
THREE_CALLS = """() => {
    const main = document.querySelector("script[type=module]").src;
    const call = async () => (await import(new URL("api.js", main))).api.collections();
    window.told = Promise.all([1, 2, 3].map(() => call().then(() => "ok", (error) => error.message)));
}"""
FAR = {"X-Forwarded-For": "203.0.113.9"}  # as a proxy says it: not from this machine


@dataclass(frozen=True)
class Person:
    name: str

    @property
    def email(self) -> str:
        return f"{self.name.lower()}@example.org"


ADA, BOB, EVE, KURT, MIA = (Person(name) for name in ("Ada", "Bob", "Eve", "Kurt", "Mia"))


def tortoise_settings(tortoise: Tortoise) -> dict[str, str]:
    return {
        "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
        "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": tortoise.url,
    }


def started(folder: Path, tortoise: Tortoise, **settings: str) -> Server:
    server = Server(folder / "data", **tortoise_settings(tortoise), **settings)
    server.start()
    return server


def register(server: Server, person: Person) -> None:
    body = {"name": person.name, "email": person.email, "password": PASSWORD}
    httpx.post(f"{server.url}/api/users", json=body).raise_for_status()


@pytest.fixture
def fresh(tmp_path: Path, tortoise: Tortoise) -> Iterator[Callable[..., Server]]:
    """Starts an installation that nobody has used."""
    servers: list[Server] = []

    def start(**settings: str) -> Server:
        servers.append(started(tmp_path, tortoise, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tortoise: Tortoise) -> Iterator[Server]:
    """An installation with its owner, Ada, where others may register."""
    server = started(tmp_path_factory.mktemp("house"), tortoise)
    register(server, ADA)
    yield server
    server.close()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, tortoise: Tortoise) -> Iterator[Server]:
    """As `house`, but an access token is good for two seconds."""
    server = started(tmp_path_factory.mktemp("hasty"), tortoise, TERRACE_ACCOUNTS__ACCESS_MINUTES="0.034")
    register(server, ADA)
    yield server
    server.close()


def fill_in(page: Page, person: Person) -> None:
    page.get_by_label("Your name").fill(person.name)
    page.get_by_label("Email").fill(person.email)
    page.get_by_role("textbox", name="Password").fill(PASSWORD)


def log_in(page: Page, person: Person, password: str = PASSWORD) -> None:
    page.get_by_label("Email").fill(person.email)
    page.get_by_role("textbox", name="Password").fill(password)
    page.keyboard.press("Enter")


def enter(page: Page, person: Person) -> None:
    """Log in, and wait until one is in."""
    log_in(page, person)
    expect(page.get_by_role("button", name=re.compile(f"^{person.name}, "))).to_be_visible()


def client_of(server: Server, person: Person) -> httpx.Client:
    login = {"email": person.email, "password": PASSWORD}
    tokens = httpx.post(f"{server.url}/api/auth/login", json=login).raise_for_status().json()
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {tokens['access_token']}"})


def test_local_use_ends_with_the_first_account(fresh: Callable[..., Server], tortoise: Tortoise, visit: Visit) -> None:
    server = fresh()
    tortoise.gate.set()
    page = visit(server.url, refusals=("401", "422"))
    ask(page, "Whose is this?")
    expect(answer(page)).to_contain_text("That is all.")
    other = page.context.new_page()
    other.goto(f"{server.url}/usage")
    expect(other.get_by_role("table", name="Usage by model")).to_contain_text("slow/tortoise")
    expect(other.get_by_role("link", name="Members")).to_have_count(0)

    page.bring_to_front()  # a tab behind another draws one picture a second
    page.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Set up accounts").click()
    expect(page.get_by_text("everybody logs in")).to_be_visible()
    accessible(page)
    page.get_by_role("button", name="Make the first account").click()
    expect(page.get_by_text("Your name is missing.")).to_be_visible()
    expect(page.get_by_label("Your name")).to_be_focused()
    fill_in(page, ADA)
    page.get_by_role("textbox", name="Password").fill("password")
    page.keyboard.press("Enter")
    expect(page.locator(".wrong", has_text="easy to guess")).to_be_visible()
    expect(page.get_by_role("textbox", name="Password")).to_be_focused()
    accessible(page)
    page.get_by_role("textbox", name="Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Ada, "))).to_be_visible()
    expect(page.locator(".talk", has_text="Whose is this?")).to_be_visible()  # what was asked before is hers

    stranger = visit(f"{server.url}/documents?tab=search")
    expect(stranger.get_by_role("heading", name="Welcome back")).to_be_visible()
    accessible(stranger)
    log_in(stranger, ADA)
    expect(stranger).to_have_url(f"{server.url}/documents?tab=search")


def test_the_first_visit_from_elsewhere_needs_the_code_of_the_terminal(
    fresh: Callable[..., Server], visit: Visit
) -> None:
    server = fresh(TERRACE_ACCOUNTS__REQUIRED="true")
    page = visit(server.url, extra_http_headers=FAR, refusals=("403",))
    expect(page).to_have_url(f"{server.url}/setup")
    fill_in(page, ADA)
    page.get_by_label("Setup code").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Setup code")).to_have_attribute("aria-invalid", "true")
    accessible(page)
    code = re.search(r"the code (\S+?),", server.log.read_text())
    assert code is not None
    page.get_by_label("Setup code").fill(code[1])
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Ada, "))).to_be_visible()


def test_from_registration_to_a_limit_and_what_it_cost(house: Server, tortoise: Tortoise, visit: Visit) -> None:
    tortoise.gate.set()
    page = visit(house.url, refusals=("409", "429"))
    page.get_by_role("link", name="Make an account").click()
    accessible(page)
    fill_in(page, ADA)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Email")).to_have_attribute("aria-invalid", "true")
    fill_in(page, BOB)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Bob, "))).to_be_visible()
    expect(page.get_by_role("link", name="Usage")).to_be_visible()

    page.get_by_role("button", name=re.compile("^Bob, ")).click()
    accessible(page)
    page.get_by_role("menuitem", name="API keys").click()
    expect(page.get_by_role("link", name="Members")).to_have_count(0)
    page.get_by_role("button", name="New key").click()
    page.get_by_role("textbox", name="Name").fill("Reports")
    page.get_by_label("Only this").check()
    accessible(page)
    page.get_by_role("button", name="Make the key").click()
    secret = page.get_by_role("textbox", name="Secret").input_value()
    expect(page.get_by_role("dialog").locator("pre")).to_contain_text(secret)
    accessible(page)
    page.get_by_role("button", name="I have kept it").click()
    expect(page.locator(".keylist li", has_text="Reports")).to_contain_text("never used")
    page.reload()
    expect(page.locator(".keylist li", has_text="Reports")).to_be_visible()
    assert secret not in page.content()

    question = {"model": "slow/tortoise", "messages": [{"role": "user", "content": "Who wins?"}], "stream": True}
    with httpx.Client(base_url=house.url, headers={"Authorization": f"Bearer {secret}"}) as program:
        answered = program.post("/v1/chat/completions", json=question)
        assert answered.status_code == 200
        assert "steady" in answered.text
        assert program.get("/api/documents").status_code == 403  # it may only ask

    with client_of(house, ADA) as owner:
        members = owner.get("/api/members").json()["items"]
        bob = next(each["user"]["id"] for each in members if each["user"]["name"] == BOB.name)
        owner.put(f"/api/limits/user:{bob}", json={"requests_per_minute": 1}).raise_for_status()
    late: list[Route] = []
    page.route("**/api/documents?limit=5", lambda route: late.append(route), times=1)
    page.goto(house.url)
    ask(page, "Is there room for me?")
    told = page.get_by_role("alert")
    answered_now = page.get_by_role("article", name="Answer").filter(has_text="That is all.")
    expect(told.or_(answered_now).first).to_be_visible()
    if not told.count():  # the one that was free
        ask(page, "And for one more?")
    expect(told).to_be_visible()
    with page.expect_response("**/api/documents?limit=5"):
        late[0].continue_()  # for the welcome, which has come too late
    expect(told).to_contain_text("requests a minute")
    expect(told).to_contain_text("an administrator")
    expect(told).to_contain_text(re.compile(r"room again in \d+ second"))
    expect(told.get_by_role("button", name="Send again")).to_be_disabled()
    accessible(page)
    told.get_by_role("button", name="Edit").click()
    expect(page.get_by_label("Your message")).to_have_value(re.compile("room for me|one more"))

    page.get_by_role("link", name="Usage").click()
    expect(page.get_by_role("table", name="Usage by model")).to_contain_text("price unknown")
    expect(page.locator(".figures")).to_contain_text("Unknown")
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator(".plot rect")).to_have_count(1)
    page.locator(".chart").focus()
    page.keyboard.press("End")
    expect(page.locator(".charttip")).to_contain_text("slow/tortoise")
    expect(page.get_by_role("table", name="Usage by key")).to_contain_text("Reports")
    page.get_by_text("As a table").click()
    expect(page.get_by_role("table", name="Usage by day").get_by_role("row")).to_have_count(2)
    accessible(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert download.value.path().read_text().startswith("day,")
    page.get_by_role("link", name="Limits").click()
    meter = page.get_by_role("meter", name="Requests a minute")
    expect(meter).to_have_attribute("aria-valuemax", "1")
    expect(page.get_by_role("button", name=re.compile("Change the limits"))).to_have_count(0)


def test_an_invitation_is_accepted_in_another_browser(house: Server, visit: Visit) -> None:
    page = visit(f"{house.url}/members")
    enter(page, ADA)
    page.get_by_role("button", name="Invite").click()
    page.get_by_label("Email").fill(EVE.email)
    page.get_by_label("Role", exact=True).select_option("admin")
    accessible(page)
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_role("textbox", name="Link").input_value()
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("list", name="Invitations")).to_contain_text(EVE.email)

    guest = visit(link)
    expect(guest.get_by_role("heading", name=re.compile("^Join "))).to_be_visible()
    expect(guest.get_by_text("invited as admin")).to_be_visible()
    expect(guest.get_by_label("Email")).to_have_value(EVE.email)
    accessible(guest)
    guest.get_by_label("Your name").fill(EVE.name)
    guest.get_by_role("textbox", name="Password").fill(PASSWORD)
    guest.keyboard.press("Enter")
    expect(guest.get_by_role("button", name=re.compile("^Eve, "))).to_be_visible()
    guest.goto(f"{house.url}/members")
    expect(guest.get_by_role("list", name="Members")).to_contain_text(ADA.email)
    guest.goto(f"{house.url}/tenants")
    expect(guest.get_by_role("heading", name="This is not open to you")).to_be_visible()

    page.reload()
    page.get_by_label("Role of Eve").select_option("viewer")
    expect(page.get_by_text("Eve is viewer now")).to_be_visible()
    guest.goto(house.url)
    expect(guest.get_by_role("heading", name="Read and search the documents")).to_be_visible()
    used = visit(link, refusals=("404",))
    expect(used.get_by_role("heading", name="This invitation is no longer good")).to_be_visible()


def test_somebody_with_an_account_joins_a_second_tenant(house: Server, visit: Visit) -> None:
    with httpx.Client(base_url=house.url) as client:
        client.post(
            "/api/users", json={"name": KURT.name, "email": KURT.email, "password": PASSWORD}
        ).raise_for_status()
    page = visit(f"{house.url}/tenants")
    enter(page, ADA)
    page.get_by_role("button", name="New tenant").click()
    page.get_by_label("Name").fill("Mill & Sons")
    page.get_by_label("Money a month").fill("2.5")
    page.get_by_role("button", name="Make the tenant").click()
    expect(page.get_by_role("heading", name="Invite somebody to Mill & Sons")).to_be_visible()
    expect(page.get_by_label("Role", exact=True)).to_have_value("owner")
    page.get_by_role("button", name="Make the link").click()
    link = page.get_by_role("textbox", name="Link").input_value()
    page.get_by_role("button", name="Done").click()
    expect(page.locator(".tenantlist li", has_text="Mill & Sons")).to_contain_text("$2.50")

    guest = visit(link)
    guest.get_by_role("button", name="I have an account already").click()
    log_in(guest, KURT)
    person = guest.get_by_role("button", name="Kurt, Mill & Sons")
    expect(person).to_be_visible()
    guest.goto(f"{house.url}/members")
    expect(guest.get_by_role("list", name="Members").get_by_role("listitem")).to_have_count(1)
    guest.goto(f"{house.url}/audit")
    expect(guest.get_by_role("list", name="Acts, newest first")).to_contain_text("You joined as owner")
    person.click()
    guest.get_by_role("menuitem").filter(has_not_text=re.compile("Account|API keys|Mill|Log out")).click()
    expect(person).to_have_count(0)
    expect(guest.get_by_role("button", name=re.compile("^Kurt, "))).to_be_visible()

    page.goto(f"{house.url}/audit")
    acts = page.get_by_role("list", name="Acts, newest first")
    expect(acts).to_contain_text("You set limits for the tenant Mill & Sons: money a month $2.50")
    expect(acts).to_contain_text("You invited somebody as owner in Mill & Sons")
    page.goto(f"{house.url}/tenants")
    page.get_by_role("button", name="More about Mill & Sons").click()
    page.get_by_role("menuitem", name="Delete").click()
    gone = page.get_by_role("dialog").get_by_role("button", name="Delete for good")
    expect(gone).to_be_disabled()
    page.get_by_label("Type Mill & Sons to go on").fill("Mill & Sons")
    gone.click()
    expect(page.locator(".tenantlist li", has_text="Mill & Sons")).to_have_count(0)


def test_logging_out_ends_every_tab(house: Server, visit: Visit) -> None:
    page = visit(f"{house.url}/account", refusals=("401",))
    log_in(page, ADA, "not her password")
    expect(page.get_by_role("alert")).to_be_visible()
    enter(page, ADA)
    expect(page).to_have_url(f"{house.url}/account")
    other = page.context.new_page()
    other.goto(f"{house.url}/usage")
    expect(other.get_by_role("heading", name="Usage", exact=True)).to_be_visible()
    page.get_by_role("button", name="Log out", exact=True).first.click()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    expect(other.get_by_role("heading", name="Welcome back")).to_be_visible()
    assert page.request.get(f"{house.url}/api/documents").status == 401
    enter(other, ADA)
    expect(other).to_have_url(f"{house.url}/usage")


@pytest.mark.parametrize("back", [ADA, MIA], ids=["oneself", "somebody else"])
def test_words_that_were_not_sent_when_the_login_ended_wait_for_their_writer_alone(
    house: Server, visit: Visit, back: Person
) -> None:
    if back == MIA:
        register(house, MIA)
    page = visit(house.url, refusals=("401",))
    enter(page, ADA)
    page.get_by_label("Your message").fill("A thought that took long")
    csrf = page.request.get(f"{house.url}/api/auth/session").json()["csrf"]
    assert page.request.post(f"{house.url}/api/auth/logout", data={}, headers={"X-CSRF-Token": csrf}).ok
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()
    enter(page, back)
    words = page.get_by_label("Your message")
    expect(words).to_have_value("A thought that took long" if back == ADA else "")
    page.reload()
    expect(words).to_have_value("")


def test_an_account_is_looked_after(house: Server, visit: Visit) -> None:
    zoe = Person("Zoe")
    register(house, zoe)
    with client_of(house, zoe) as elsewhere:
        page = visit(f"{house.url}/account", refusals=("403",))
        enter(page, zoe)
        logins = page.get_by_role("list", name="Where you are logged in")
        expect(logins.get_by_role("listitem")).to_have_count(2)
        page.get_by_role("textbox", name="Password now").fill("something else")
        page.get_by_role("textbox", name="New password").fill(PASSWORD + "!")
        page.get_by_role("button", name="Change the password").click()
        expect(page.get_by_role("textbox", name="Password now")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("textbox", name="Password now").fill(PASSWORD)
        page.get_by_role("button", name="Change the password").click()
        expect(page.get_by_text("Password changed")).to_be_visible()
        expect(logins.get_by_role("listitem")).to_have_count(1)
        assert elsewhere.get("/api/documents").status_code == 401
    page.get_by_role("button", name="Erase my account").click()
    page.get_by_label("Type zoe@example.org to go on").fill("zoe@example.org")
    accessible(page)
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_role("heading", name="Welcome back")).to_be_visible()


def token_gone(page: Page) -> None:
    """Wait until the access token has ended: the browser then drops its cookie."""
    deadline = time.monotonic() + 30
    while any(each.get("name") == "terrace_access" for each in page.context.cookies()):
        assert time.monotonic() < deadline, "the access token outlived its time"
        page.wait_for_timeout(100)


@pytest.mark.parametrize("cut", ["not cut", "reloaded", "line broken"])
def test_no_word_is_lost_when_the_token_ends_in_mid_answer(
    hasty: Server, tortoise: Tortoise, visit: Visit, cut: str
) -> None:
    tortoise.gate.clear()
    page = visit(hasty.url, refusals=("401",), reload_breaks=True)
    enter(page, ADA)
    ask(page, f"Who wins when it is {cut}?")
    prose = answer(page).locator(".prose")
    expect(prose).to_contain_text("wins the race")
    before = tortoise.answers
    token_gone(page)
    if cut == "reloaded":
        page.reload()
        expect(prose).to_contain_text("wins the race")
    if cut == "line broken":
        page.context.set_offline(True)
        page.evaluate("window.stop()")
        page.context.set_offline(False)
    tortoise.gate.set()
    expect(prose).to_contain_text("That is all.")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert prose.inner_text().count("Slow and steady") == 1
    assert tortoise.answers == before
    assert page.url.startswith(f"{hasty.url}/chat/")


@pytest.mark.parametrize("locks", ["locks of the browser", "plain http: no locks"])
def test_tabs_renew_one_login_one_after_the_other(hasty: Server, visit: Visit, locks: str) -> None:
    """A refresh token that is used twice ends the login: many requests of many tabs must use each once."""
    page = visit("about:blank", refusals=("401",))
    if "no locks" in locks:
        page.context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    page.goto(f"{hasty.url}/documents")
    enter(page, ADA)
    tabs = [page, *(page.context.new_page() for _ in range(3))]
    refreshed: list[int] = []

    def note(response: Response) -> None:
        if response.url.endswith("/api/auth/refresh"):
            refreshed.append(response.status)

    page.context.on("response", note)
    for tab in tabs[1:]:
        tab.goto(f"{hasty.url}/documents")
        expect(tab.get_by_role("heading", name="Documents")).to_be_visible()
    for _ in range(2):
        token_gone(page)
        for tab in tabs:
            tab.evaluate(THREE_CALLS)
        for tab in tabs:
            assert tab.evaluate("window.told") == ["ok"] * 3
    assert len(refreshed) >= 2
    assert set(refreshed) == {200}


@pytest.mark.parametrize("device", ["desk", "phone"])
def test_every_view_of_accounts_is_accessible_and_fits(house: Server, visit: Visit, device: str) -> None:
    look = PHONE if device == "phone" else {}

    def check(page: Page, place: str) -> None:
        page.goto(house.url + place)
        page.wait_for_load_state("networkidle")
        accessible_and_fitting(page, place)

    outside = visit(f"{house.url}/login", refusals=("404", "422"), **look)
    for place in ("/login", "/register", "/join#inv_nothing", "/reset#rst_nothing"):
        check(outside, place)
    page = visit(f"{house.url}/account", **look)
    log_in(page, ADA)
    expect(page.get_by_role("heading", name="Account", exact=True)).to_be_visible()
    for place in ("/account", "/keys", "/usage", "/limits", "/members", "/audit", "/tenants", "/settings", "/"):
        check(page, place)
