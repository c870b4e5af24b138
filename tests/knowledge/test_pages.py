"""The marks on a page are where the words are: checked against pdfium's own words there, and against pixels."""

import io
import random
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image
from tests import samples
from tests.samples import prose

from terrace.errors import Invalid, Missing
from terrace.knowledge.base import Page, Parsed, Span
from terrace.knowledge.pages import MAX_PIXELS, PageMarks, page_image, page_marks
from terrace.knowledge.parsers.base import ParseLimits, normalise
from terrace.knowledge.parsers.child import parse_file

LINES = [
    "The river carries small stones from high moun-",
    "tains to the sea, where ships wait  for better",
    "weather. A well-known caf\u00e9 costs \u20ac5 (or \u00bd of it).",
]


def made(tmp_path: Path, data: bytes) -> tuple[Path, Parsed]:
    path = tmp_path / "a.pdf"
    path.write_bytes(data)
    return path, parse_file(path, "a.pdf", ParseLimits(), lambda done, total, note="": None)


def words_in(path: Path, number: int, marks: PageMarks) -> str:
    """What pdfium reads inside the boxes."""
    document = pypdfium2.PdfDocument(path)
    page = document[number - 1]
    left, bottom, right, top = page.get_bbox()
    found = []
    for x0, y0, x1, y1 in marks.boxes:
        text = page.get_textpage().get_text_bounded(
            left + x0 * (right - left), top - y1 * (top - bottom), left + x1 * (right - left), top - y0 * (top - bottom)
        )
        found.append(text)
    document.close()
    return "".join("".join(found).split())


def expected(text: str) -> str:
    return "".join(text.split())


@pytest.fixture(params=["", "/CropBox[50 100 600 780]"], ids=["plain", "cropped"])
def document(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Parsed]:
    pages = [
        [
            (72, 760, 9, "Running header"),
            *samples.page_of_lines(LINES, top=700),
            *samples.page_of_lines(prose(9, n).split(". "), top=600),
            (300, 110, 9, f"{n}"),
        ]
        for n in range(1, 6)
    ]
    return made(tmp_path, samples.pdf(pages, extra=request.param))


def test_random_spans_are_marked_where_their_words_are(document: tuple[Path, Parsed]) -> None:
    path, parsed = document
    choose = random.Random(7)
    assert "mountains to the sea" in parsed.text
    assert parsed.text.count("Running header") == 1
    for _ in range(60):
        page = choose.choice(parsed.pages)
        start = choose.randrange(page.span.start, page.span.end - 40)
        end = start + choose.randrange(5, 40)
        text = parsed.text[start:end]
        marks = page_marks(path, page, start, end)
        # "\u00bd" is one sign on the page and three in the text
        got = normalise(words_in(path, page.number, marks)).replace("-", "").replace("\ufffe", "")
        want = expected(text).replace("-", "")
        assert want in got, (text, got)
        assert len(got) <= len(want) + 4, (text, got)


def test_one_box_a_line_in_reading_order(document: tuple[Path, Parsed]) -> None:
    path, parsed = document
    start = parsed.text.index("stones from")
    marks = page_marks(path, parsed.pages[0], start, parsed.text.index("where ships"))
    assert len(marks.boxes) == 2
    first, second = marks.boxes
    assert first.y1 <= second.y0 + 0.01
    assert all(0 <= value <= 1 for box in marks.boxes for value in box)
    assert first.x1 > second.x1 * 0.8


def test_a_span_across_pages_is_marked_on_each(document: tuple[Path, Parsed]) -> None:
    path, parsed = document
    one, two = parsed.pages[:2]
    span = (one.span.end - 10, two.span.start + 10)
    assert page_marks(path, one, *span).boxes
    assert page_marks(path, two, *span).boxes
    assert page_marks(path, parsed.pages[3], *span).boxes == ()


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_turned_page_is_marked_as_it_is_shown(tmp_path: Path, turn: int) -> None:
    path, parsed = made(tmp_path, samples.pdf([samples.page_of_lines(LINES)], extra=f"/Rotate {turn}"))
    start = parsed.text.index("ships")
    plain = image(page_image(path, parsed.pages[0], 0, 0, 800))
    marked = image(page_image(path, parsed.pages[0], start, start + 5, 800))
    box = page_marks(path, parsed.pages[0], start, start + 5).boxes[0]
    area = (
        int(box.x0 * plain.width),
        int(box.y0 * plain.height),
        int(box.x1 * plain.width),
        int(box.y1 * plain.height),
    )
    assert min(plain.crop(area).convert("L").tobytes()) < 100  # there is ink where the mark is
    assert (255, 233, 90) in set(pixels(marked.crop(area)))


def image(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def pixels(shown: Image.Image) -> list[tuple[int, ...]]:
    data = shown.tobytes()
    return list(zip(data[::3], data[1::3], data[2::3], strict=True))


def test_an_image_is_marked_there_and_nowhere_else(document: tuple[Path, Parsed]) -> None:
    path, parsed = document
    page = parsed.pages[1]
    start = parsed.text.index("small stones", page.span.start)
    plain = image(page_image(path, page, 0, 0, 900))
    marked = image(page_image(path, page, start, start + 12, 900))
    assert plain.size == marked.size
    assert plain.width == 900
    yellow = [at for at, (a, b) in enumerate(zip(pixels(plain), pixels(marked), strict=True)) if a != b]
    (box,) = page_marks(path, page, start, start + 12).boxes
    xs, ys = [at % 900 for at in yellow], [at // 900 for at in yellow]
    assert min(xs) == pytest.approx(box.x0 * 900, abs=3)
    assert max(xs) == pytest.approx(box.x1 * 900, abs=3)
    assert min(ys) == pytest.approx(box.y0 * plain.height, abs=3)
    assert max(ys) == pytest.approx(box.y1 * plain.height, abs=3)


@pytest.mark.parametrize("size", [(14_400, 14_400), (200_000, 20_000), (3, 14_000), (1, 1)])
@pytest.mark.parametrize("width", [-5, 800, 10**9])
def test_images_of_any_page_have_bounded_pixels(tmp_path: Path, size: tuple[float, float], width: int) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(samples.pdf([[(0, 0, 10, "x")]], size=size))
    shown = image(page_image(path, Page(1, Span(0, 1)), 0, 0, width))
    assert shown.width * shown.height <= MAX_PIXELS * 1.1


def test_wrong_pages_and_other_files_are_refused(document: tuple[Path, Parsed]) -> None:
    path, parsed = document
    with pytest.raises(Missing):
        page_marks(path, Page(99, Span(0, 10)), 0, 5)
    with pytest.raises(Invalid) as raised:
        page_marks(path, Page(1, Span(0, parsed.pages[0].span.end + 7)), 0, 5)
    assert raised.value.code == "document_outdated"


WIDE = """/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def
1 begincodespacerange <00> <FF> endcodespacerange
2 beginbfchar <41> <D835DC65> <42> <FB01> endbfchar endcmap end end"""


def test_signs_beyond_16_bits_and_ligatures_do_not_shift_marks(tmp_path: Path) -> None:
    path, parsed = made(tmp_path, samples.pdf([[(72, 700, 12, "AAABABA then words AB")]], to_unicode=WIDE))
    assert parsed.text == "xxxfixfix then words xfi" or "words" not in parsed.text
    start = parsed.text.index("xfi", 9)
    (box,) = page_marks(path, parsed.pages[0], start, start + 3).boxes
    (whole,) = page_marks(path, parsed.pages[0], 0, len(parsed.text)).boxes
    assert box.x1 == pytest.approx(whole.x1, abs=0.002)
    assert box.x0 > 0.75 * whole.x1
