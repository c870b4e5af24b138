"""What a file is, told by its content whatever it is called."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import samples

from terrace.errors import Invalid
from terrace.knowledge import archives, media

TYPES = {
    "pdf": media.PDF,
    "docx": media.DOCX,
    "pptx": media.PPTX,
    "xlsx": media.XLSX,
    "epub": media.EPUB,
    "html": media.HTML,
    "md": media.MARKDOWN,
    "csv": media.CSV,
    "tsv": media.TSV,
    "eml": media.EML,
    "txt": media.TEXT,
}
BY_CONTENT = ("pdf", "docx", "pptx", "xlsx", "epub", "html", "eml")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name[2:]: data for name, data in samples.every_kind().items()}


def detect(folder: Path, data: bytes, name: str) -> str:
    path = folder / "upload"
    path.write_bytes(data)
    return media.detect(path, name)


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_recognised(tmp_path: Path, files: dict[str, bytes], kind: str) -> None:
    assert detect(tmp_path, files[kind], f"a.{kind}") == TYPES[kind]


@pytest.mark.parametrize("kind", BY_CONTENT)
@pytest.mark.parametrize("wrong", ["a.txt", "a.pdf", "a.docx", "a", "../../a.csv\0.exe", "a.\u202efdp.exe"])
def test_a_wrong_name_changes_nothing(tmp_path: Path, files: dict[str, bytes], kind: str, wrong: str) -> None:
    assert detect(tmp_path, files[kind], wrong) == TYPES[kind]


def test_plain_text_with_any_other_name_is_text(tmp_path: Path) -> None:
    for name in ("a.pdf", "a.docx", "a.py", "a.eml", "README", ""):
        assert detect(tmp_path, b"Just a few words: nothing more.\n", name) == media.TEXT


REFUSED = {
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
    "webp": b"RIFF\0\0\0\0WEBPVP8 ",
    "elf": b"\x7fELF\x02\x01\x01" + bytes(range(32)) * 50,
    "gzip": b"\x1f\x8b\x08\0" + bytes(50),
    "rtf": rb"{\rtf1\ansi hello}",
    "doc": media._OLE + b"\0" * 600 + "WordDocument".encode("utf-16-le"),
    "odt": samples.archive({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<x/>"}),
    "zip": samples.archive({"a.txt": "hello"}),
    "random": bytes((at * 7919 + at // 3) % 256 for at in range(5000)),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_document_is_refused_with_what_is_accepted(tmp_path: Path, kind: str) -> None:
    with pytest.raises(Invalid) as raised:
        detect(tmp_path, REFUSED[kind], "a.pdf")
    assert (raised.value.code, raised.value.status) == ("document_unsupported", 415)
    assert "PDF, DOCX" in raised.value.message


def test_encrypted_office_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as raised:
        detect(tmp_path, media._OLE + b"\0" * 100_000 + "EncryptedPackage".encode("utf-16-le"), "a.docx")
    assert raised.value.code == "document_encrypted"


def test_nothing_is_empty_and_a_cut_zip_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as raised:
        detect(tmp_path, b"", "a.txt")
    assert raised.value.code == "document_empty"
    with pytest.raises(Invalid) as raised:
        detect(tmp_path, samples.docx(samples.paragraph("x"))[:300], "a.docx")
    assert raised.value.code == "document_damaged"


PHRASE = "Grüße aus Москва, 東京 — “naïve” €5"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_decoded_whatever_its_form(encoding: str) -> None:
    text = PHRASE + " and a long Latin text that follows it for a while, as most texts have."
    if encoding.endswith("e"):  # without a mark: told by the zeros of Latin text
        text = "Only Latin. " * 9
    assert media.decode(text.encode(encoding)) == text


def test_western_bytes_and_slightly_broken_utf8() -> None:
    assert media.decode("Café “noir” costs €5".encode("cp1252")) == "Café “noir” costs €5"
    broken = ("Grüße über Österreich äöü " * 20).encode() + b"\xff"
    assert media.decode(broken) == "Grüße über Österreich äöü " * 20 + "\ufffd"


def test_a_character_cut_at_the_end_of_the_first_bytes_does_not_matter() -> None:
    data = ("ü" * media.HEAD).encode()[: media.HEAD + 1]
    assert media.decode(data[: media.HEAD - 1], partial=True) == "ü" * (media.HEAD // 2 - 1)


def test_a_declared_encoding_counts_for_markup() -> None:
    source = '<meta charset="windows-1251"><p>Москва'
    assert media.decode_markup(source.encode("cp1251")) == source
    assert media.decode_markup(b"<meta charset=nonsense><p>x") == "<meta charset=nonsense><p>x"


@given(st.binary(max_size=400), st.sampled_from(["a.txt", "a.md", "a.csv", "a.pdf", "a.eml"]))
def test_any_bytes_have_a_type_or_a_reason(data: bytes, name: str) -> None:
    try:
        found = media.sniff(data, name)
    except Invalid as error:
        found = error.code
    assert found in (*media.MEDIA_TYPES, media.ZIP, "document_empty", "document_unsupported", "document_encrypted")
    assert isinstance(media.decode(data), str)


def test_a_zip_whose_first_member_is_a_pdf_is_a_zip() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("report.pdf", samples.every_kind()["a.pdf"])
    assert media.sniff(packed.getvalue(), "all.zip") == media.ZIP


def test_a_text_that_mentions_the_pdf_header_is_a_text() -> None:
    assert media.sniff(b"Every PDF begins with %PDF-1.7 or so.", "notes.txt") == media.TEXT


def test_a_pdf_may_begin_a_little_late() -> None:
    assert media.sniff(b"\n\n" + samples.every_kind()["a.pdf"], "report.pdf") == media.PDF


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_whose_packed_bytes_are_broken_is_damaged(tmp_path: Path, method: int) -> None:
    data = broken_member("mimetype", method)
    with pytest.raises(Invalid) as raised:
        detect(tmp_path, data, "book.epub")
    assert raised.value.code == "document_damaged"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_broken_member_of_a_batch_is_told_and_stops_no_other(tmp_path: Path, method: int) -> None:
    packed = tmp_path / "all.zip"
    packed.write_bytes(broken_member("bad.txt", method, ("good.txt", b"Words that can be read.")))
    bad, good = archives.unpack(str(packed), str(tmp_path), archives.Bounds(10, 10**6, 10**7))
    assert (bad.name, bad.file, bad.code) == ("bad.txt", None, "document_damaged")
    assert (tmp_path / str(good.file)).read_bytes() == b"Words that can be read."


def broken_member(name: str, method: int, *others: tuple[str, bytes]) -> bytes:
    """A zip whose directory is sound and whose first member's packed bytes are not."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        archive.writestr(name, b"application/epub+zip " * 40)
        for other, content in others:
            archive.writestr(other, content)
        first = archive.getinfo(name)
    data = bytearray(packed.getvalue())
    begin = 30 + len(name) + (14 if method == zipfile.ZIP_LZMA else 0)  # its properties stay, its stream does not
    end = 30 + len(name) + first.compress_size
    data[begin:end] = bytes([0xFF]) * (end - begin)
    return bytes(data)
