"""Pages and pictures as a model is shown them, and what broken ones come to. In this process: nothing here is hostile
but to the libraries."""

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import samples
from tests.analysis.sheets import COLOURS, as_bytes, numbered, pdf, pdf_page, picture, see

from terrace.analysis import media, pictures
from terrace.analysis.base import Drawn, Survey
from terrace.analysis.drawing import draw
from terrace.analysis.survey import survey
from terrace.errors import Invalid
from terrace.knowledge.parsers.base import ParseLimits

LIMITS = ParseLimits()


def look(path: Path, data: bytes, name: str = "", max_pixels: int = 4_000_000, most: int = 50) -> list[Drawn]:
    """All there is to see in a file."""
    path.write_bytes(data)
    kind = media.tell(path, name)
    if kind == media.ZIP:
        from terrace.knowledge.archives import media_type

        kind = media_type(str(path), name)
    found = survey(path, name, kind, most, LIMITS)
    wanted = [(number, part.source) for number, part in enumerate(found.parts, 1) if part.kind != "text"]
    return draw(path, kind, wanted, 200, max_pixels, True, LIMITS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("colour", ["red", "blue", "white"])
def test_pictures_of_each_kind_are_seen(file: Path, format: str, colour: str) -> None:
    more = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    [drawn] = look(file, as_bytes(picture(7, colour), format, **more))
    seen = see(drawn.image)
    assert (seen.bars, seen.colour, seen.width, seen.height) == (7, colour, 600, 300)
    assert drawn.media_type == f"image/{seen.format.lower()}"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr"])
def test_every_mode_becomes_grey_or_colour(file: Path, mode: str) -> None:
    image = picture(3, "white")
    if mode in ("I;16", "I", "F"):
        image = image.convert("L").convert("I").point(lambda value: value * 257).convert(mode)
    else:
        image = image.convert(mode)
    [drawn] = look(file, as_bytes(image, "TIFF"))
    assert (see(drawn.image).bars, see(drawn.image).colour) == (3, "white")


def test_what_a_camera_turned_is_turned_back(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    lying = picture(4, "green").transpose(Image.Transpose.ROTATE_90)
    [drawn] = look(file, as_bytes(lying, "JPEG", exif=exif, quality=95))
    seen = see(drawn.image)
    assert (seen.width, seen.height, seen.bars, seen.colour) == (600, 300, 4, "green")


def test_of_a_moving_picture_the_first_frame_and_of_a_fax_each_page(file: Path) -> None:
    frames = [picture(number, "red") for number in (1, 2, 3)]
    [first] = look(file, as_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert see(first.image).bars == 1
    pages = look(file, as_bytes(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert [see(each.image).bars for each in pages] == [1, 2, 3]


def test_transparent_is_white(file: Path) -> None:
    image = picture(2, "white").convert("RGBA")
    image.putalpha(image.convert("L").point(lambda value: 0 if value > 128 else 255))
    [drawn] = look(file, as_bytes(image, "PNG"))
    assert see(drawn.image).colour == "white"


def test_what_is_too_large_is_made_smaller_and_a_bomb_refused_unopened(file: Path) -> None:
    [drawn] = look(file, as_bytes(picture(5, "blue", (3000, 2000)), "JPEG"), max_pixels=250_000)
    assert see(drawn.image).bars == 5
    assert 240_000 < drawn.width * drawn.height <= 250_000
    for width, height in ((9000, 9000), (30_000, 30_000)):
        bomb = as_bytes(Image.new("1", (width, height)), "PNG")
        assert len(bomb) < 500_000
        with pytest.raises(Invalid, match="pixels"):
            look(file, bomb)


def test_pages_keep_their_colour_size_and_number(file: Path) -> None:
    drawn = look(file, numbered(8, list(COLOURS)))
    assert [see(each.image).bars for each in drawn] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [see(each.image).colour for each in drawn] == list(COLOURS) * 2
    assert {(each.width, each.height) for each in drawn} == {(1653, 2339)}


def test_a_grey_page_is_drawn_in_greys_and_read_beside(file: Path) -> None:
    [drawn] = look(file, pdf([(pdf_page(2, text="Plain words"), (595, 842))]))
    assert Image.open(io.BytesIO(drawn.image)).mode == "P"
    assert drawn.media_type == "image/png"
    assert drawn.text == "Plain words"


@pytest.mark.parametrize("size", [(20_000.0, 20_000.0), (14_400.0, 3.0), (1.0, 1.0), (0.1, 5000.0)])
def test_pages_of_any_size_are_drawn_within_bounds(file: Path, size: tuple[float, float]) -> None:
    [drawn] = look(file, pdf([(pdf_page(1, "red", size=size), size)]), max_pixels=1_000_000)
    assert 0 < drawn.width * drawn.height <= 1_000_000
    assert ("small print" in drawn.note) == (size[0] == size[1] == 20_000)


def test_pictures_in_a_word_file_are_looked_at_once_and_its_drawings_told(tmp_path: Path) -> None:
    parts = {
        "word/media/a.png": as_bytes(picture(6, "green"), "PNG"),
        "word/media/dot.png": as_bytes(picture(0, "red", (16, 16)), "PNG"),
        "word/media/b.emf": b"drawing",
    }
    found, drawn = office(tmp_path / "file", parts)
    assert [part.label for part in found.parts] == ["Text", "Picture 1"]
    assert found.parts[0].text == "Words above."
    assert "1 drawing was left out (EMF, WMF or SVG)" in found.warnings[0]
    assert (see(drawn[0].image).bars, see(drawn[0].image).colour) == (6, "green")


def office(path: Path, parts: dict[str, bytes]) -> tuple[Survey, list[Drawn]]:
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/image"
    relations = "".join(
        f'<Relationship Id="p{number}{again}" Type="{kind}" Target="{name.removeprefix("word/")}"/>'
        for number, name in enumerate(parts)
        for again in (0, 1)
    )
    path.write_bytes(samples.docx(samples.paragraph("Words above.")))
    space = "http://schemas.openxmlformats.org/package/2006/relationships"
    with zipfile.ZipFile(path) as source:
        kept = {name: source.read(name) for name in source.namelist()}
    kept["word/_rels/document.xml.rels"] = f'<Relationships xmlns="{space}">{relations}</Relationships>'.encode()
    path.write_bytes(samples.archive({**kept, **parts}))
    found = survey(path, "a.docx", media.DOCX, 50, LIMITS)
    wanted = [(number, part.source) for number, part in enumerate(found.parts, 1) if part.kind != "text"]
    return found, draw(path, media.DOCX, wanted, 200, 4_000_000, False, LIMITS)


def test_long_text_is_cut_where_it_pauses(file: Path) -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "Words and words. " * 40 for number in range(60))
    file.write_bytes(text.encode())
    parts = survey(file, "a.txt", media.tell(file, "a.txt"), 50, LIMITS).parts
    assert len(parts) > 3
    assert all(part.text.startswith("Paragraph") and len(part.text) <= 8000 for part in parts)
    assert "".join("".join(part.text.split()) for part in parts) == "".join(text.split())


@st.composite
def broken(draw_: Any, whole: bytes) -> bytes:
    """A file with some bytes changed, taken out or cut off."""
    data = bytearray(whole)
    for _ in range(draw_(st.integers(1, 12))):
        place = draw_(st.integers(0, max(0, len(data) - 1)))
        match draw_(st.sampled_from(("change", "cut", "remove", "repeat"))):
            case "change" if data:
                data[place] = draw_(st.integers(0, 255))
            case "cut":
                data = data[: max(1, place)]
            case "remove":
                del data[place : place + draw_(st.integers(1, 60))]
            case _:
                data[place:place] = data[place : place + 40]
    return bytes(data)


WHOLE = [
    *(as_bytes(picture(3, "red", (90, 60)), each) for each in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")),
    as_bytes(picture(3, "white", (90, 60), "L"), "TIFF", compression="tiff_lzw"),
    numbered(2, ("white", "red"), "Words"),
]


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@example(data=b"%PDF-1.4\n")
@example(data=b"\x89PNG\r\n\x1a\n")
@given(data=st.sampled_from(WHOLE).flatmap(broken))
def test_whatever_is_broken_is_told_or_seen(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Each comes to pictures within bounds, or to a sentence; never to an exception of a library's."""
    path = tmp_path_factory.getbasetemp() / "broken"
    found: list[Drawn] = []
    with suppress(Invalid):
        found = look(path, data, max_pixels=100_000)
    for each in found:
        assert each.error or see(each.image).width * see(each.image).height <= 100_000


def test_frames_of_a_loop_are_not_counted_for_ever(file: Path) -> None:
    pages = [picture(1, "red", (40, 40))] * 4
    file.write_bytes(as_bytes(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert pictures.frames(str(file), 2) == 3
