"""What a file is, told by its content. Its name decides only between kinds of text; what the sender claims, nothing.

Standard library only: the server may call `sniff` on the first bytes of an upload.
"""

import re
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePath

from terrace.errors import Invalid

PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB = "application/epub+zip"
HTML = "text/html"
MARKDOWN = "text/markdown"
CSV = "text/csv"
TSV = "text/tab-separated-values"
EML = "message/rfc822"
TEXT = "text/plain"
ZIP = "application/zip"  # an archive we don't recognise; `detect` refuses it

MEDIA_TYPES = (PDF, DOCX, PPTX, XLSX, EPUB, HTML, MARKDOWN, CSV, TSV, EML, TEXT)
ACCEPTED = "Accepted are PDF, DOCX, PPTX, XLSX, EPUB, HTML, Markdown, CSV, EML and plain text."

_LATE_PDF = re.compile(rb"%PDF-\d\.\d")  # readers take a PDF that begins within the first kilobyte
# What the zip module lets through on a cut, damaged or encrypted archive, or one packed by a method it doesn't know
# (a kind of RuntimeError): its own error, its decompressors', and what reading wild offsets and sizes leads to.
BROKEN_ZIP: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)
with suppress(ImportError):  # a Python built without lzma can't open such a member to begin with
    from lzma import LZMAError

    BROKEN_ZIP += (LZMAError,)

HEAD = 65_536  # bytes that are looked at

_BY_NAME = {
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), MARKDOWN),
    **dict.fromkeys((".html", ".htm", ".xhtml"), HTML),
    ".csv": CSV,
    **dict.fromkeys((".tsv", ".tab"), TSV),
    **dict.fromkeys((".eml", ".mht", ".mhtml"), EML),
}
_IMAGES = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\x00", b"MM\x00*", b"BM")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # the container of old Office files and of encrypted new ones
_ENCRYPTED_PACKAGE = "EncryptedPackage".encode("utf-16-le")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HTML_START = re.compile(r"\s*(<!--.*?-->\s*)*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+html|html)\b", re.I | re.S)
_HTML_TAG = re.compile(r"<(head|body|div|p|table|h[1-6]|article|section|meta|ul)\b[^>]*>", re.I)
_HEADER = re.compile(r"^([A-Za-z][A-Za-z0-9-]{1,60}):[ \t]", re.M)
_MAIL_HEADERS = frozenset(
    [
        *("from", "to", "cc", "subject", "date", "received", "reply-to", "message-id", "mime-version"),
        *("return-path", "delivered-to", "content-type"),
    ]
)
_META_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.I
)


def sniff(head: bytes, name: str = "") -> str:
    """The media type of a file that begins with `head`; ZIP when only its directory can tell which archive it is.

    Raises Invalid: `document_empty`, `document_encrypted`, or `document_unsupported` (415) with what is accepted.
    """
    if not head:
        raise Invalid("This file is empty (0 bytes).", code="document_empty")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return ZIP
    if head.startswith(b"%PDF-") or (_LATE_PDF.search(head[:1024]) and b" obj" in head):
        return PDF
    _refuse_binaries(head)
    return _kind_of_text(decode(head[:HEAD], partial=len(head) >= HEAD), PurePath(name).suffix.lower())


def detect(path: Path, name: str = "") -> str:
    """The media type of a stored file, one of MEDIA_TYPES. Raises Invalid as `sniff` does, `document_damaged` too."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(_OLE):
            _refuse_old_office(head + file.read(4 * 1024**2))
    kind = sniff(head, name or path.name)
    return _kind_of_archive(path) if kind == ZIP else kind


def decode(data: bytes, *, partial: bool = False) -> str:
    """Text of any encoding: by its mark, as UTF-8 (a few broken bytes allowed), UTF-16 by its zeros, else Windows-1252.

    `partial` says that `data` may end within a character.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    if b"\0" in data[:4096] and (guess := _utf16(data)) is not None:
        return data.decode(guess, "replace")
    tail = 4 if partial else 0
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if tail and error.start >= len(data) - tail:
            return data[: error.start].decode("utf-8")
    text = data.decode("utf-8", "replace")
    multibyte = sum(1 for character in text[:HEAD] if "\x80" <= character != "\ufffd")
    if multibyte > 4 * text.count("\ufffd", 0, HEAD):
        return text
    return data.decode("cp1252", "replace")


def decode_markup(data: bytes) -> str:
    """As `decode`, but an encoding that HTML or XML declares is tried first."""
    declared = _META_CHARSET.search(data[:4096])
    if declared and not data.startswith(tuple(mark for mark, _ in _MARKS)):
        try:
            return data.decode(declared.group(1).decode("ascii"))
        except (LookupError, UnicodeError, ValueError):
            return decode(data)
    return decode(data)


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\x00\x00\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def _utf16(data: bytes) -> str | None:
    """UTF-16 without a mark: mostly-Latin text has a zero in every other byte."""
    sample = data[:4096]
    pairs = len(sample) // 2
    if pairs < 2:
        return None
    if sample[1::2].count(0) > 0.4 * pairs and sample[0::2].count(0) < 0.05 * pairs:
        return "utf-16-le"
    if sample[0::2].count(0) > 0.4 * pairs and sample[1::2].count(0) < 0.05 * pairs:
        return "utf-16-be"
    return None


def _refuse_binaries(head: bytes) -> None:
    if head.startswith(_OLE):
        _refuse_old_office(head)
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or head[4:8] == b"ftyp":
        raise _unsupported("This is an image or a video, and reading text from pictures needs OCR.")
    if head.startswith(b"{\\rtf"):
        raise _unsupported("This is a Rich Text file; save it as .docx or .pdf.")
    if head.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")):
        raise _unsupported("This is a compressed archive; unpack it and upload the files in it.")
    if head.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")) or _utf16(head) is not None:
        return
    sample = head[:8192].decode("latin-1")
    if len(_CONTROL.findall(sample)) > 0.1 * len(sample):
        raise _unsupported("This is not a document but binary data.")


def _refuse_old_office(head: bytes) -> None:
    if _ENCRYPTED_PACKAGE in head:
        raise Invalid(
            "This Office file is protected by a password. Open it, remove the password, save it and upload it again.",
            code="document_encrypted",
        )
    raise _unsupported(
        "This is an old Office format (.doc, .xls, .ppt or .msg); save it as .docx, .xlsx, .pptx or .pdf."
    )


def _unsupported(why: str) -> Invalid:
    return Invalid(f"{why} {ACCEPTED}", code="document_unsupported", status=415)


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            mimetype = b""
            if "mimetype" in names:
                with archive.open("mimetype") as file:
                    mimetype = file.read(100).strip()
    except BROKEN_ZIP as error:
        raise Invalid(
            "This file is cut off or damaged: its directory (it is a zip inside) can't be read. Upload it again.",
            code="document_damaged",
        ) from error
    if mimetype == b"application/epub+zip" or "META-INF/container.xml" in names:
        return EPUB
    if mimetype.startswith(b"application/vnd.oasis.opendocument"):
        raise _unsupported("This is an OpenDocument file; save it as .docx, .xlsx, .pptx or .pdf.")
    folders = {name.partition("/")[0].lower() for name in names if "/" in name}
    if any(name.lower() == "[content_types].xml" for name in names):
        for folder, kind in (("word", DOCX), ("ppt", PPTX), ("xl", XLSX)):
            if folder in folders:
                return kind
    raise _unsupported("This is a zip archive; upload the files in it, or the archive as a batch.")


def _kind_of_text(head: str, suffix: str) -> str:
    if _HTML_START.match(head):
        return HTML
    if _looks_like_mail(head, 1 if suffix == ".eml" else 3):
        return EML
    named = _BY_NAME.get(suffix)
    if named == EML:  # without headers of a mail it isn't one
        return TEXT
    if named is not None:
        return named
    if head.lstrip()[:1] == "<" and len(_HTML_TAG.findall(head[:4096])) >= 3:
        return HTML
    return TEXT


def _looks_like_mail(head: str, wanted: int) -> bool:
    top = head.lstrip("\r\n").replace("\r\n", "\n").partition("\n\n")[0]
    first = top.partition("\n")[0]
    if not (_HEADER.match(first) or first.startswith("From ")):
        return False
    return len({name.lower() for name in _HEADER.findall(top)} & _MAIL_HEADERS) >= wanted
