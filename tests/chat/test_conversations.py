"""Kept, continued, branched, found, renamed, exported, deleted; and nobody else's."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrace.chat import store
from terrace.chat.base import Ask
from terrace.chat.service import TITLE_CHARS, _first_words
from terrace.errors import Conflict, Invalid, Missing
from terrace.types import Scope


def roles(prompt: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in prompt if message["role"] != "system"]


async def test_a_question_goes_on_from_the_one_before(room: Any) -> None:
    room.says(["Answer one [1]."], ["Answer two."])
    first, _ = await room.ask("One?")
    second, _ = await room.ask("Two?", conversation_id=first.conversation_id)
    assert roles(room.prompt) == [("user", "One?"), ("assistant", "Answer one."), ("user", "Two?")]
    conversation, messages = await room.chat.get(room.scope, first.conversation_id)
    assert (conversation.title, conversation.head_id, conversation.messages) == ("One?", second.message_id, 4)
    assert [message.parent_id for message in messages] == [
        None, first.user_message_id, first.message_id, second.user_message_id,
    ]  # fmt: skip


async def test_an_edit_is_a_branch_and_the_old_one_stays(room: Any) -> None:
    room.says(["A1"], ["A2"], ["A2b"], ["A1b"])
    first, _ = await room.ask("Q1")
    second, _ = await room.ask("Q2", conversation_id=first.conversation_id)
    edited, _ = await room.ask("Q2 edited", conversation_id=first.conversation_id, parent_id=first.message_id)
    assert roles(room.prompt) == [("user", "Q1"), ("assistant", "A1"), ("user", "Q2 edited")]
    root, _ = await room.ask("Q1 edited", conversation_id=first.conversation_id, parent_id=first.user_message_id)
    assert roles(room.prompt) == [("user", "Q1 edited")]
    _, messages = await room.chat.get(room.scope, first.conversation_id)
    parents = {message.id: message.parent_id for message in messages}
    assert parents[edited.user_message_id] == parents[second.user_message_id] == first.message_id
    assert parents[root.user_message_id] is None
    changed = await room.chat.change(room.scope, first.conversation_id, head_id=second.message_id)
    assert changed.head_id == second.message_id
    await room.ask("Q3", conversation_id=first.conversation_id)
    assert [content for _, content in roles(room.prompt)] == ["Q1", "A1", "Q2", "A2", "Q3"]


async def test_regenerating_writes_a_sibling_asked_for_in_the_same_way(room: Any) -> None:
    room.shelf.put("Some text.")
    room.says(["A"], ["B"], ["C"])
    first, _ = await room.ask("Q", collections=("reports",))
    again = await room.chat.regenerate(room.scope, first.conversation_id, first.message_id, model="fake/other")
    await room.jobs.wait(room.scope, again.job_id, 20)
    assert (again.user_message_id, again.model) == (first.user_message_id, "fake/other")
    assert room.shelf.asked[-1][3].collections == ("reports",)
    conversation, messages = await room.chat.get(room.scope, first.conversation_id)
    answers = {message.id: message for message in messages if message.role == "assistant"}
    assert {answers[first.message_id].content, answers[again.message_id].content} == {"A", "B"}
    assert answers[first.message_id].parent_id == answers[again.message_id].parent_id
    assert conversation.head_id == again.message_id
    third = await room.chat.regenerate(room.scope, first.conversation_id, first.user_message_id)
    await room.jobs.wait(room.scope, third.job_id, 20)
    assert (await room.message(third)).content == "C"


async def test_two_questions_at_once_are_two_branches(room: Any) -> None:
    room.says(["A"])
    first, _ = await room.ask("Q1")
    both = await asyncio.gather(
        *(room.chat.ask(room.scope, Ask(text, conversation_id=first.conversation_id)) for text in ("Q2", "Q3"))
    )
    for started in both:
        await room.jobs.wait(room.scope, started.job_id, 20)
    _, messages = await room.chat.get(room.scope, first.conversation_id)
    assert sorted(message.content for message in messages if message.parent_id == first.message_id) == ["Q2", "Q3"]
    assert all(message.state == "complete" for message in messages)


async def test_others_see_nothing_and_can_touch_nothing(room: Any, other: Scope) -> None:
    room.says(["A"])
    started, _ = await room.ask("Secret")
    colleague = Scope(room.scope.tenant, "usr_eve")
    for stranger in (other, colleague):
        assert (await room.chat.list(stranger))[0] == []
        assert (await room.chat.list(stranger, q="Secret"))[0] == []
        for attempt in (
            room.chat.get(stranger, started.conversation_id),
            room.chat.change(stranger, started.conversation_id, title="Mine"),
            room.chat.delete(stranger, started.conversation_id),
            room.chat.export(stranger, started.conversation_id, "md"),
            room.chat.regenerate(stranger, started.conversation_id, started.message_id),
            room.chat.ask(stranger, Ask("x", conversation_id=started.conversation_id)),
        ):
            with pytest.raises(Missing):
                await attempt
    assert (await room.message(started)).content == "A"


async def test_a_head_or_parent_of_another_conversation_is_missing(room: Any) -> None:
    room.says(["A"])
    one, _ = await room.ask("One")
    two, _ = await room.ask("Two")
    with pytest.raises(Missing):
        await room.chat.change(room.scope, one.conversation_id, head_id=two.message_id)
    with pytest.raises(Missing):
        await room.chat.ask(room.scope, Ask("x", conversation_id=one.conversation_id, parent_id=two.message_id))
    with pytest.raises(Missing):
        await room.chat.regenerate(room.scope, one.conversation_id, two.message_id)


@pytest.mark.both
async def test_pages_of_the_list_hold_each_conversation_once(room: Any) -> None:
    ids = [(await room.chat.create(room.scope, f"Title {number}")).id for number in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        items, cursor = await room.chat.list(room.scope, limit=3, cursor=cursor)
        seen += [item.id for item in items]
        if cursor is None:
            break
    assert seen == ids[::-1]
    for bad in ("nonsense", "====", "YWJj"):
        with pytest.raises(Invalid):
            await room.chat.list(room.scope, cursor=bad)
    with pytest.raises(Invalid):
        await room.chat.list(room.scope, limit=0)


@pytest.mark.both
async def test_search_finds_titles_and_messages_with_a_snippet(room: Any) -> None:
    room.says(["The river Danube rises in the Black Forest, and " + "on it flows " * 40], ["Äpfel sind 100%_rot."])
    danube, _ = await room.ask("Where does it rise?")
    apples, _ = await room.ask("Colour?")

    async def found(q: str) -> list[str]:
        return [item.id for item in (await room.chat.list(room.scope, q=q))[0]]

    assert await found("danube") == await found("forest BLACK") == [danube.conversation_id]
    assert await found("colour") == await found("äpfel") == await found("100%_rot") == [apples.conversation_id]
    assert await found("0%r") == await found("danube apfel") == []
    [item] = (await room.chat.list(room.scope, q="flows"))[0]
    assert item.snippet is not None
    assert "flows" in item.snippet
    assert len(item.snippet) < 250
    assert (await room.chat.list(room.scope))[0][0].snippet is None


async def test_renaming_and_deleting(room: Any) -> None:
    room.says(["A"])
    started, _ = await room.ask("Q")
    assert (await room.chat.change(room.scope, started.conversation_id, title="  New\n name ")).title == "New name"
    for bad in ("", " ", "x" * 201):
        with pytest.raises(Invalid):
            await room.chat.change(room.scope, started.conversation_id, title=bad)
    await room.chat.delete(room.scope, started.conversation_id)
    assert (await room.chat.list(room.scope))[0] == []
    with pytest.raises(Missing):
        await room.chat.delete(room.scope, started.conversation_id)


async def test_an_empty_conversation_takes_its_title_from_the_first_question(room: Any) -> None:
    room.says(["A"])
    blank = await room.chat.create(room.scope)
    named = await room.chat.create(room.scope, "Mine")
    await room.ask("What is it?", conversation_id=blank.id)
    await room.ask("What is it?", conversation_id=named.id)
    assert {item.id: item.title for item in (await room.chat.list(room.scope))[0]} == {
        blank.id: "What is it?", named.id: "Mine",
    }  # fmt: skip


async def test_export_gives_the_visible_branch_or_everything(room: Any) -> None:
    room.shelf.put("The cat sat on the mat.")
    room.says(['It "sat on the mat" [1].'], ["Other."])
    started, _ = await room.ask("Where?")
    await room.ask("Elsewhere?", conversation_id=started.conversation_id, parent_id=started.user_message_id)
    await room.chat.change(room.scope, started.conversation_id, head_id=started.message_id)
    title, markdown = await room.chat.export(room.scope, started.conversation_id, "md")
    assert title == "Where?"
    assert '## You\n\nWhere?\n\n## Answer (fake/echo)\n\nIt "sat on the mat" [1].' in markdown
    assert "- [1] file1.pdf, page 2: “sat on the mat”" in markdown
    assert "Elsewhere?" not in markdown
    _, text = await room.chat.export(room.scope, started.conversation_id, "json")
    assert len(json.loads(text)["messages"]) == 4
    with pytest.raises(Invalid):
        await room.chat.export(room.scope, started.conversation_id, "pdf")


async def test_a_full_conversation_takes_no_more(room: Any) -> None:
    conversation = await room.chat.create(room.scope)

    def fill(session: Any) -> None:
        for _ in range(store.MAX_MESSAGES - 1):
            store.add(session, room.scope, conversation.id, None, "user", content="x", state="complete")

    limit = store.MAX_MESSAGES
    assert limit >= 1000
    await room.database.write(fill)
    with pytest.raises(Conflict) as caught:
        await room.chat.ask(room.scope, Ask("one more", conversation_id=conversation.id))
    assert caught.value.code == "conversation_full"
    assert (await room.chat.get(room.scope, conversation.id))[0].messages == limit - 1


@settings(deadline=None)
@given(st.text(min_size=1, max_size=400).filter(lambda text: text.strip()))
def test_a_title_is_one_short_line(text: str) -> None:
    title = _first_words(text.strip())
    assert 0 < len(title) <= TITLE_CHARS
    assert "\n" not in title


def test_a_title_is_cut_at_a_word() -> None:
    assert _first_words("What did the annual report of the year before last say about the costs of travel?") == (
        "What did the annual report of the year before last say…"
    )
