"""One file after another, to its end: which way it goes, what is told, what failed and is not hidden."""

import json
from typing import Any

import pytest
from tests import samples
from tests.analysis.conftest import Room
from tests.analysis.seer import Asked, answered
from tests.analysis.sheets import as_bytes, numbered, pdf, pdf_page, picture, scanned

from terrace import settings
from terrace.errors import Invalid, Unavailable
from terrace.types import Scope

SCHEMA = {"type": "object", "properties": {"bars": {"type": "integer"}}, "required": ["bars"]}


async def test_many_pages_go_in_groups_and_are_put_together(room: Room) -> None:
    def says(asked: Asked) -> str:
        bars = [each.bars for each in asked.pictures]
        return answered({"bars": sum(bars)}, f"Bars {bars}" if bars else "All of it.")(asked)  # type: ignore[return-value]

    room.models.says = says
    done = await room.analyse("long.pdf", numbered(10), schema=SCHEMA)
    assert done.state == "succeeded", done.error
    assert done.result is not None
    assert sorted(len(asked.pictures) for asked in room.models.asked) == [0, 2, 8]
    last = room.models.asked[-1].text
    assert "Bars [1, 2, 3, 4, 5, 6, 7, 8]" in last
    assert "Bars [9, 10]" in last
    assert (done.result["markdown"], done.result["fields"]) == ("All of it.", {"bars": 0})
    assert [page["note"].partition(" ")[0] for page in done.result["pages"]] == [str(n) for n in range(1, 11)]
    assert done.usage == {"calls": 3, "input_tokens": 30, "output_tokens": 15}


async def test_a_small_context_makes_small_groups_and_several_rounds(room: Room) -> None:
    room.models.context = 4096
    room.models.says = lambda asked: answered(markdown="word " * 800 if asked.pictures else "shorter " * 20)(asked)
    done = await room.analyse("long.pdf", numbered(9))
    assert done.state == "succeeded", done.error
    assert max(len(asked.pictures) for asked in room.models.asked) == 3
    assert sum("Put it together" in asked.text for asked in room.models.asked) > 1


async def test_one_page_that_spoils_the_call_is_told_and_the_others_answered(room: Room) -> None:
    def says(asked: Asked) -> Any:
        if any(each.bars == 2 for each in asked.pictures):
            return Invalid("This picture is against the rules.", code="upstream_refused")
        return answered()(asked)

    room.models.says = says
    done = await room.analyse("three.pdf", numbered(3))
    assert done.state == "succeeded"
    assert done.result is not None
    assert [page["error"] for page in done.result["pages"]] == [None, "This picture is against the rules.", None]
    assert done.result["warnings"] == [
        "1 of 3 pages could not be looked at (Page 2): This picture is against the rules."
    ]


async def test_when_every_page_fails_the_analysis_fails_with_the_reason(room: Room) -> None:
    room.models.says = lambda asked: Invalid("This model takes no pictures.", code="upstream_refused")
    done = await room.analyse("two.pdf", numbered(2), webhook="https://hooks.example.org/x")
    assert (done.state, done.error and done.error["message"]) == ("failed", "This model takes no pictures.")
    assert [type for type, _ in room.told.events] == ["analysis.failed"]
    assert room.told.sent == [("https://hooks.example.org/x", "analysis.failed")]
    room.models.says = answered()
    again = await room.analyses.retry(room.scope, done.id)
    await room.jobs.wait(room.scope, again.job_id or "", 60)
    assert (await room.analyses.get(room.scope, done.id)).state == "succeeded"
    assert room.told.sent[-1] == ("https://hooks.example.org/x", "analysis.succeeded")


async def test_a_model_that_is_away_is_asked_three_times_and_no_answer_twice(room: Room) -> None:
    tries: dict[int, int] = {}

    def says(asked: Asked) -> Any:
        first = asked.numbers[0] if asked.pictures else 0
        tries[first] = tries.get(first, 0) + 1
        return Unavailable("Away.", code="upstream_broke") if first == 9 else answered()(asked)

    room.models.says = says
    done = await room.analyse("long.pdf", numbered(17))
    assert done.state == "succeeded"
    assert done.result is not None
    failed = [page["number"] for page in done.result["pages"] if page["error"]]
    assert tries[1] == tries[17] == 1
    assert (failed[0], tries[9]) == (9, 6)  # with its group, then by itself
    assert failed == [9]


async def test_a_server_that_knows_no_response_format_is_asked_without(room: Room) -> None:
    def says(asked: Asked) -> Any:
        if "response_format" in asked.body:
            return Invalid("response_format is not supported", code="upstream_refused")
        return answered({"bars": 1})(asked)

    room.models.says = says
    done = await room.analyse("a.png", as_bytes(picture(), "PNG"), schema=SCHEMA)
    assert done.result is not None
    assert done.result["fields"] == {"bars": 1}


async def test_without_eyes_a_page_is_read_by_its_text(room: Room) -> None:
    room.models.blind = True
    file = pdf([(pdf_page(1, text="Four weeks of notice."), (595, 842))])
    done = await room.analyse("contract.pdf", file)
    assert (done.state, done.way, done.model) == ("succeeded", "text", "lab/seer")
    assert "No model that reads images is connected" in done.why
    [asked] = room.models.asked
    assert not asked.pictures
    assert "Four weeks of notice." in asked.text
    assert (await room.analyses.page_image(room.scope, done.id, 1))[1] == "image/png"


@pytest.mark.parametrize("options", [settings.Analysis(ocr="tesseract"), settings.Analysis(ocr="rapidocr")])
async def test_without_eyes_a_picture_is_read_by_ocr(room: Room, options: settings.Analysis) -> None:
    room.models.blind = True
    done = await room.analyse("scan.png", as_bytes(scanned("Seven lighthouses"), "PNG"))
    assert (done.state, done.way) == ("succeeded", "ocr"), done.error
    assert done.why.endswith(f"The pictures were read by {options.ocr}.")
    assert "Seven lighthouses" in room.models.asked[0].text


class TestNoReader:
    @pytest.fixture
    def options(self) -> settings.Analysis:
        return settings.Analysis(ocr="none")

    async def test_a_picture_nobody_can_read_says_what_to_do(self, room: Room) -> None:
        room.models.blind = True
        done = await room.analyse("scan.png", as_bytes(picture(), "PNG"))
        assert done.state == "failed"
        assert done.error is not None
        assert done.error["code"] == "nothing_readable"
        assert "apt-get install tesseract-ocr" in done.error["message"]


async def test_the_quote_model_quotes(room: Room) -> None:
    room.models.alone = True
    room.models.says = lambda asked: "Four weeks. [1]"
    done = await room.analyse("a.txt", b"The notice period is four weeks.", prompt="Notice?", schema=SCHEMA)
    assert (done.way, done.model) == ("quote", "quote")
    assert done.result is not None
    assert done.result["markdown"] == "Four weeks. [1]\n\n---\n\nThe notice period is four weeks."
    assert done.result["fields"] is None
    assert done.result["warnings"] == ["The fields are left out: filling them needs a model."]
    assert room.models.passages[0][0].text == "The notice period is four weeks."


async def test_office_files_go_with_their_text_and_pictures(room: Room) -> None:
    slides = samples.pptx([("Harbour", ["Deep water"], ""), ("Tides", ["Twice a day"], "")])
    done = await room.analyse("talk.pptx", slides)
    assert (done.state, done.way) == ("succeeded", "text"), done.error
    assert done.result is not None
    assert [page["label"] for page in done.result["pages"]] == ["Slide 1", "Slide 2"]
    assert "Twice a day" in room.models.asked[0].text


class TestBounds:
    @pytest.fixture
    def options(self) -> settings.Analysis:
        return settings.Analysis(max_pages=3, max_pixels=500_000)

    async def test_more_pages_than_are_looked_at_are_told(self, room: Room) -> None:
        done = await room.analyse("3000.pdf", numbered(3000))
        assert (done.state, done.pages) == ("succeeded", 3)
        assert done.result is not None
        assert "This file has 3,000 pages; the first 3 were looked at." in done.result["warnings"][0]
        assert all(seen.width * seen.height <= 500_000 for seen in room.models.asked[0].pictures)

    async def test_a_giant_page_is_drawn_small_and_says_so(self, room: Room) -> None:
        size = (20_000.0, 20_000.0)
        done = await room.analyse("plan.pdf", pdf([(pdf_page(4, "blue", size=size), size)]))
        assert done.result is not None
        [seen] = room.models.asked[0].pictures
        assert (seen.bars, seen.colour) == (4, "blue")
        assert seen.width * seen.height <= 500_000
        assert "20,000 x 20,000 points" in done.result["pages"][0]["note"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (samples.encrypted_pdf(), "document_encrypted"),
        (pdf([]), "document_damaged"),
        (numbered(1)[:120], "document_damaged"),
        (as_bytes(picture(), "PNG")[:60], "nothing_readable"),
    ],
    ids=["encrypted", "no pages", "cut off", "half a picture"],
)
async def test_what_cannot_be_opened_fails_with_a_sentence(room: Room, data: bytes, code: str) -> None:
    done = await room.analyse("a.pdf", data)
    assert (done.state, (done.error or {}).get("code")) == ("failed", code), done
    assert not room.models.asked


async def test_it_is_nobody_elses(room: Room, other: Scope) -> None:
    done = await room.analyse("a.png", as_bytes(picture(), "PNG"))
    for scope in (other, Scope(room.scope.tenant, "usr_eve"), Scope(room.scope.tenant)):
        with pytest.raises(Exception, match="No such analysis"):
            await room.analyses.get(scope, done.id)
        assert (await room.analyses.list(scope))[0] == []


@pytest.mark.both
async def test_deleting_stops_it_and_leaves_nothing(room: Room) -> None:
    started = await room.start("long.pdf", numbered(40))
    await room.analyses.delete(room.scope, started.id)
    job = await room.jobs.wait(room.scope, started.job_id or "", 60)
    assert job.state in ("cancelled", "failed")
    assert [each.key async for each in room.blobs.list()] == []
    assert room.told.events == []


async def test_it_becomes_a_document_named_after_the_file(room: Room) -> None:
    room.models.says = lambda asked: json.dumps({"markdown": "Ten years at sea.", "pages": []})
    done = await room.analyse("Ada's CV.png", as_bytes(picture(), "PNG"))
    name, data, more = await room.analyses.to_document(room.scope, done.id, collection="people", tags=["cv"])  # type: ignore[misc]
    assert (name, data) == ("Ada's CV.md", b"# Ada's CV\n\nTen years at sea.\n")
    assert more == {"collection": "people", "tags": ["cv"]}
