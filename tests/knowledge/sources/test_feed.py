"""Feeds: each entry once, with what it says or what it links to."""

import pytest
from tests.knowledge.sources.conftest import SITE, Lab

from terrace.errors import Invalid, Unavailable
from terrace.types import Scope

HERE = Scope()
LONG = "The harbour is closed on Sunday. " * 30


def rss(*entries: tuple[str, str]) -> str:
    items = "".join(
        f"<item><title>Entry {link}</title><link>{SITE}{link}</link><description>{text}</description></item>"
        for link, text in entries
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>News</title>{items}</channel></rss>'


async def test_entries_are_documents_and_short_ones_bring_their_page(lab: Lab) -> None:
    lab.web.put("/feed", rss(("/1", LONG), ("/2", "Read more.")), content_type="application/rss+xml", etag='"1"')
    lab.web.page("/2", "The whole story of the second.", title="Second")
    source = await lab.make(HERE, "feed", f"{SITE}/feed")
    assert (await lab.run(HERE, source)).added == 2
    texts = await lab.texts(HERE)
    assert set(texts) == {"Entry /1", "Second"}
    assert "closed on Sunday" in texts["Entry /1"]
    assert "/1" not in lab.web.paths
    links = {each.source_url for each in (await lab.library.knowledge.list(HERE))[0]}
    assert links == {f"{SITE}/1", f"{SITE}/2"}
    report = await lab.run(HERE, source)
    assert (report.unchanged, report.notes) == (2, ("The feed has not changed.",))


async def test_what_leaves_the_feed_stays_and_what_changed_is_changed(lab: Lab) -> None:
    lab.web.put("/feed", rss(("/1", LONG), ("/2", LONG + "Two.")), content_type="application/rss+xml")
    source = await lab.make(HERE, "feed", f"{SITE}/feed")
    await lab.run(HERE, source)
    lab.web.put("/feed", rss(("/2", LONG + "Two, mended."), ("/3", LONG + "Three.")), content_type="text/xml")
    report = await lab.run(HERE, source)
    assert (report.added, report.changed, report.removed) == (1, 1, 0)
    assert set(await lab.texts(HERE)) == {"Entry /1", "Entry /2", "Entry /3"}


async def test_a_feed_that_is_none_or_away_loses_nothing(lab: Lab) -> None:
    lab.web.put("/feed", rss(("/1", LONG)))
    source = await lab.make(HERE, "feed", f"{SITE}/feed")
    await lab.run(HERE, source)
    for status, body, error in ((200, "<p>Not a feed.</p>", Invalid), (503, "", Unavailable), (404, "", Invalid)):
        lab.web.put("/feed", body, status)
        with pytest.raises(error):
            await lab.run(HERE, source)
        assert len(await lab.texts(HERE)) == 1


async def test_a_feed_that_names_a_file_of_this_machine_reads_none(lab: Lab) -> None:
    lab.web.put("/feed", "/etc/passwd", content_type="application/rss+xml")
    source = await lab.make(HERE, "feed", f"{SITE}/feed")
    with pytest.raises(Invalid, match="no feed"):
        await lab.run(HERE, source)
