"""Marks name sources, quotes stand in the text: nothing else is shown."""

import pytest

from terrace.knowledge.base import Page, Span
from terrace.knowledge.citations import Source, check

TEXTS = (
    "The Danube rises in the Black Forest. It flows through ten countries, more than any other river.",
    "Revenue grew 12% in 2021.\nCosts fell sharply in the ﬁrst quarter; see “Annual Report” for details.",
    "Nothing in this chunk is of any use.",
)


def sources(*texts: str) -> list[Source]:
    return [
        Source(
            n=number,
            document_id=f"doc_{number}",
            document_name=f"{number}.pdf",
            title=f"Title {number}",
            page=3,
            start=1000 * number,
            end=1000 * number + len(text),
            quote=None,
            chunk_id=f"chk_{number}",
            chunk_start=1000 * number,
            chunk_end=1000 * number + len(text),
            score=0.5,
            url="",
            chunk_text=text,
        )
        for number, text in enumerate(texts or TEXTS, 1)
    ]


def text_of(answer: str) -> str:
    return check(answer, sources()).text


def quotes(answer: str) -> list[tuple[int, str | None]]:
    return [(source.n, source.quote) for source in check(answer, sources()).sources]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Rivers flow [1].", "Rivers flow [1]."),
        ("Both [1, 2] and [1][2] and [1-3].", "Both [1][2] and [1][2] and [1][2][3]."),
        ("Wide 【2】 and 【1†source】 and ［sic］.", "Wide [2] and [1] and ［sic］."),
        ("Labelled [Source 2] and [^1].", "Labelled [2] and [1]."),
        ("Spaced [1] [2], [2]; [3].", "Spaced [1][2][3]."),
        ("Glued to a word[1].", "Glued to a word[1]."),
        ("Glued to a year 2020[1].", "Glued to a year 2020[1]."),
    ],
)
def test_every_way_to_write_a_mark_becomes_one(answer: str, expected: str) -> None:
    assert text_of(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Not there [9].", "Not there."),
        ("Not [9] there [1].", "Not there [1]."),
        ("Some of it [2, 9, 77].", "Some of it [2]."),
        ("[9] Begins with one.", "Begins with one."),
        ("Nothing left ([9]).", "Nothing left."),
        ("Something left ([9], [1]).", "Something left ([1])."),
        ("Zero [0].", "Zero."),
        ("In a range [2-900].", "In a range [2][3]."),
        ("Line one [9]\nline two", "Line one\nline two"),
        ("A word[99], and on", "A word, and on"),
        ("- [9] an item\n- [1] another", "- an item\n- [1] another"),
        ("At the end [9]", "At the end"),
        ("Unclosed [9", "Unclosed [9"),
    ],
)
def test_a_mark_that_names_no_source_goes_without_a_gap(answer: str, expected: str) -> None:
    assert text_of(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "Inline `a[9]` and ``b ` [9]`` stay.",
        "```python\nx = y[9]  # [9]\n```\n",
        "~~~\n[9]\n```\n[9]\n~~~\n",
        "1. First:\n   ```\n   [9]\n   ```\n",
        "A link [9](https://example.org) and ![9](x.png).",
        "An index a[9] or x1[9] or rows.items[9] or myList[9][8].",
        "An interval [0, 9].",
        "An escape \\[9].",
        "A year [2021] and a word [sic] and a task [x].",
    ],
)
def test_what_only_looks_like_a_mark_is_left_alone(answer: str) -> None:
    assert text_of(answer) == answer


def test_code_ends_where_it_ends() -> None:
    assert text_of("```\n[9]\n```\nafter [9]\n") == "```\n[9]\n```\nafter\n"
    assert text_of("an unclosed ` tick [9]\nnext [9]") == "an unclosed ` tick\nnext"


def test_a_removed_mark_never_makes_a_new_one() -> None:
    assert text_of("[[9]9]") == "[…9]"
    assert text_of("[1[9]2]") == "[1…2]"


def test_a_link_definition_cannot_capture_the_marks() -> None:
    assert text_of("Fact [1].\n\n[1]: https://evil.example/") == "Fact [1].\n\n[1] https://evil.example/"


@pytest.mark.parametrize(
    ("answer", "quote"),
    [
        ('It "rises in the Black Forest" [1].', "rises in the Black Forest"),
        ("It “rises in the Black Forest,” they say [1].", "rises in the Black Forest"),
        ("Er „rises in the Black Forest“ [1].", "rises in the Black Forest"),
        ('Er „rises in the Black Forest" [1].', "rises in the Black Forest"),
        ("Il « rises in the Black Forest » [1].", "rises in the Black Forest"),
        ("It “rises   in\nthe Black Forest” [1].", "rises in the Black Forest"),
        ('It "rises in the **Black** Forest" [1].', "rises in the Black Forest"),
        ('According to [1], it "rises in the Black Forest".', "rises in the Black Forest"),
        ('It "flows through ... any other river" [1].', "any other river"),
    ],
)
def test_a_quotation_is_found_again_letter_for_letter(answer: str, quote: str) -> None:
    assert quotes(answer) == [(1, quote)]


def test_the_quote_is_the_documents_own_text_at_its_span() -> None:
    source = check('They fell "sharply in the first quarter; see "Annual Report"" [2].', sources()).sources[0]
    assert source.quote == "sharply in the ﬁrst quarter; see “Annual Report"[: len(source.quote or "")]
    assert TEXTS[1][source.start - 2000 : source.end - 2000] == source.quote
    assert source.url == f"/documents/doc_2?page=3&start={source.start}&end={source.end}"


def test_words_are_not_quoted_out_of_the_middle_of_words() -> None:
    assert quotes('It "ises in the Black Forest" [1].')[0][1] != "ises in the Black Forest"


def test_a_quotation_from_another_source_takes_its_mark_along() -> None:
    checked = check('They say "Revenue grew 12% in 2021" [1].', sources())
    assert checked.text == 'They say "Revenue grew 12% in 2021" [2].'
    assert [(source.n, source.quote) for source in checked.sources] == [(2, "Revenue grew 12% in 2021")]


def test_an_invented_quotation_loses_its_mark() -> None:
    checked = check('They say "purple dinosaurs invaded Atlantis" [1].', sources())
    assert checked.text == 'They say "purple dinosaurs invaded Atlantis".'
    assert checked.sources == ()


def test_an_altered_quotation_keeps_its_mark_but_no_words_are_vouched_for() -> None:
    assert quotes('They say "Revenue grew 55% in 2021" [2].') == [(2, None)]


def test_quotation_marks_that_do_not_match_cost_no_citation() -> None:
    assert text_of('It “rises there" [1]. A 5" pipe [2].') == 'It “rises there" [1]. A 5" pipe [2].'


def test_scare_quotes_are_no_quotation() -> None:
    assert text_of('A "cloud" thing [1].') == 'A "cloud" thing [1].'


def test_without_a_quotation_the_sentence_that_bears_it_out_is_pointed_at() -> None:
    assert quotes("Revenue was up by 12% in 2021 [2].") == [(2, "Revenue grew 12% in 2021.")]
    assert quotes("It flows through more countries than others. [1]")[0][1] == (
        "It flows through ten countries, more than any other river."
    )


def test_without_any_support_the_whole_chunk_is_pointed_at() -> None:
    [source] = check("Something else entirely happened yesterday [3].", sources()).sources
    assert (source.quote, source.start, source.end) == (None, source.chunk_start, source.chunk_end)


def test_sources_come_in_order_of_citation_and_keep_their_numbers() -> None:
    assert [n for n, _ in quotes("Two [2], then one [1], then two [2].")] == [2, 1]


def test_a_documents_own_footnotes_are_not_citations() -> None:
    given = sources("Cells divide[2] quickly in spring.", "Other text.")
    checked = check("“Cells divide[2] quickly in spring.” [1]", given)
    assert checked.text == "“Cells divide quickly in spring.” [1]"
    assert [(source.n, source.quote) for source in checked.sources] == [(1, "Cells divide[2] quickly in spring")]


def test_a_span_on_the_chunks_second_page_links_to_that_page() -> None:
    pages = {"doc_1": [Page(3, Span(0, 1038)), Page(4, Span(1038, 2000))]}
    [source] = check("It flows through ten countries [1].", sources(), pages).sources
    assert source.page == 4
    assert "page=4" in source.url
