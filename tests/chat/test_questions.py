"""The question service: asked, answered, kept, read by whoever asked alone."""

import asyncio

import pytest
from tests.chat.conftest import Room

from terrace.chat.base import Ask
from terrace.chat.questions import Questions
from terrace.errors import Conflict, Invalid, Missing, Unavailable
from terrace.types import Scope


@pytest.fixture
def questions(room: Room) -> Questions:
    return Questions(room.database, room.chat)


async def answered(room: Room, questions: Questions, text: str, **more: object) -> str:
    asked = await questions.ask(room.scope, Ask(text, **more))  # type: ignore[arg-type]
    await room.jobs.wait(room.scope, asked.job_id, 20)
    return asked.id


async def test_a_question_is_kept_with_its_answer(room: Room, questions: Questions) -> None:
    room.says(["Four", " weeks."])
    question_id = await answered(room, questions, "What is the notice period?")
    found = await questions.get(room.scope, question_id)
    assert (found.question, found.answer, found.state) == ("What is the notice period?", "Four weeks.", "complete")
    assert found.id.startswith("qst_")
    assert found.user_id == room.scope.user
    assert found.usage


async def test_with_documents_it_cites_and_without_it_just_answers(room: Room, questions: Questions) -> None:
    room.says(["Just so."])
    plain = await questions.get(room.scope, await answered(room, questions, "Why?"))
    assert plain.sources == []
    room.shelf.put("The notice period is four weeks.")
    room.says(["Four weeks [1]."])
    cited = await questions.get(room.scope, await answered(room, questions, "What is the notice period?"))
    assert [source["document_id"] for source in cited.sources] == ["doc_1"]


async def test_one_that_fails_is_kept_and_says_why(room: Room, questions: Questions) -> None:
    room.says([Unavailable("The provider is away.", code="provider_down")])
    found = await questions.get(room.scope, await answered(room, questions, "Anyone?"))
    assert found.state == "failed"
    assert found.error is not None
    assert found.error["code"] == "provider_down"


async def test_questions_are_listed_newest_first_page_by_page(room: Room, questions: Questions) -> None:
    asked = [await answered(room, questions, f"Question {n}?") for n in range(5)]
    await room.ask("A message of the chat is no question.")
    found, cursor = [], None
    while True:
        page, cursor = await questions.list(room.scope, limit=2, cursor=cursor)
        assert len(page) <= 2
        found += [each.id for each in page]
        if cursor is None:
            break
    assert found == asked[::-1]


async def test_the_conversations_of_the_page_stay_free_of_them(room: Room, questions: Questions) -> None:
    question_id = await answered(room, questions, "Lighthouses?")
    assert await room.chat.list(room.scope) == ([], None)
    assert await room.chat.list(room.scope, q="Lighthouses") == ([], None)
    conversation, messages = await room.chat.get(room.scope, question_id)
    assert [message.role for message in messages] == ["user", "assistant"]
    await room.ask("And then?", conversation_id=conversation.id)
    assert (await questions.get(room.scope, question_id)).question == "Lighthouses?"
    assert len((await questions.list(room.scope))[0]) == 1


async def test_the_first_complete_answer_is_the_answer(room: Room, questions: Questions) -> None:
    room.says([Unavailable("The provider is away.", code="provider_down")], ["Now."], ["Later."])
    question_id = await answered(room, questions, "When?")
    for expected in ("Now.", "Now."):
        _, messages = await room.chat.get(room.scope, question_id)
        started = await room.chat.regenerate(room.scope, question_id, messages[0].id)
        await room.jobs.wait(room.scope, started.job_id, 20)
        assert (await questions.get(room.scope, question_id)).answer == expected


async def test_only_whoever_asked_reads_it(room: Room, questions: Questions, other: Scope) -> None:
    question_id = await answered(room, questions, "Secret?")
    colleague = Scope(room.scope.tenant, "usr_eve")
    namesake = Scope(other.tenant, room.scope.user)
    for stranger in (other, colleague, namesake, Scope(room.scope.tenant)):
        with pytest.raises(Missing):
            await questions.get(stranger, question_id)
        assert await questions.list(stranger) == ([], None)


async def test_the_same_key_asks_once_and_a_message_may_have_it_too(room: Room, questions: Questions) -> None:
    first, again = await asyncio.gather(
        *(questions.ask(room.scope, Ask("Once?", key="k-1")) for _ in range(2)),
    )
    assert first == again
    message, _ = await room.ask("A message", key="k-1")
    assert message.conversation_id != first.id
    with pytest.raises(Conflict):
        await questions.ask(room.scope, Ask("Twice?", key="k-1"))


@pytest.mark.parametrize("cursor", ["", "qst_", "qst_" + "0" * 25 + "%", "cnv_" + "0" * 26, "\x00"])
async def test_a_foreign_cursor_is_told(questions: Questions, scope: Scope, cursor: str) -> None:
    with pytest.raises(Invalid):
        await questions.list(scope, cursor=cursor)


async def test_a_conversation_is_no_question(room: Room, questions: Questions) -> None:
    started, _ = await room.ask("Hello")
    for wrong in (started.conversation_id, "qst_\x00", "qst_" + "0" * 26):
        with pytest.raises(Missing):
            await questions.get(room.scope, wrong)


async def test_while_it_is_answered_it_can_be_read(room: Room, questions: Questions) -> None:
    gate = asyncio.Event()
    room.says([gate.wait, "Done."])
    asked = await questions.ask(room.scope, Ask("Slow?"))
    found = await questions.get(room.scope, asked.id)
    assert (found.state, found.answer, found.job_id) == ("running", "", asked.job_id)
    gate.set()
    await room.jobs.wait(room.scope, asked.job_id, 20)
    assert (await questions.get(room.scope, asked.id)).answer == "Done."
