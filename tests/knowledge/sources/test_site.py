"""Pages, sites and sitemaps: what is fetched, what is not, and what a trap comes to."""

import gzip
from typing import Any

import pytest
from tests.knowledge.sources.conftest import SITE, Lab, Web

from terrace.errors import Invalid, Unavailable
from terrace.knowledge.sources.fetching import Guest, Pace
from terrace.types import Scope

HERE = Scope()


def small(web: Web) -> None:
    web.page(
        "/", "The harbour office.", "/quay?utm_source=mail#top", "/tides", "https://elsewhere.example/", title="Home"
    )
    web.page("/quay", "The quay is seven metres deep.", "/", "/tides", "/boats.png", title="The quay", etag='"q1"')
    web.page("/tides", "The tide comes twice a day.", "/quay", "mailto:a@b.c", "javascript:x()", title="Tides")


async def test_a_site_is_walked_and_its_pages_are_documents(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    assert (report.added, report.failed, report.skipped) == (3, 0, 0)
    documents, _ = await lab.library.knowledge.list(HERE)
    assert {each.name: each.source_url for each in documents} == {
        "Home": f"{SITE}/", "The quay": f"{SITE}/quay", "Tides": f"{SITE}/tides",
    }  # fmt: skip
    assert all(each.media_type == "text/html" for each in documents)
    assert lab.web.paths.count("/quay") == 1
    assert not any("elsewhere" in url or "boats" in url for url, _ in lab.web.asked)


async def test_unchanged_pages_are_not_sent_again_and_changed_ones_keep_their_document(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    before = {each.source_url: each.id for each in (await lab.library.knowledge.list(HERE))[0]}
    lab.web.page("/tides", "The tide comes once a day.", "/new", title="Tides")
    lab.web.page("/new", "New here.")
    report = await lab.run(HERE, source)
    assert (report.added, report.changed, report.unchanged) == (1, 1, 2)
    assert ('"q1"') in [headers.get("If-None-Match") for url, headers in lab.web.asked if url.endswith("/quay")]
    after = {each.source_url: each.id for each in (await lab.library.knowledge.list(HERE))[0]}
    assert before.items() <= after.items()
    assert "once a day" in (await lab.texts(HERE))["Tides"]


async def test_a_page_goes_when_it_is_gone_twice_and_never_for_an_error(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    lab.web.put("/quay", "Oops", 503)
    lab.web.fail("/tides", Unavailable("It is away."))
    for _ in range(3):
        report = await lab.run(HERE, source)
        assert (report.removed, report.failed) == (0, 2)
    lab.web.put("/quay", "Gone", 410)
    assert (await lab.run(HERE, source)).removed == 0
    lab.web.put("/quay", "Oops", 500)
    assert (await lab.run(HERE, source)).removed == 0
    lab.web.put("/quay", "Gone", 404)
    assert (await lab.run(HERE, source)).removed == 1
    assert set(await lab.texts(HERE)) == {"Home", "Tides"}


async def test_a_page_that_comes_back_is_there_again(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    lab.web.put("/quay", "Gone", 404)
    await lab.run(HERE, source)
    small(lab.web)
    await lab.run(HERE, source)
    lab.web.put("/quay", "Gone", 404)
    assert (await lab.run(HERE, source)).removed == 0  # the count began anew


async def test_a_deleted_document_is_brought_again(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    [quay] = [each for each in (await lab.library.knowledge.list(HERE))[0] if each.name == "The quay"]
    await lab.library.knowledge.delete(HERE, quay.id)
    await lab.run(HERE, source)
    assert "The quay" in await lab.texts(HERE)


async def test_robots_txt_is_kept_to(lab: Lab) -> None:
    small(lab.web)
    lab.web.put("/robots.txt", "User-agent: *\nDisallow: /quay\nCrawl-delay: 0", content_type="text/plain")
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    assert set(await lab.texts(HERE)) == {"Home", "Tides"}
    assert "/quay" not in lab.web.paths
    assert report.skipped == 1


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_without_robots_txt_nobody_is_asked(lab: Lab, status: int) -> None:
    small(lab.web)
    lab.web.put("/robots.txt", "", status)
    source = await lab.make(HERE, "site", SITE)
    with pytest.raises(Unavailable, match="nothing is fetched"):
        await lab.run(HERE, source)
    assert lab.web.paths == []


async def test_a_busy_host_is_asked_slowly(lab: Lab) -> None:
    waited: list[float] = []
    at = [0.0]

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        at[0] += seconds

    web = lab.web
    web.put("/robots.txt", "User-agent: *\nCrawl-delay: 7")
    web.page("/", "Page.")
    guest = Guest(web, Pace(lambda: at[0], sleep), delay=1)
    assert await guest.allowed(f"{SITE}/")
    await guest.get(f"{SITE}/")
    await guest.get(f"{SITE}/")
    assert waited == [1.0, 7.0]
    web.put("/", "", 429, retry_after="20")
    assert (await guest.get(f"{SITE}/")).status == 429
    assert waited[2:] == [7.0, 20.0]
    web.put("/robots.txt", "User-agent: *\nCrawl-delay: 86400")
    slow = Guest(web, Pace(lambda: at[0], sleep), delay=1)
    await slow.allowed(f"{SITE}/")
    web.page("/", "Page.")
    await slow.get(f"{SITE}/")
    await slow.get(f"{SITE}/")
    assert max(waited) == 30.0


async def test_depth_and_pages_are_bounded(lab: Lab) -> None:
    for number in range(30):
        lab.web.page(f"/{number}" if number else "/", f"Page number {number}.", f"/{number + 1}")
    source = await lab.make(HERE, "site", SITE, depth=3)
    assert (await lab.run(HERE, source)).added == 4
    more = await lab.make(HERE, "site", f"{SITE}/20", collection="More", pages=2)
    report = await lab.run(HERE, more)
    assert report.added == 2
    assert "more than the 2 pages" in report.notes[0]


async def test_other_bounds_lead_on_though_nothing_changed(lab: Lab) -> None:
    small(lab.web)
    lab.web.page("/quay", "The quay.", "/deep", etag='"q"')
    lab.web.page("/deep", "Deep down.")
    source = await lab.make(HERE, "site", SITE, depth=1)
    await lab.run(HERE, source)
    assert "/deep" not in lab.web.paths
    from terrace.knowledge.sources.base import Options

    await lab.sources.update(HERE, source.id, options=Options(depth=2))
    await lab.run(HERE, source)
    assert "/deep" in lab.web.paths


async def test_patterns_choose_pages_and_take_out_what_they_leave_out(lab: Lab) -> None:
    small(lab.web)
    source = await lab.make(HERE, "site", SITE, exclude=("tides",))
    await lab.run(HERE, source)
    assert set(await lab.texts(HERE)) == {"Home", "The quay"}
    from terrace.knowledge.sources.base import Options

    await lab.sources.update(HERE, source.id, options=Options(exclude=("quay",)))
    report = await lab.run(HERE, source)
    assert (report.removed, report.added) == (1, 1)
    assert set(await lab.texts(HERE)) == {"Home", "Tides"}


# -- traps


async def test_an_endless_calendar_ends(lab: Lab) -> None:
    lab.web.page("/", "Home.", "/calendar/2024/1")

    def more(url: str) -> None:
        if "/calendar/" in url:
            year, month = map(int, url.split("/")[-2:])
            following = f"/calendar/{year + month // 12}/{month % 12 + 1}"
            lab.web.page(url, f"Nothing happens in {month} of {year}.", following)

    lab.web.before = more
    lab.options = lab.options.model_copy(update={"max_depth": 10_000})
    lab.runner._options = lab.options
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    assert report.added <= 152
    assert any("calendar" in note for note in report.notes)


async def test_paths_that_grow_into_themselves_and_permuted_queries_end(lab: Lab) -> None:
    def more(url: str) -> None:
        if "/shop" in url:
            links = [f"/shop?sort={a}&page={b}&x={len(lab.web.asked)}" for a in range(6) for b in range(6)]
            lab.web.page(url, f"Goods of {url}.", *links)
        elif "/in" in url:
            lab.web.page(url, f"Inside {len(url)}.", "in/")

    lab.web.page("/", "Home.", "/in/", "/shop")
    lab.web.before = more
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    assert report.added <= 106
    assert not any(path.count("/in") > 3 for path in lab.web.paths)


async def test_soft_404s_are_no_pages(lab: Lab) -> None:
    small(lab.web)
    lab.web.page("/", "Home.", "/quay", "/tides", "/x1", "/x2", "/x3", title="Home")

    def sorry(url: str) -> None:
        if "/x" in url or "is-not-there" in url:
            lab.web.page(url, "Sorry, this page does not exist.", "/x9")

    lab.web.before = sorry
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    assert report.added == 3
    assert "/x9" not in lab.web.paths


async def test_pages_of_the_same_text_are_one(lab: Lab) -> None:
    lab.web.page("/", "Home.", "/a", "/b")
    lab.web.page("/a", "The very same.", "/c", title="A")
    lab.web.page("/b", "The very same.", "/d", title="B")
    source = await lab.make(HERE, "site", SITE)
    assert (await lab.run(HERE, source)).added == 2
    assert len([path for path in lab.web.paths if path in ("/c", "/d")]) == 1


async def test_redirects_and_canonical_addresses(lab: Lab) -> None:
    lab.web.page("/", "Home.", "/old", "/loop", "/print", "/out", "/x", "/y")
    lab.web.put("/old", "", 301, location="/new")
    lab.web.page("/new", "New.", title="New")
    lab.web.put("/loop", "", 302, location="/loop2")
    lab.web.put("/loop2", "", 302, location="/loop")
    lab.web.put("/print", '<link rel="canonical" href="/article"><p>Printed.</p>')
    lab.web.page("/article", "An article.", title="Article")
    lab.web.put("/out", "", 302, location="https://elsewhere.example/")
    lab.web.put("/x", '<title>X</title><link rel="canonical" href="/y"><p>X.</p>')
    lab.web.put("/y", '<title>Y</title><link rel="canonical" href="/x"><p>Y.</p>')
    source = await lab.make(HERE, "site", SITE)
    report = await lab.run(HERE, source)
    names = set(await lab.texts(HERE))
    assert {"Home.", "New", "Article"} <= names
    assert len(names & {"X", "Y"}) == 1  # each says the other is the better one
    assert report.added == 4
    assert not any("elsewhere" in url for url, _ in lab.web.asked)


async def test_wrong_types_giants_and_refusals_are_told(lab: Lab) -> None:
    lab.web.page("/", "Home.", "/film", "/giant", "/login", "/no", "/bits", "/notes")
    lab.web.put("/film", b"\0\0\0\x18ftypmp42", content_type="video/mp4")
    lab.web.fail("/giant", Invalid("The answer is larger than 50 MB.", code="too_large"))
    lab.web.put("/login", "", 401)
    lab.web.put("/no", '<meta name="robots" content="noindex"><p>Not for you.</p>')
    lab.web.put("/bits", bytes(range(256)) * 10, content_type="application/octet-stream")
    lab.web.put("/notes", "Größe".encode("latin-1"), content_type="text/plain; charset=iso-8859-1")
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    items = await lab.items(HERE, source)
    assert items["/film"] == "skipped: It is video/mp4, which is no document."
    assert items["/giant"] == "failed: The answer is larger than 50 MB."
    assert "login" in items["/login"]
    assert items["/no"].startswith("skipped: The page asks not to be kept")
    assert items["/bits"].startswith("failed: This is not a document")
    assert (await lab.texts(HERE))["notes"] == "\ufeffGröße"


async def test_a_dead_site_is_left_after_a_while_and_loses_nothing(lab: Lab) -> None:
    lab.web.page("/", "Home.", *(f"/{number}" for number in range(40)))
    for number in range(40):
        lab.web.page(f"/{number}", f"Page {number}.")
    source = await lab.make(HERE, "site", SITE)
    await lab.run(HERE, source)
    for path in list(lab.web.pages):
        if path != f"{SITE}/":
            lab.web.fail(path, Unavailable("It is away."))
    asked = len(lab.web.asked)
    with pytest.raises(Unavailable, match="everything is kept"):
        await lab.run(HERE, source)
    assert len(lab.web.asked) - asked < 20
    assert len(await lab.texts(HERE)) == 41


async def test_a_killed_run_goes_on_where_it_stopped(lab: Lab) -> None:
    lab.web.page("/", "Home.", *(f"/{number}" for number in range(12)))
    for number in range(12):
        lab.web.page(f"/{number}", f"Page {number}.")
    source = await lab.make(HERE, "site", SITE)
    job_id = await lab.sources.run(HERE, source.id)
    attempts = 0
    while True:
        attempts += 1
        try:
            await lab.library.run(HERE, job_id, writes=6)
        except lab.library.died:
            assert attempts < 20
            continue
        break
    assert attempts > 2
    assert (await lab.sources.get(HERE, source.id)).report.added == 13
    assert all(lab.web.paths.count(f"/{number}") <= 2 for number in range(12))  # once more where it was cut off
    assert len(await lab.texts(HERE)) == 13


# -- single pages and sitemaps


async def test_one_page(lab: Lab) -> None:
    small(lab.web)
    lab.web.put("/start", "", 302, location="https://elsewhere.example/page")
    lab.web.page("https://elsewhere.example/page", "Elsewhere.", "/more", title="Elsewhere")
    source = await lab.make(HERE, "url", f"{SITE}/start")
    assert (await lab.run(HERE, source)).added == 1
    [document] = (await lab.library.knowledge.list(HERE))[0]
    assert (document.name, document.source_url) == ("Elsewhere", "https://elsewhere.example/page")


def sitemap(*entries: tuple[str, str], index: bool = False) -> bytes:
    root, each = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    places = "".join(f"<{each}><loc>{SITE}{path}</loc><lastmod>{date}</lastmod></{each}>" for path, date in entries)
    xmlns = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'<?xml version="1.0"?><{root} xmlns="{xmlns}">{places}</{root}>'.encode()


async def test_a_sitemap_of_sitemaps_compressed_and_dated(lab: Lab) -> None:
    small(lab.web)
    lab.web.page("/unlisted", "Not in the map.")
    lab.web.put("/sitemap.xml", sitemap(("/a.xml.gz", ""), ("/b.xml", ""), index=True))
    lab.web.put("/a.xml.gz", gzip.compress(sitemap(("/quay", "2024-01-01"))), content_type="application/gzip")
    lab.web.put("/b.xml", sitemap(("/tides", "2024-01-01"), ("/missing", "")))
    source = await lab.make(HERE, "site", f"{SITE}/sitemap.xml")
    report = await lab.run(HERE, source)
    assert set(await lab.texts(HERE)) == {"The quay", "Tides"}
    assert report.complete
    lab.web.asked.clear()
    lab.web.put("/b.xml", sitemap(("/tides", "2024-02-02")))
    await lab.run(HERE, source)
    assert "/quay" not in lab.web.paths
    assert "/tides" in lab.web.paths


@pytest.mark.parametrize(
    "broken", [b"<urlset><url><loc>/a</loc>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><urlset>&a;</urlset>"]
)
async def test_a_broken_sitemap_takes_nothing_out(lab: Lab, broken: bytes) -> None:
    small(lab.web)
    lab.web.put("/sitemap.xml", sitemap(("/quay", ""), ("/tides", "")))
    source = await lab.make(HERE, "site", f"{SITE}/sitemap.xml")
    await lab.run(HERE, source)
    lab.web.put("/sitemap.xml", broken)
    report = await lab.run(HERE, source)
    assert not report.complete
    assert len(await lab.texts(HERE)) == 2


@pytest.mark.parametrize("address", ["ftp://x.example/", "http://user:pw@x.example/", "x.example", "http:///"])
async def test_bad_addresses_are_refused(lab: Lab, address: str) -> None:
    with pytest.raises(Invalid):
        await lab.make(HERE, "site", address)


async def test_nobody_sees_anothers_sources(lab: Lab, scope: Scope, other: Scope) -> None:
    from terrace.errors import Missing

    small(lab.web)
    source = await lab.make(scope, "site", SITE)
    await lab.run(scope, source)
    assert (await lab.sources.list(other))[0] == []
    asks: list[Any] = [
        lab.sources.get(other, source.id), lab.sources.items(other, source.id), lab.sources.run(other, source.id),
        lab.sources.delete(other, source.id), lab.sources.update(other, source.id, name="x"),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(Missing):
            await ask
    assert (await lab.library.knowledge.list(other))[0] == []
