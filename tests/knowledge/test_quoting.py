"""Sentences cut exactly and ranked by how well they answer."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.quoting import QuotingRanker
from terrace.knowledge.sentences import sentence_spans
from terrace.models.base import Embedder, Passage


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It rained. We stayed in.", ["It rained.", "We stayed in."]),
        ("Dr. Amara Nwosu decides. Call her.", ["Dr. Amara Nwosu decides.", "Call her."]),
        ("It costs 3.50 euros, e.g. for tea. Or 4.", ["It costs 3.50 euros, e.g. for tea.", "Or 4."]),
        ("J. R. Smith wrote it. Who else?", ["J. R. Smith wrote it.", "Who else?"]),
        ('He said "Stop!" and left. "Why?"', ['He said "Stop!" and left.', '"Why?"']),
        ("A line that was wrapped at a width\nand goes on here. Next.",
         ["A line that was wrapped at a width\nand goes on here.", "Next."]),
        ("A Heading\nThe text below it is rather long, as texts are.",
         ["A Heading", "The text below it is rather long, as texts are."]),
        ("Bring:\n- bread\n- salt\n1. Bake it\n2. Eat it", ["Bring:", "- bread", "- salt", "1. Bake it", "2. Eat it"]),
        ("One\n\n\nTwo", ["One", "Two"]),
        ("今日は晴れ。明日は雨！", ["今日は晴れ。", "明日は雨！"]),
        ("", []),
        (" \n ", []),
    ],
)  # fmt: skip
def test_sentences(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


@given(st.text(alphabet="aB1 .!?\n\"'-。e.g", max_size=80) | st.text(max_size=80))
@example("....\n\n...")
def test_spans_are_in_order_and_hold_every_visible_character(text: str) -> None:
    spans = sentence_spans(text)
    assert all(one.end <= two.start for one, two in pairwise(spans))
    assert "".join("".join(cut(text)).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in cut(text))


ISLAND = Passage(
    1,
    "Lantern Island",
    "# Getting there\n\nA ferry leaves the harbour twice a day. The crossing takes fifty minutes. Why walk?",
    0.9,
)
MILL = Passage(
    2,
    "The tide mill",
    "The mill was built by monks in 1170. It burned down in 1523. It was designed anew by Josiah Pell.",
    0.5,
)


@pytest.fixture(params=["with an embedding", "by words alone"])
def ranker(request: pytest.FixtureRequest) -> QuotingRanker:
    embedder: Embedder = HashEmbedder()
    return QuotingRanker(AbsentEmbedder("none", "off") if request.param == "by words alone" else embedder)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How long does the crossing to Lantern Island take?", "The crossing takes fifty minutes."),
        ("When did the mill burn down?", "It burned down in 1523."),
        ("Who designed the mill anew?", "It was designed anew by Josiah Pell."),
        ("How many times a day does the ferry leave?", "A ferry leaves the harbour twice a day."),
    ],
)
async def test_the_answering_sentence_comes_first(ranker: QuotingRanker, question: str, answer: str) -> None:
    assert (await ranker.rank(question, [ISLAND, MILL]))[0].text == answer


async def test_what_comes_back_are_exact_spans(ranker: QuotingRanker) -> None:
    passages = {1: ISLAND, 2: MILL}
    ranked = await ranker.rank("Who built the mill?", [ISLAND, MILL])
    assert {each.passage for each in ranked} == {1, 2}
    assert all(each.text == passages[each.passage].text[each.start : each.end] for each in ranked)
    assert [each.score for each in ranked] == sorted((each.score for each in ranked), reverse=True)


async def test_headings_and_questions_are_no_answers(ranker: QuotingRanker) -> None:
    ranked = await ranker.rank("getting there", [ISLAND])
    statements = [each.text not in ("# Getting there", "Why walk?") for each in ranked]
    assert statements[0]
    assert statements == sorted(statements, reverse=True)


async def test_what_does_not_answer_at_all_is_left_out(ranker: QuotingRanker) -> None:
    assert await ranker.rank("Quelle est la recette du gazpacho andalou?", [MILL]) == []
    assert not (await ranker.rank("Who built the mill?", [MILL]))[0].doubtful


async def test_nothing_to_rank(ranker: QuotingRanker) -> None:
    assert await ranker.rank("Who?", []) == []
    assert await ranker.rank("Who?", [Passage(1, "", " \n ")]) == []
    assert await ranker.rank("  ", [MILL]) == []


async def test_much_text_is_thinned_before_it_is_embedded() -> None:
    class Counting(HashEmbedder):
        most = 0

        async def embed(self, texts: Any, *, query: bool = False, scope: Any = None) -> Any:
            self.most = max(self.most, len(texts))
            return await super().embed(texts, query=query)

    embedder = Counting()
    filler = " ".join(f"Sentence number {number} tells of nothing." for number in range(500))
    ranked = await QuotingRanker(embedder).rank(
        "Who designed the tide mill?", [Passage(1, "Filler", filler, 1.0), MILL]
    )
    assert ranked[0].text.endswith("Josiah Pell.")
    assert embedder.most <= 100
