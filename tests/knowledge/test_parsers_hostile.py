"""Broken files and files meant to break us, through the real subprocess with small limits: a reason, always in time."""

import asyncio
import io
import re
import struct
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests import samples
from tests.samples import paragraph

from terrace.errors import Invalid
from terrace.jobs.processes import Processes
from terrace.knowledge.base import Parsed
from terrace.knowledge.parsers import FileParser
from terrace.settings import MB, Knowledge

SETTINGS = Knowledge(
    max_pages=300,
    max_text_chars=200_000,
    parse_timeout=20,
    parse_memory=512 * MB,
    max_file_bytes=32 * MB,
    chunk_tokens=100,
)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def processes() -> AsyncIterator[Processes]:
    """The same for all, as in a house: what is left of one file must do nothing to the next."""
    pool = Processes(limit=2)
    yield pool
    await pool.close()


@pytest.fixture
def parser(processes: Processes) -> FileParser:
    return FileParser(SETTINGS, processes)


@pytest.fixture
def parse(parser: FileParser, tmp_path: Path):  # type: ignore[no-untyped-def]
    async def made(name: str, data: bytes) -> Parsed:
        path = tmp_path / "upload"
        path.write_bytes(data)
        parsed, chunks = await parser.parse(path, name)
        for each in chunks:
            assert each.text == parsed.text[each.span.start : each.span.end]
        assert chunks
        return parsed

    return made


async def outcome(parse, name: str, data: bytes) -> str:  # type: ignore[no-untyped-def]
    """`read`, or the code of the refusal."""
    try:
        await parse(name, data)
    except Invalid as error:
        return error.code
    return "read"


async def refusal(parse, name: str, data: bytes) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(Invalid) as raised:
        await parse(name, data)
    assert raised.value.message[0].isupper()
    assert raised.value.message.endswith(".")
    return raised.value.code


async def test_every_kind_through_the_subprocess(parse) -> None:
    for name, data in samples.every_kind().items():
        assert (await parse(name, data)).text


async def test_progress_is_heard(parser: FileParser, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(samples.pdf([samples.page_of_lines(["Words."])] * 20))
    heard: list[tuple[float, float, str]] = []
    await parser.parse(path, "a.pdf", lambda *each: heard.append(each))
    assert heard[-1][:2] == (20, 20)


def zip_bomb(name: str, size: int) -> bytes:
    """An Office file one part of which unpacks to `size` bytes of blanks."""
    file = io.BytesIO(samples.docx(paragraph("x")) if name == "docx" else samples.xlsx({"a": [["x", "y"]]}))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("word/extra.xml", "w") as part:
        for _ in range(size // MB):
            part.write(b" " * MB)
    return file.getvalue()


@pytest.mark.parametrize("name", ["docx", "xlsx"])
async def test_a_zip_bomb_is_refused(parse, name: str) -> None:
    assert await refusal(parse, f"a.{name}", zip_bomb(name, 100 * MB)) == "document_too_large_unpacked"


async def test_a_zip_that_lies_about_its_size_gives_no_more_than_it_says(parse) -> None:
    """The directory says 100 bytes, the data unpacks to 60 MB."""
    data = bytearray(samples.archive({"[Content_Types].xml": "<x/>", "word/document.xml": b"<a>" + b" " * (60 * MB)}))
    at = data.rindex(b"word/document.xml") - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    assert await refusal(parse, "a.docx", bytes(data)) == "document_damaged"


async def test_a_zip_with_very_many_parts_is_refused(parse) -> None:
    members = {f"word/{number}": "" for number in range(25_000)} | {"[Content_Types].xml": "<x/>"}
    assert await refusal(parse, "a.docx", samples.archive(members)) == "document_too_large_unpacked"


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "ha ha ha ha ha ha ha ha ha ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)


async def test_billion_laughs_in_word(parse) -> None:
    data = samples.docx("<w:p><w:r><w:t>&i;</w:t></w:r></w:p>", prologue=LAUGHS)
    assert await refusal(parse, "a.docx", data) == "document_hostile"


@pytest.mark.parametrize(
    "part", ["xl/worksheets/sheet1.xml", "xl/sharedStrings.xml", "xl/workbook.xml", "xl/styles.xml"]
)
async def test_billion_laughs_in_excel(parse, part: str) -> None:
    with zipfile.ZipFile(io.BytesIO(samples.xlsx({"a": [["x", "y"]]}))) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    root = {"xl/worksheets/sheet1.xml": "worksheet", "xl/sharedStrings.xml": "sst"}.get(part, "workbook")
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    members[part] = f'<?xml version="1.0"?>{LAUGHS}<{root} xmlns="{space}"><si><t>&i;</t></si></{root}>'
    assert await refusal(parse, "a.xlsx", samples.archive(members)) == "document_hostile", "before its time is up"


async def test_entities_never_read_files(parse, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret words")
    prologue = f'<!DOCTYPE w [<!ENTITY leak SYSTEM "{secret.as_uri()}">]>'
    data = samples.docx(paragraph("Harmless.") + "<w:p><w:r><w:t>&leak;</w:t></w:r></w:p>", prologue=prologue)
    assert await refusal(parse, "a.docx", data) == "document_hostile"


async def test_ten_thousand_pages_are_refused_before_one_is_read(parser: FileParser, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(samples.pdf([[]] * 10_000))
    heard: list[tuple[float, float, str]] = []
    with pytest.raises(Invalid) as raised:
        await parser.parse(path, "a.pdf", lambda *each: heard.append(each))
    assert (raised.value.code, heard) == ("document_too_many_pages", [])


async def test_a_page_count_that_lies(parse) -> None:
    data = samples.pdf([samples.page_of_lines(["Some words."])]).replace(b"/Count 1", b"/Count 9")
    assert "Some words." in (await parse("a.pdf", data)).text


@pytest.mark.parametrize("name", samples.every_kind())
async def test_files_cut_short_are_read_in_part_or_refused(parse, name: str) -> None:
    data = samples.every_kind()[name]
    cuts = [max(1, int(len(data) * part)) for part in (0.02, 0.3, 0.5, 0.8, 0.97, 0.999)]
    outcomes = {await outcome(parse, name, data[:cut]) for cut in cuts}
    assert outcomes <= {"read", "document_damaged", "document_empty", "document_unsupported"}


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.xlsx", "a.pptx", "a.epub"])
async def test_files_with_flipped_bytes_are_read_or_refused(parse, name: str) -> None:
    original = samples.every_kind()[name]
    outcomes = set()
    for seed in range(12):
        data = bytearray(original)
        for step in range(1, 6):
            data[(seed * 7919 + step * 104_729) % len(data)] ^= 0xFF >> (seed % 3)
        outcomes.add(await outcome(parse, name, bytes(data)))
    assert all(each == "read" or each.startswith("document_") for each in outcomes), outcomes


@pytest.mark.parametrize("name", ["a.docx", "a.xlsx", "a.pptx", "a.epub"])
@pytest.mark.parametrize("field", [20, 24, 42], ids=["packed", "unpacked", "offset"])
async def test_an_archive_that_lies_about_its_members(parse, name: str, field: int) -> None:
    """Two gigabytes, it says, and no room is made for them."""
    data = samples.every_kind()[name]
    entries = [found.start() for found in re.finditer(b"PK\x01\x02", data)]
    outcomes = set()
    for entry in entries[:: len(entries) // 9 or 1]:  # some of very many: slides' layouts are like one another
        lying = bytearray(data)
        lying[entry + field + 3] ^= 0x7F
        outcomes.add(await outcome(parse, name, bytes(lying)))
    assert outcomes <= {"read", "document_damaged", "document_too_large_unpacked"}


async def test_wrong_names_are_seen_through(parse) -> None:
    files = samples.every_kind()
    for wrong, right in (
        ("a.pdf", "a.docx"),
        ("a.docx", "a.pdf"),
        ("a.txt", "a.html"),
        ("../../etc/passwd\0", "a.epub"),
    ):
        mislabelled, proper = await parse(wrong, files[right]), await parse(right, files[right])
        assert mislabelled.media_type == proper.media_type


async def test_passwords(parse) -> None:
    assert await refusal(parse, "a.pdf", samples.encrypted_pdf()) == "document_encrypted"
    assert await refusal(parse, "a.epub", samples.epub([("One", "<p>x</p>")], encrypted=True)) == "document_encrypted"
    office = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9000) + "EncryptedPackage".encode("utf-16-le") + bytes(500)
    assert await refusal(parse, "a.docx", office) == "document_encrypted"


async def test_nothing_zeros_and_images(parse) -> None:
    assert await refusal(parse, "a.txt", b"") == "document_empty"
    assert await refusal(parse, "a.txt", bytes(5000)) == "document_unsupported"
    assert await refusal(parse, "a.pdf", samples.pdf([[], []])) == "document_empty"
    assert (await parse("a.txt", b"a few\0 words, then more of them")).text == "a few words, then more of them"


async def test_html_nested_without_end(parse) -> None:
    assert await refusal(parse, "a.html", b"<!doctype html>" + b"<div>" * 100_000 + b"deep") == "document_too_complex"
    lists = await parse("a.html", b"<!doctype html>" + b"<ul><li>" * 900 + b"deep")
    assert lists.text.endswith("- deep")


async def test_markup_that_takes_too_long_is_stopped(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"<!doctype html><body>" + b"<p>" * 400_000 + b"<i><b>x" * 2_000)
    hurried = FileParser(SETTINGS.model_copy(update={"parse_timeout": 0.01, "max_text_chars": 20_000_000}), processes)
    with pytest.raises(Invalid) as raised:
        await hurried.parse(path, "a.html")
    assert raised.value.code == "parse_timeout"


async def test_too_much_text_is_refused(parse) -> None:
    assert await refusal(parse, "a.txt", b"one endless line " * 100_000) == "document_too_long"
    assert await refusal(parse, "a.csv", b"a,b\n" * 100_000) == "document_too_long"
    assert await refusal(parse, "a.md", b"x" * 900_000) == "document_too_long"
    rows = [["x" * 500, "y" * 500]] * 250
    assert await refusal(parse, "a.xlsx", samples.xlsx({"a": rows})) == "document_too_long"
    assert await refusal(parse, "a.docx", samples.docx(paragraph("word " * 60_000))) == "document_too_long"


async def test_one_line_as_long_as_allowed_is_read(parse) -> None:
    parsed = await parse("a.txt", b"x" * 199_000)
    assert len(parsed.text) == 199_000


async def test_quotes_that_do_not_balance(parse) -> None:
    parsed = await parse("a.csv", b'a,b\n"x,1\n' + b"y,2\n" * 9_000)
    assert parsed.text.count("b: 2") > 8000 or parsed.text.count("y,2") > 8000


async def test_a_sheet_with_a_cell_in_the_last_corner(parse) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active["A1"], book.active["XFD1048576"] = "first", "last"  # type: ignore[index]
    file = io.BytesIO()
    book.save(file)
    parsed = await parse("a.xlsx", file.getvalue())
    assert "first" in parsed.text
    assert "last" in parsed.text


async def test_too_little_memory_says_so(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(samples.docx(paragraph("word") * 400_000))
    tight = FileParser(SETTINGS.model_copy(update={"parse_memory": 160 * MB, "max_text_chars": 20_000_000}), processes)
    with pytest.raises(Invalid) as raised:
        await tight.parse(path, "a.docx")
    assert raised.value.code == "parse_memory"


async def test_the_next_file_is_read_after_a_cancelled_one(parser: FileParser, parse, tmp_path: Path) -> None:
    path = tmp_path / "slow"
    path.write_bytes(samples.pdf([samples.page_of_lines(samples.prose(40).split(". "))] * 290))
    began = asyncio.Event()
    task = asyncio.create_task(parser.parse(path, "a.pdf", lambda *each: began.set()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await parse("a.txt", b"next")).text == "next"


async def test_pages_come_from_the_subprocess(parser: FileParser, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(samples.every_kind()["a.pdf"])
    parsed, _ = await parser.parse(path, "a.pdf")
    start = parsed.text.index("sea")
    marks = await parser.page_marks(path, parsed.pages[1], start, start + 3)
    assert len(marks.boxes) == 1
    assert marks.boxes[0].x1 <= 1
    assert (await parser.page_image(path, parsed.pages[1], start, start + 3)).startswith(b"\x89PNG")
