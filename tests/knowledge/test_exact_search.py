"""What two databases are compared by: every passage and every vector looked at, so that both find the same."""

import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.test_index import EMBEDDER, MODEL, Shelf, stored_on

from terrace.knowledge.base import Scored
from terrace.knowledge.index.postgres import tokens
from terrace.knowledge.index.postgres.tokens import tokens_of
from terrace.types import Scope

WORDS = [
    "river",
    "bridge",
    "Brücke",
    "naïve",
    "whale",
    "whales",
    "sailing",
    "harbour",
    "ice",
    "running",
    "1999",
    "東京",
]
PASSAGES, DOCUMENTS = 150, 4  # together more than the candidates of an exact search


@pytest.fixture
async def shelves(request: pytest.FixtureRequest) -> AsyncIterator[list[Shelf]]:
    async with stored_on(request, "sqlite") as sqlite, stored_on(request, "postgresql") as postgresql:
        yield [sqlite, postgresql]


def texts() -> list[list[str]]:
    rng = random.Random(8)
    return [
        [" ".join(rng.choices(WORDS, weights=range(1, 13), k=rng.randint(3, 40))) for _ in range(PASSAGES)]
        for _ in range(DOCUMENTS)
    ]


async def test_both_databases_find_the_very_same(shelves: list[Shelf], scope: Scope) -> None:
    for number, passages in enumerate(texts()):
        for shelf in shelves:
            await shelf.put(scope, f"d{number}", passages, title="Rivers")
    asked = ["whales on the river", "東京 1999", "Brucke", "nothing of it"]
    vectors = np.asarray(await EMBEDDER.embed(asked, query=True))
    here, there = [await found(shelf, scope, asked, vectors) for shelf in shelves]
    for ours, theirs in zip(here, there, strict=True):
        assert [each.number for each in ours] == [each.number for each in theirs]
        assert [each.score for each in ours] == pytest.approx([each.score for each in theirs], abs=2e-3)
    usual = await shelves[0].scored(scope, asked[0], 10)
    assert {each.number for each in usual} & {each.number for each in here[0]}
    by_words = [await found(shelf, scope, asked, None) for shelf in shelves]
    assert by_words[0][3] == by_words[1][3] == []
    assert [each.number for each in by_words[0][1]] == [each.number for each in by_words[1][1]]


async def found(shelf: Shelf, scope: Scope, asked: list[str], vectors: Any) -> list[list[Scored]]:
    index: Any = shelf.index
    model = None if vectors is None else MODEL
    result: list[list[Scored]] = await shelf.database.read(
        index.search_exactly, scope, asked, vectors, model=model, k=10
    )
    return result


@settings(max_examples=150)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30), st.text(max_size=60)), max_size=4))
def test_a_text_cut_into_pieces_has_the_words_that_the_tokenizer_finds_in_the_whole(
    passages: list[tuple[str, str, str]],
) -> None:
    told, found = tokens._told, tokens_of(passages)
    words = [found.vocabulary[word] for word in found.words]
    assert sorted(zip(found.passages.tolist(), words, found.weights.tolist(), strict=True)) == sorted(
        (place, word, weight)
        for place, passage in enumerate(passages)
        for column, weight in zip(passage, (4, 3, 2), strict=True)
        for word in told([column])[column]
    )
