"""Whatever a model says."""

import re
from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from terrace.knowledge.citations import Checker, Source, check, without_marks
from terrace.knowledge.evidence import Passage, fold

PIECES = st.sampled_from(
    [
        "[1]", "[2]", "[9]", "[1, 9]", "[1-3]", "【2】", "[", "]", "(", ")", "`", "```", "~~~", "\n", "\n\n", " ", "  ",
        "a", "word", '"', "“", "”", "„", "The cat sat.", "on the mat", "x1", ":", ",", ".", "- ", "> ", "1. ", "\\",
        "[Source 2]", "0", "12", "†", "!", "é", "ﬁ", "猫", "\u200b", "http://x",
    ]
)  # fmt: skip
ANSWERS = st.one_of(st.lists(PIECES, max_size=25).map("".join), st.text(max_size=60))
CHUNKS = st.lists(
    st.one_of(st.just("The cat sat on the mat. It “purred” [3] softly."), st.text(max_size=80)), max_size=3
)


def sources(texts: list[str]) -> list[Source]:
    return [
        Source(n, "doc_1", "a", "a", None, 50, 50 + len(text), None, f"chk_{n}", 50, 50 + len(text), 0.5, "", text)
        for n, text in enumerate(texts, 1)
    ]


@given(ANSWERS, CHUNKS)
@settings(max_examples=300, deadline=None)
def test_every_source_was_given_and_every_span_slices_its_chunk(answer: str, texts: list[str]) -> None:
    given_sources = sources(texts)
    checked = check(answer, given_sources)
    by_number = {source.n: source for source in given_sources}
    for source in checked.sources:
        chunk = by_number[source.n].chunk_text
        assert source.chunk_start <= source.start <= source.end <= source.chunk_end
        if source.quote is not None:
            assert chunk[source.start - source.chunk_start : source.end - source.chunk_start] == source.quote
        assert f"[{source.n}]" in checked.text


@given(ANSWERS, CHUNKS, st.data())
@settings(max_examples=300, deadline=None)
def test_streaming_in_any_pieces_shows_the_checked_text(answer: str, texts: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=12)))
    checker = Checker(sources(texts))
    shown = [checker.feed(answer[start:end]) for start, end in pairwise([0, *cuts, len(answer)])]
    shown.append(checker.finish())
    assert checker.checked() == check(answer, sources(texts))
    assert "".join(shown) == checker.checked().text


@given(st.lists(PIECES.filter(lambda piece: not set(piece) & set("`~\\")), max_size=25).map("".join))
@example("[[9]9]")
@example("[1[9]] [9][1]([9])")
@settings(max_examples=400, deadline=None)
def test_outside_code_no_mark_names_a_source_that_is_not_there(answer: str) -> None:
    text = check(answer, sources(["The cat sat on the mat."])).text
    for mark in re.finditer(r"(?<![\w\]])\[(\d{1,3})\](?!\()", text):
        assert mark.group(1) == "1", text


@given(ANSWERS)
@settings(max_examples=200, deadline=None)
def test_text_without_brackets_is_untouched(answer: str) -> None:
    plain = re.sub(r"[\[\]【】]", "", answer)
    assert check(plain, sources(["x"])).text == plain
    assert without_marks(plain) == plain


@given(st.text(max_size=120), st.data())
@settings(max_examples=300, deadline=None)
def test_a_span_found_folds_to_the_words_quoted(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    quote = text[start : data.draw(st.integers(start, len(text)))]
    if span := Passage(text).find(quote):
        assert fold(text[span.start : span.end])


@given(st.text(alphabet='ab ﬁ½é\u0301\u00ad .\n"”“', max_size=60), st.integers(0, 59), st.integers(1, 30))
@settings(max_examples=300, deadline=None)
def test_whole_words_quoted_are_always_found(text: str, at: int, length: int) -> None:
    words = re.findall(r"[ab]+", text)
    if not words or re.search(r"[^ab \n.]", text):
        return
    some = words[at % len(words) : at % len(words) + length]
    clean = " ".join(words)
    assert Passage(clean).find(" ".join(some)) is not None


def test_long_answers_cost_little() -> None:
    answer = "A sentence with words [1], [2] and `code`.\n\n" * 2000 + " " * 50_000 + "[" * 20_000
    assert check(answer, sources(["A sentence with words."])).text.startswith("A sentence with words [1]")
