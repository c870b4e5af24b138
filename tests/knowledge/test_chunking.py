"""Passages: exact spans, along the structure, of bounded size, whatever the text."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.samples import prose

from terrace.knowledge.base import Block, Chunk, Page, Parsed, Span
from terrace.knowledge.chunking import HEADED, chunk, estimate_tokens, sentences
from terrace.knowledge.parsers.base import Draft, ParseLimits, normalise

KINDS = ("heading", "paragraph", "list", "table", "code")
WILD = st.text(
    st.one_of(
        st.characters(blacklist_categories=("Cs",)),
        st.sampled_from(" \n\n\t.!?。«»-a\u0301\u200f\u202e\u0635中🇩🇪"),
    ),
    max_size=300,
)


def check(parsed: Parsed, chunks: tuple[Chunk, ...]) -> None:
    """What holds of any chunks."""
    covered = bytearray(len(parsed.text))
    for at, each in enumerate(chunks):
        assert each.ordinal == at
        assert each.text == parsed.text[each.span.start : each.span.end]
        assert each.text == each.text.strip() != ""
        covered[each.span.start : each.span.end] = b"\1" * (each.span.end - each.span.start)
    assert all(done or parsed.text[at].isspace() for at, done in enumerate(covered))
    starts = [each.span.start for each in chunks]
    assert starts == sorted(set(starts))


def draft(*blocks: tuple[str, str] | tuple[str, str, int]) -> Parsed:
    made = Draft(ParseLimits())
    for kind, text, *level in blocks:
        made.add(kind, text, *level)  # type: ignore[arg-type]
    return made.parsed("text/plain")


@given(st.lists(st.tuples(st.sampled_from(KINDS), WILD, st.integers(0, 12)), max_size=12), st.integers(2, 60))
@settings(max_examples=150, deadline=None)
def test_any_structure_is_covered_by_ordered_exact_bounded_spans(
    blocks: list[tuple[str, str, int]], target: int
) -> None:
    parsed = draft(*((kind, normalise(text), level) for kind, text, level in blocks))
    chunks = chunk(parsed, target)
    check(parsed, chunks)
    for each in chunks:
        # a sign of its own may cost more than the target; gaps between pieces are white space
        assert estimate_tokens(re.sub(r"\s+", " ", each.text)) <= HEADED * target + 2
    for before, after in pairwise(chunks):
        assert before.span.end <= after.span.start


@given(WILD, st.lists(st.integers(0, 300), max_size=6), st.integers(2, 40), st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_blocks_that_leave_gaps_and_overlap_lose_nothing(text: str, cuts: list[int], target: int, overlap: int) -> None:
    text = normalise(text)
    edges = sorted(min(cut, len(text)) for cut in cuts)
    blocks = tuple(Block("paragraph", Span(a, b)) for a, b in zip(edges[::2], edges[1::2], strict=False))
    parsed = Parsed(text, "text/plain", blocks=blocks)
    check(parsed, chunk(parsed, target, overlap))


def test_paragraphs_near_the_target_stay_whole_and_alone() -> None:
    paragraphs = [prose(10, seed) for seed in range(6)]
    chunks = chunk(draft(*(("paragraph", each) for each in paragraphs)), estimate_tokens(paragraphs[0]))
    assert [each.text for each in chunks] == paragraphs


def test_small_paragraphs_under_a_heading_come_together_and_headings_begin_chunks() -> None:
    parsed = draft(
        ("heading", "Rivers", 1), ("heading", "Rhine", 2), ("paragraph", "It is long."), ("paragraph", "It is old."),
        ("heading", "Danube", 2), ("paragraph", "It is longer."),
        ("heading", "Seas", 1), ("paragraph", "They are wide."),
    )  # fmt: skip
    chunks = chunk(parsed, 220)
    assert [each.text for each in chunks] == [
        "Rivers\n\nRhine\n\nIt is long.\n\nIt is old.",
        "Danube\n\nIt is longer.",
        "Seas\n\nThey are wide.",
    ]
    assert [each.headings for each in chunks] == [("Rivers",), ("Rivers", "Danube"), ("Seas",)]


def test_a_long_paragraph_is_cut_between_sentences_into_like_parts() -> None:
    text = prose(60)
    chunks = chunk(draft(("paragraph", text)), 100)
    assert len(chunks) > 3
    assert all(each.text.endswith(".") and each.text[0].isupper() for each in chunks)
    sizes = [estimate_tokens(each.text) for each in chunks]
    assert min(sizes) > 0.5 * max(sizes)


@pytest.mark.parametrize("kind", ["table", "code", "list"])
def test_rows_and_lines_are_never_cut(kind: str) -> None:
    lines = [f"row {number}; value: {number * number}; a note. Another one." for number in range(200)]
    for each in chunk(draft((kind, "\n".join(lines))), 60):
        assert set(each.text.split("\n")) <= set(lines)


def test_one_endless_line_is_cut_between_words_and_an_endless_word_anywhere() -> None:
    words = "stone " * 20_000
    for each in chunk(draft(("paragraph", words.strip())), 50):
        assert set(each.text.split()) == {"stone"}
        assert estimate_tokens(each.text) <= 50
    chunks = chunk(draft(("paragraph", "x" * 100_000)), 50)
    assert all(estimate_tokens(each.text) <= 50 for each in chunks)
    assert len(chunks) < 1000


def test_a_letter_keeps_its_accents() -> None:
    chunks = chunk(draft(("paragraph", "q\u0323\u0307" * 3000)), 30)
    assert all(each.text[0] == "q" for each in chunks)


def test_pages_are_those_of_the_first_character() -> None:
    made = Draft(ParseLimits())
    for number in range(1, 5):
        made.page()
        made.add("paragraph", prose(18, number))
    made.page()
    parsed = made.parsed("application/pdf")
    chunks = chunk(parsed, 400)
    assert [each.page for each in chunks] == [1, 2, 3, 4]
    assert parsed.pages[-1] == Page(5, Span(len(parsed.text), len(parsed.text)))


def test_overlap_repeats_whole_sentences_of_the_same_section() -> None:
    parsed = draft(("paragraph", prose(40)), ("heading", "Next", 1), ("paragraph", prose(3)))
    plain, overlapped = chunk(parsed, 80), chunk(parsed, 80, overlap=30)
    check(parsed, overlapped)
    assert len(plain) == len(overlapped)
    for before, each, same in zip(overlapped, overlapped[1:], plain[1:], strict=False):
        assert each.span.end == same.span.end
        repeated = each.text[: same.span.start - each.span.start].strip()
        assert before.text.endswith(repeated)
        assert estimate_tokens(repeated) <= 30
        assert bool(repeated) == (each.headings == ())


def test_a_real_tokenizer_is_used_when_given() -> None:
    chunks = chunk(draft(("paragraph", prose(30))), 50, count_tokens=lambda text: len(text.split()))
    assert all(len(each.text.split()) <= 50 for each in chunks)
    assert len(chunks) == -(-len(prose(30).split()) // 50)


def test_sentences_know_abbreviations_initials_and_other_scripts() -> None:
    def cut(text: str) -> list[str]:
        return [text[a:b] for a, b in sentences(text, Span(0, len(text)))]

    assert cut("Dr. Smith saw J. S. Bach. He left!  “Why?” Nobody knows, e.g. Anna.") == [
        "Dr. Smith saw J. S. Bach.", "He left!", "“Why?”", "Nobody knows, e.g. Anna.",
    ]  # fmt: skip
    assert cut("今日は雨です。明日は晴れ。") == ["今日は雨です。", "明日は晴れ。"]
    assert cut("It rose 3.5 percent. in all. Then it fell.") == ["It rose 3.5 percent. in all.", "Then it fell."]


@pytest.mark.parametrize(
    ("text", "real"),  # counted with MiniLM's own tokenizer
    [
        ("The river carries small stones from high mountains down to a quiet sea.", 14),
        ("東京は日本の首都です。", 11),
        ("Москва — столица России, крупнейший город страны.", 40),
        ("مرحبا بالعالم هذه جملة قصيرة", 24),
        ("In 1815, GDP grew 3.52% (see Table 12.4).", 17),
    ],
)
def test_the_estimate_errs_upwards_but_not_far(text: str, real: int) -> None:
    assert 0.95 * real <= estimate_tokens(text) <= 1.5 * real
