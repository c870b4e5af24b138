"""The quote model: what it says when sentences answer, nearly answer, or don't."""

from collections.abc import Sequence

from terrace.models.base import ChatRequest, Passage, RankedSentence, TextDelta
from terrace.models.providers.quote import INTRODUCTION, NEAREST, NOTHING_FOUND, Quote
from terrace.types import Scope

PASSAGE = Passage(1, "Mill", "It stands. Ada built it.")


class Scripted:
    """A ranker that says what the test wants."""

    def __init__(self, *ranked: RankedSentence) -> None:
        self._ranked = list(ranked)

    async def rank(
        self, question: str, passages: Sequence[Passage], scope: Scope | None = None
    ) -> list[RankedSentence]:
        return self._ranked


async def answer(*ranked: RankedSentence, passages: Sequence[Passage] = (PASSAGE,)) -> str:
    request = ChatRequest("quote", [{"role": "user", "content": "Who built it?"}], passages=passages)
    deltas = [delta async for delta in Quote("quote", Scripted(*ranked)).stream(request)]
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def test_sentences_nearly_as_good_as_the_best_are_quoted_too() -> None:
    said = await answer(
        RankedSentence(1, 11, 24, "Ada built it.", 1.0),
        RankedSentence(1, 0, 10, "It stands.", 0.7),
        RankedSentence(1, 0, 10, "It is far.", 0.5),
    )
    assert said == "“Ada built it.” [1]\n\n“It stands.” [1]"


async def test_a_doubtful_best_is_called_the_nearest() -> None:
    doubtful = RankedSentence(1, 11, 24, "Ada built it.", 0.4, doubtful=True)
    said = await answer(doubtful, RankedSentence(1, 0, 10, "It stands.", 0.39, doubtful=True))
    assert said == f"{NEAREST}\n\n“Ada built it.” [1]"


async def test_a_scrap_is_quoted_when_there_is_nothing_else() -> None:
    assert await answer(RankedSentence(1, 0, 10, "Rent: 900", -1.2)) == "“Rent: 900” [1]"


async def test_nothing_is_said_to_be_nothing() -> None:
    assert await answer() == NOTHING_FOUND
    assert await answer(passages=()) == INTRODUCTION
