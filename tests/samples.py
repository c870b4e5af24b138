"""Makers of small real files of every type Terrace reads, written from their formats' own rules."""

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from xml.sax.saxutils import escape

Text = tuple[float, float, float, str]  # x, y (points, from the lower left), size, text

WML = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"

_PHRASE = "the river carries small stones from high mountains down to a quiet sea where ships wait for better weather"
WORDS = _PHRASE.split()


def prose(sentences: int, seed: int = 0) -> str:
    """Plain sentences, the same for the same seed."""
    made = []
    for number in range(sentences):
        start = (seed * 7 + number * 3) % len(WORDS)
        words = [WORDS[(start + at) % len(WORDS)] for at in range(8 + (seed + number) % 7)]
        made.append(" ".join(words).capitalize() + ".")
    return " ".join(made)


def page_of_lines(
    lines: Sequence[str], *, size: float = 11, x: float = 72, top: float = 720, leading: float = 14
) -> list[Text]:
    return [(x, top - at * leading, size, line) for at, line in enumerate(lines)]


def pdf(
    pages: Sequence[Sequence[Text]],
    *,
    title: str = "",
    size: tuple[float, float] = (612, 792),
    extra: str = "",
    compress: bool = False,
    to_unicode: str = "",
) -> bytes:
    """A PDF with text set in Helvetica. `extra` goes into each page's dictionary, such as `/Rotate 90`; `to_unicode`
    is a character map that says which text the letters stand for."""
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding%s>>"
    objects: list[bytes] = [b"", b"", font % (b"/ToUnicode 4 0 R" if to_unicode else b"")]
    if to_unicode:
        objects.append(b"<</Length %d>>stream\n%s\nendstream" % (len(to_unicode), to_unicode.encode()))
    kids = []
    for page in pages:
        content = b"".join(
            b"BT /F1 %g Tf %g %g Td (%s) Tj ET\n" % (s, x, y, _pdf_string(text)) for x, y, s, text in page
        )
        how = b"/Filter/FlateDecode" if compress else b""
        content = zlib.compress(content) if compress else content
        objects.append(b"<<%s/Length %d>>stream\n%s\nendstream" % (how, len(content), content))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %g %g]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R%s>>"
            % (*size, len(objects), extra.encode())
        )
        kids.append(b"%d 0 R" % len(objects))
    objects[0] = b"<</Type/Catalog/Pages 2 0 R>>"
    objects[1] = b"<</Type/Pages/Kids[%s]/Count %d>>" % (b" ".join(kids), len(kids))
    objects.append(b"<</Title(%s)>>" % _pdf_string(title))
    return _pdf_file(objects, b"/Root 1 0 R/Info %d 0 R" % len(objects))


def encrypted_pdf() -> bytes:
    """A PDF whose standard security handler wants a password."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[]/Count 0>>"]
    objects.append(b"<</Filter/Standard/V 1/R 2/O<%s>/U<%s>/P -44>>" % (b"41" * 32, b"42" * 32))
    return _pdf_file(objects, b"/Root 1 0 R/Encrypt 3 0 R/ID[<31><31>]")


def _pdf_string(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", rb"\\").replace(b"(", rb"\(").replace(b")", rb"\)")


def _pdf_file(objects: Sequence[bytes], trailer: bytes) -> bytes:
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return bytes(out + b"trailer<</Size %d%s>>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start))


def archive(members: dict[str, str | bytes], *, first: Iterable[str] = ()) -> bytes:
    """A zip file; members in `first` are stored, in front."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in first:
            made.writestr(name, members[name], zipfile.ZIP_STORED)
        for name in members.keys() - set(first):
            made.writestr(name, members[name])
    return file.getvalue()


def paragraph(text: str, style: str = "", number: bool = False) -> str:
    properties = (f'<w:pStyle w:val="{style}"/>' if style else "") + (
        '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>' if number else ""
    )
    return f"<w:p><w:pPr>{properties}</w:pPr><w:r><w:t>{escape(text)}</w:t></w:r></w:p>"


def word_table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in cells) + "</w:tbl>"


def docx(body: str, *, prologue: str = "", footnotes: str = "", title: str = "") -> bytes:
    """A Word document with this body (of `paragraph`, `word_table`); styles Heading1, Heading2 and Title exist."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name.lower()}"/></w:style>'
        for name in ("Heading 1", "Heading 2", "Title")
    )
    head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    return archive(
        {
            "[Content_Types].xml": f'{head}<Types xmlns="{PACKAGE}/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            '<Default Extension="xml" ContentType="application/xml"/></Types>',
            "_rels/.rels": _relations(("rId1", f"{OFFICE}/officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": _relations(
                ("rId1", f"{OFFICE}/styles", "styles.xml"), ("rId2", f"{OFFICE}/footnotes", "footnotes.xml")
            ),
            "word/styles.xml": f'{head}<w:styles xmlns:w="{WML}">{styles}</w:styles>',
            "word/footnotes.xml": f'{head}<w:footnotes xmlns:w="{WML}">{footnotes}</w:footnotes>',
            "word/document.xml": f'{head}{prologue}<w:document xmlns:w="{WML}"><w:body>{body}</w:body></w:document>',
            "docProps/core.xml": f'{head}<cp:coreProperties xmlns:cp="{PACKAGE}/metadata/core-properties" '
            f'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{escape(title)}</dc:title></cp:coreProperties>',
        }
    )


def _relations(*relations: tuple[str, str, str]) -> str:
    each = "".join(f'<Relationship Id="{a}" Type="{b}" Target="{c}"/>' for a, b, c in relations)
    return f'<Relationships xmlns="{PACKAGE}/relationships">{each}</Relationships>'


def pptx(slides: Sequence[tuple[str, Sequence[str], str]]) -> bytes:
    """A presentation, by python-pptx; of each slide its title, its points and its notes."""
    from pptx import Presentation

    deck = Presentation()
    for title, points, notes in slides:
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = "\n".join(points)
        if notes:
            slide.notes_slide.notes_text_frame.text = notes
    file = io.BytesIO()
    deck.save(file)
    return file.getvalue()


def xlsx(sheets: dict[str, Sequence[Sequence[object]]]) -> bytes:
    """A workbook, by openpyxl, the same bytes whenever it is made."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)  # type: ignore[arg-type]
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    file = io.BytesIO()
    book.save(file)
    return _undated(file.getvalue())


def _undated(archive: bytes) -> bytes:
    """Without the times a library wrote down: a test must not meet other bytes at another hour."""
    dated = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            content = dated.sub(b"2026-01-01T00:00:00Z", old.read(member))
            new.writestr(zipfile.ZipInfo(member.filename), content, zipfile.ZIP_DEFLATED)
    return file.getvalue()


def epub(chapters: Sequence[tuple[str, str]], *, title: str = "A book", encrypted: bool = False) -> bytes:
    """A book; of each chapter its heading and its body as XHTML."""
    items = "".join(
        f'<item id="c{n}" href="text/c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in range(len(chapters)))
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>',
        "OEBPS/book.opf": '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>{escape(title)}</dc:title><dc:creator>Ada</dc:creator></metadata>"
        f"<manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    for number, (heading, body) in enumerate(chapters):
        members[f"OEBPS/text/c {number}.xhtml"] = (
            '<?xml version="1.0" encoding="utf-8"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml">'
            f'<head><title/></head><body><a id="top"/><h1>{escape(heading)}</h1>{body}</body></html>'
        )
    if encrypted:
        members["META-INF/encryption.xml"] = (
            '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData><e:CipherData>'
            '<e:CipherReference URI="OEBPS/text/c%200.xhtml"/></e:CipherData></e:EncryptedData></encryption>'
        )
    return archive(members, first=["mimetype"])


def eml(subject: str, body: str, *, html: str = "", attachment: str = "", forwarded: bytes = b"") -> bytes:
    message = EmailMessage()
    message["From"] = "Ada Lovelace <ada@example.com>"
    message["To"] = "Charles <charles@example.com>"
    message["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    message["Subject"] = subject
    if body:
        message.set_content(body)
    if html:
        (message.add_alternative if body else message.set_content)(html, subtype="html")
    if attachment:
        message.add_attachment(b"123", maintype="application", subtype="octet-stream", filename=attachment)
    if forwarded:
        from email import message_from_bytes, policy

        message.add_attachment(message_from_bytes(forwarded, policy=policy.default))
    return message.as_bytes()


HTML = b"""<!doctype html><html><head><title>Rivers &amp; seas</title><style>p{}</style></head><body>
<nav><a href="/">Menu entry</a></nav><main><h1>Rivers</h1><p>A river carries
<b>stones</b>.</p><ul><li>Rhine<li>Danube</ul><table><tr><th>Name<th>Length</tr><tr><td>Rhine<td>1230 km</tr></table>
<pre>x = 1
  y = 2</pre><p hidden>Unseen</p></main><script>alert(1)</script><footer>Imprint</footer></body></html>"""

MARKDOWN = b"""---
title: Notes on rivers
---
# Rivers

A *river* carries stones.

```python
# not a heading
x = 1
```

## Lengths

| name | km |
|---|---|
| Rhine | 1230 |

- one
- two
"""

CSV = b'name;born;note\nAda;1815;"wrote; the first program"\nCharles;1791;built engines\n'

TEXT = b"""CHAPTER ONE

The river carries stones. It is
long and quiet.

1.1 Beginnings

Everything has a source.
"""


def every_kind() -> dict[str, bytes]:
    """A small file of each type, by file name."""
    return {
        "a.pdf": pdf(
            [page_of_lines(["The river carries stones."]), page_of_lines(["The sea is quiet."])], title="Rivers"
        ),
        "a.docx": docx(paragraph("Rivers", "Heading1") + paragraph("The river carries stones.")),
        "a.pptx": pptx([("Rivers", ["They carry stones", "They are long"], "Speak slowly")]),
        "a.xlsx": xlsx({"Rivers": [["name", "km"], ["Rhine", 1230], ["Danube", 2850.5]]}),
        "a.epub": epub([("One", "<p>The river carries stones.</p>"), ("Two", "<p>The sea is quiet.</p>")]),
        "a.html": HTML,
        "a.md": MARKDOWN,
        "a.csv": CSV,
        "a.tsv": CSV.replace(b";", b"\t"),
        "a.eml": eml("Rivers", "The river carries stones.", attachment="map.png"),
        "a.txt": TEXT,
    }
