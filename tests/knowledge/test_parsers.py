"""What each format's parser makes of a file: text in reading order, blocks, pages, exact spans."""

import zipfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import samples
from tests.samples import paragraph, prose, word_table

from terrace.errors import Invalid
from terrace.knowledge.base import Parsed
from terrace.knowledge.chunking import chunk
from terrace.knowledge.parsers.base import Draft, ParseLimits, normalise
from terrace.knowledge.parsers.child import parse_file
from terrace.knowledge.parsers.html import read

LIMITS = ParseLimits()


def quiet(done: float, total: float, note: str = "") -> None: ...


@pytest.fixture
def parse(tmp_path: Path):  # type: ignore[no-untyped-def]
    def made(name: str, data: bytes | str, limits: ParseLimits = LIMITS) -> Parsed:
        path = tmp_path / "upload"
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        parsed = parse_file(path, name, limits, quiet)
        check(parsed)
        return parsed

    return made


def check(parsed: Parsed) -> None:
    """What holds of any parsed file."""
    assert parsed.text == normalise(parsed.text)
    spans = [block.span for block in parsed.blocks]
    assert all(0 <= span.start < span.end <= len(parsed.text) for span in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert [page.number for page in parsed.pages] == list(range(1, len(parsed.pages) + 1))
    for before, after in pairwise(parsed.pages):
        assert before.span.start <= before.span.end <= after.span.start
    for each in chunk(parsed, 60):
        assert each.text == parsed.text[each.span.start : each.span.end]


def blocks(parsed: Parsed) -> list[tuple[str, str]]:
    return [(block.kind, parsed.text[block.span.start : block.span.end]) for block in parsed.blocks]


def pages(parsed: Parsed) -> list[str]:
    return [parsed.text[page.span.start : page.span.end] for page in parsed.pages]


def test_permalinks_beside_headings_are_not_read(parse) -> None:
    page = '<h2 id="a">Open<a class="headerlink" href="#a">&para;</a></h2><p>A ¶ is a <a href="#p">pilcrow</a>.</p>'
    assert blocks(parse("a.html", page)) == [("heading", "Open"), ("paragraph", "A ¶ is a pilcrow.")]


@pytest.mark.parametrize(("name", "block"), [("a.txt", "ab c\n\n"), ("a.md", "# a\n"), ("a.html", "<p>ab c")])
def test_more_blocks_than_a_document_has_are_refused(parse, name: str, block: str) -> None:
    limits = ParseLimits(max_blocks=100)
    assert len(parse(name, block * 100, limits).blocks) == 100
    with pytest.raises(Invalid, match="more than 100 paragraphs") as refused:
        parse(name, block * 101, limits)
    assert refused.value.code == "document_too_complex"


def test_a_page_of_countless_elements_is_refused_before_they_are_built(parse) -> None:
    with pytest.raises(Invalid, match="elements") as refused:
        parse("a.html", "<p>a" * 3_000_000)
    assert refused.value.code == "document_too_complex"


@pytest.mark.parametrize("name", samples.every_kind())
def test_every_kind_gives_its_words(parse, name: str) -> None:
    parsed = parse(name, samples.every_kind()[name])
    assert any(word in parsed.text for word in ("river", "River", "Ada", "Everything"))
    assert parsed.warnings == ()


# PDF


def test_pdf_lines_of_a_paragraph_are_joined_and_paragraphs_kept_apart(parse) -> None:
    lines = ["The river carries small stones from the high", "mountains down to the quiet sea, and it is long."]
    more = ["Another paragraph follows after a wider gap and", "goes on for a second line as well."]
    page = samples.page_of_lines(lines) + samples.page_of_lines(more, top=660)
    assert blocks(parse("a.pdf", samples.pdf([page]))) == [
        ("paragraph", " ".join(lines)),
        ("paragraph", " ".join(more)),
    ]


def test_pdf_words_cut_at_the_end_of_a_line_are_whole_again(parse) -> None:
    lines = [
        "The mountain is famous for its exam-",
        "ples of old stones, a well-",
        "known and well-known fact of moun-",
        "tain life.",
    ]
    text = parse("a.pdf", samples.pdf([samples.page_of_lines(lines)])).text
    assert (
        text
        == "The mountain is famous for its examples of old stones, a well-known and well-known fact of mountain life."
    )


def test_pdf_headings_are_the_taller_lines(parse) -> None:
    page = [
        (72, 740, 20, "Rivers"),
        (72, 712, 14, "The Rhine"),
        *samples.page_of_lines([prose(1), prose(1, 3)], top=690),
    ]
    page += [(72, 640, 14, "The Danube"), *samples.page_of_lines([prose(1, 4), prose(1, 5)], top=620)]
    parsed = parse("a.pdf", samples.pdf([page]))
    headings = [
        (block.level, text)
        for block, (kind, text) in zip(parsed.blocks, blocks(parsed), strict=True)
        if kind == "heading"
    ]
    assert headings == [(1, "Rivers"), (2, "The Rhine"), (2, "The Danube")]
    assert chunk(parsed, 220)[1].headings == ("Rivers", "The Danube")


def test_pdf_running_headers_and_page_numbers_are_left_out(parse) -> None:
    made = [
        [
            (72, 760, 9, "Annual report 2026"),
            *samples.page_of_lines(prose(6, n).split(". "), top=700),
            (300, 40, 9, f"Page {n} of 6"),
        ]
        for n in range(1, 7)
    ]
    parsed = parse("a.pdf", samples.pdf(made))
    assert parsed.text.count("Annual report") == parsed.text.count("Page ") == 1  # on the first page
    assert len(parsed.pages) == 6
    assert all(pages(parsed))


def test_pdf_what_two_pages_only_share_stays(parse) -> None:
    made = [[(72, 760, 9, "Annual report"), *samples.page_of_lines(prose(6, n).split(". "), top=700)] for n in range(2)]
    assert parse("a.pdf", samples.pdf(made)).text.count("Annual report") == 2


def test_pdf_pages_without_text_are_told(parse) -> None:
    parsed = parse("a.pdf", samples.pdf([samples.page_of_lines(["Some words."]), [], []]))
    assert parsed.warnings == (
        "2 pages hold only images or nothing. Reading them needs OCR: run the file through an OCR program first.",
    )
    assert pages(parsed) == ["Some words.", "", ""]


def test_pdf_of_images_only_is_refused_with_what_to_do(parse) -> None:
    with pytest.raises(Invalid, match=r"only images.*OCR") as raised:
        parse("a.pdf", samples.pdf([[], []]))
    assert raised.value.code == "document_empty"


# Word


def test_docx_keeps_the_order_of_paragraphs_lists_and_tables(parse) -> None:
    body = (
        paragraph("On rivers", "Title") + paragraph("Rhine", "Heading1") + paragraph("It is long.")
        + word_table([["Name", "km"], ["Rhine", "1230"]])
        + paragraph("one", number=True) + paragraph("two", number=True)
        + paragraph("Danube", "Heading2") + f"<w:sdt><w:sdtContent>{paragraph('In a control.')}</w:sdtContent></w:sdt>"
        + "<w:p><w:r><w:t>kept</w:t></w:r><w:del><w:r><w:delText> deleted</w:delText></w:r></w:del>"
        + '<w:r><w:br/><w:t>next</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    )  # fmt: skip
    notes = f'<w:footnote w:id="2">{paragraph("See the map.")}</w:footnote>'
    parsed = parse("a.docx", samples.docx(body, footnotes=notes, title="Rivers of Europe"))
    assert parsed.title == "Rivers of Europe"
    assert blocks(parsed) == [
        ("heading", "On rivers"), ("heading", "Rhine"), ("paragraph", "It is long."),
        ("table", "Name | km\nRhine | 1230"), ("list", "- one\n- two"),
        ("heading", "Danube"), ("paragraph", "In a control."), ("paragraph", "kept\nnext"),
        ("paragraph", "Note: See the map."),
    ]  # fmt: skip
    assert [block.level for block in parsed.blocks if block.kind == "heading"] == [1, 1, 2]


def test_docx_written_by_another_library(parse, tmp_path: Path) -> None:
    from docx import Document

    document = Document()
    document.add_heading("Rivers", 1)
    document.add_paragraph("They carry stones.")
    document.add_paragraph("one", style="List Bullet")
    document.add_table(rows=1, cols=2).rows[0].cells[1].text = "cell"
    document.save(str(tmp_path / "made.docx"))
    parsed = parse("a.docx", (tmp_path / "made.docx").read_bytes())
    assert blocks(parsed) == [
        ("heading", "Rivers"), ("paragraph", "They carry stones."), ("list", "- one"), ("paragraph", "cell"),
    ]  # fmt: skip


# The others


def test_pptx_slides_are_pages_with_title_first_and_notes(parse) -> None:
    slides = [("Rivers", ["long", "old"], "Speak slowly"), ("Seas", ["wide"], "")]
    parsed = parse("a.pptx", samples.pptx(slides))
    assert pages(parsed) == ["Rivers\n\n- long\n- old\n\nNotes: Speak slowly", "Seas\n\nwide"]


def test_xlsx_rows_stand_alone_and_sheets_are_pages(parse) -> None:
    from datetime import date

    sheets = {
        "People": [["name", "born"], ["Ada", date(1815, 12, 10)], [], ["Charles", 1791.5]],
        "Empty": [],
        "Bare": [[1, 2]],
    }
    assert pages(parse("a.xlsx", samples.xlsx(sheets))) == [
        "People\n\nname: Ada; born: 1815-12-10\nname: Charles; born: 1791.5", "Empty", "Bare\n\n1 | 2",
    ]  # fmt: skip


def test_csv_of_any_dialect_gives_rows_that_stand_alone(parse) -> None:
    want = "name: Ada; born: 1815\nname: Charles; born: 1791"
    for mark in ",;\t|":
        rows = f'name{mark}born\r\nAda{mark}1815\r\n"Charles"{mark}1791\r\n'
        assert parse("a.csv", "\ufeff" + rows).text == want
        assert parse("a.csv", rows.encode("utf-16")).text == want
    assert parse("a.csv", "1,2\n3,4\n").text == "1 | 2\n3 | 4"


def test_csv_quotes_that_do_not_balance_lose_no_row(parse) -> None:
    rows = "".join(f"row {at},value {at}\n" for at in range(20_000))
    parsed = parse("a.csv", 'name,note\nfirst,"never closed\n' + rows)
    assert "name: row 19999; note: value 19999" in parsed.text


def test_html_main_content_only(parse) -> None:
    parsed = parse("a.html", samples.HTML)
    assert parsed.title == "Rivers & seas"
    assert blocks(parsed) == [
        ("heading", "Rivers"), ("paragraph", "A river carries stones."), ("list", "- Rhine\n- Danube"),
        ("table", "Name | Length\nRhine | 1230 km"), ("code", "x = 1\n  y = 2"),
    ]  # fmt: skip


HTML_CASES = {
    "loose text around blocks": ("a<p>b</p>c<div>d<br>e</div>", ["a", "b", "c", "d\ne"]),
    "nested lists": ("<ul><li>a<ul><li>b</ul><li><p>c<p>d</ul>", ["- a\n  - b\n- c d"]),
    "layout tables": (
        "<table><tr><td><h1>a</h1><p>b</p></td><td><table><tr><td>c<td>d</table></td></table>",
        ["a", "b", "c | d"],
    ),
    "entities": ("<p>a &lt;b&gt; &amp; &#8364;&nbsp;5", ["a <b> & € 5"]),
    "our marks in the text": ("<p>a&#x1e;table&#0031;b\x1eul\x1fc</p>", ["atablebulc"]),
    "references that begin like them": ("<p>&#310;&#x1ea0;</p>", ["ĶẠ"]),
    "no body": ("", []),
    "a list in a cell": ("<table><tr><td>a<ul><li>b<li>c</ul><td>d</table>", ["a b c | d"]),
    "a heading in a list": ("<ul><li><h2>a</h2>b</ul>", ["a", "- b"]),
    "text only in the footer": ("<footer>a</footer>", []),
    "definition lists": ("<dl><dt>a<dd>b</dl>", ["a", "b"]),
}


@pytest.mark.parametrize("case", HTML_CASES)
def test_html_structure(case: str) -> None:
    source, want = HTML_CASES[case]
    assert [piece.text for piece in read(source)[1]] == want


TAGS = "<p> </p> <ul> <li> </li> </ul> <table> <tr> <td> </table> <pre> </pre> <h1> </h1> <br> <div> </div>"


@given(st.lists(st.sampled_from([*TAGS.split(), "word", " ", "\n", "\x1e"])))
@settings(max_examples=200, deadline=None)
def test_html_of_any_nesting_keeps_its_words(parts: list[str]) -> None:
    source = "".join(parts)
    words = sum(piece.text.count("word") for piece in read(source)[1])
    assert words == source.count("word"), source


def test_markdown_keeps_its_source_and_knows_code(parse) -> None:
    parsed = parse("a.md", samples.MARKDOWN)
    assert parsed.text == samples.MARKDOWN.decode()
    assert parsed.title == "Notes on rivers"
    assert [kind for kind, _ in blocks(parsed)] == ["code", "heading", "paragraph", "code", "heading", "table", "list"]


def test_markdown_underlined_headings_and_open_fences(parse) -> None:
    parsed = parse("a.md", "Title\n=====\ntext\n\nSub\n---\n~~~\ncode\n\n# not a heading\n")
    assert [kind for kind, _ in blocks(parsed)] == ["heading", "paragraph", "heading", "code"]
    assert [block.level for block in parsed.blocks] == [1, 0, 2, 0]


def test_text_headings_are_few_and_sure(parse) -> None:
    parsed = parse("a.txt", samples.TEXT)
    assert [kind for kind, _ in blocks(parsed)] == ["heading", "paragraph", "heading", "paragraph"]
    plain = parse("a.txt", "Dear Ada,\n\nI am well\n\nIs it 1815?\n\nOK\n")
    assert {kind for kind, _ in blocks(plain)} == {"paragraph"}


def test_epub_chapters_are_pages_in_reading_order(parse) -> None:
    parsed = parse("a.epub", samples.epub([("One", "<p>first</p>"), ("Two", "<p>second</p>")], title="Rivers"))
    assert pages(parsed) == ["One\n\nfirst", "Two\n\nsecond"]
    assert (parsed.title, parsed.metadata) == ("Rivers", {"author": "Ada"})


def test_eml_headers_body_attachments_and_forwarded_mail(parse) -> None:
    inner = samples.eml("Inner", "The inner words.")
    text = parse(
        "a.eml",
        samples.eml("Grüße", "Hello Charles.", html="<p>Hello <b>Charles</b>", attachment="map.png", forwarded=inner),
    ).text
    for part in ("Subject: Grüße", "From: Ada Lovelace <ada@example.com>", "Attached: map.png", "The inner words."):
        assert part in text
    assert text.count("Hello Charles.") == 1
    assert text.count("The inner words.") == 1
    assert "Only markup" in parse("a.eml", samples.eml("x", "", html="<p>Only markup</p>")).text


# All


def test_nul_and_invisible_characters_are_gone(parse) -> None:
    assert parse("a.txt", "a\0b\u202ec\u200bd\ufeff ﬁne ①\r\nnext\rlast").text == "abcd fine 1\nnext\nlast"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv"])
def test_nothing_but_white_space_is_empty(parse, name: str) -> None:
    with pytest.raises(Invalid) as raised:
        parse(name, " \n\t\n ")
    assert raised.value.code == "document_empty"


@given(st.text(max_size=400), st.sampled_from(["a.txt", "a.md", "a.csv", "a.html", "a.eml"]))
@settings(max_examples=150, deadline=None)
def test_any_text_is_parsed_or_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "wild"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        parsed = parse_file(path, name, LIMITS, quiet)
    except Invalid as error:
        refusal: str | None = error.code
    else:
        refusal = None
        check(parsed)
    assert refusal in (None, "document_empty", "document_unsupported")


@given(st.lists(st.tuples(st.sampled_from(["paragraph", "heading"]), st.text(min_size=1, max_size=20), st.booleans())))
def test_a_draft_slices_exactly(parts: list[tuple[str, str, bool]]) -> None:
    draft = Draft(LIMITS)
    kept = []
    for kind, text, new_page in parts:
        if new_page:
            draft.page()
        draft.add(kind, text)  # type: ignore[arg-type]
        if not text.isspace():
            kept.append(text)
    parsed = draft.parsed("text/plain")
    assert [text for _, text in blocks(parsed)] == kept
    assert parsed.text == "\n\n".join(kept)


def test_a_zip_member_never_reaches_the_disk(parse, tmp_path: Path) -> None:
    evil = tmp_path / "evil.docx"
    evil.write_bytes(samples.docx(paragraph("Harmless.")))
    with zipfile.ZipFile(evil, "a") as archive:
        archive.writestr("../../escaped.txt", "x")
    assert parse("a.docx", evil.read_bytes()).text == "Harmless."
    assert not list(tmp_path.parent.parent.glob("**/escaped.txt"))
