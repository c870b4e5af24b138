"""What `/v1` gets: the same answer, kept by nobody."""

from typing import Any

import pytest

from terrace.chat.rag import RAG
from terrace.errors import Invalid
from terrace.models.base import Finish, ReasoningDelta, TextDelta, Usage
from terrace.types import Scope


@pytest.fixture
def rag(room: Any) -> RAG[tuple[Any, ...]]:
    async def names(scope: Scope) -> list[str]:
        return ["default"]

    return RAG(room.answering, names, lambda sources: ("sources", *sources))


async def collected(rag: Any, room: Any, messages: list[dict[str, Any]], **options: Any) -> list[Any]:
    return [each async for each in rag.answer(room.scope, messages, options, ["reports"])]


async def test_sources_deltas_sources_usage_finish(room: Any, rag: Any) -> None:
    room.shelf.put("The cat sat on the mat.", "Unrelated.")
    room.says([ReasoningDelta("hm"), 'It "sat on', ' the mat" [', "1][9", "]."])
    said = await collected(rag, room, [{"role": "user", "content": "Where?"}], temperature=0.1, tools=[1], n=3)
    assert [source["n"] for source in said[0][1:]] == [1, 2]
    assert said[1] == ReasoningDelta("hm")
    assert "".join(each.text for each in said if isinstance(each, TextDelta)) == 'It "sat on the mat" [1].'
    assert [(source["n"], source["quote"]) for source in said[-3][1:]] == [(1, "sat on the mat")]
    assert isinstance(said[-2], Usage)
    assert said[-1] == Finish("stop")
    assert room.shelf.asked[0][3].collections == ("reports",)
    assert room.models.provider.requests[0].options == {"temperature": 0.1}
    assert (await room.chat.list(room.scope))[0] == []


async def test_the_callers_conversation_is_read(room: Any, rag: Any) -> None:
    room.shelf.put("Text.")
    room.says(["ok"])
    await collected(
        rag,
        room,
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Tell me about Acme Corporation"}]},
            {"role": "assistant", "content": "It is [1] big."},
            {"role": "user", "content": "And why?"},
        ],
    )
    assert room.shelf.asked[0][1] == "Tell me about Acme Corporation\nAnd why?"
    assert room.prompt[0]["content"].startswith("Be brief.")
    assert [message["content"] for message in room.prompt[1:3]] == ["Tell me about Acme Corporation", "It is big."] or (
        room.prompt[1]["content"].startswith("Tell me about Acme Corporation")
    )
    assert room.prompt[-1]["content"] == "And why?"


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "x"}], [{"role": "user", "content": " "}]])
async def test_without_a_question_there_is_no_answer(room: Any, rag: Any, messages: list[dict[str, Any]]) -> None:
    with pytest.raises(Invalid):
        await collected(rag, room, messages)


async def test_leaving_early_stops_the_model(room: Any, rag: Any) -> None:
    room.shelf.put("Text.")
    provider = room.says(["one ", "two ", 30.0, "three"])
    answer = rag.answer(room.scope, [{"role": "user", "content": "q?"}], {}, [])
    async for each in answer:
        if isinstance(each, TextDelta):
            break
    await answer.aclose()
    assert (provider.left, provider.running) == (1, 0)
