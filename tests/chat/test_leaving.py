"""What becomes the first person's, what goes with a person or a tenant, and what a tenant takes along."""

import json
from dataclasses import replace

import pytest
from sqlmodel import Session, col, func, select
from tests.chat.conftest import Room

from terrace.chat import leaving
from terrace.chat.base import Ask
from terrace.chat.questions import Questions
from terrace.chat.tables import MessageRow
from terrace.errors import Missing
from terrace.types import Scope


async def both(room: Room, scope: Scope, text: str) -> tuple[str, str]:
    """A conversation and a question of somebody."""
    room.scope = scope
    started, _ = await room.ask(text)
    asked = await Questions(room.database, room.chat).ask(scope, Ask(text))
    await room.jobs.wait(scope, asked.job_id, 20)
    return started.conversation_id, asked.id


async def test_the_first_person_adopts_what_was_nobodys(room: Room) -> None:
    mine = await both(room, Scope(), "Before accounts?")
    elsewhere = await both(room, Scope("acme"), "By a key of the terminal?")
    await room.database.write(leaving.adopt, "usr_ada")
    for each in mine:
        await room.chat.get(Scope("default", "usr_ada"), each)
        with pytest.raises(Missing):
            await room.chat.get(Scope(), each)
    for each in elsewhere:
        await room.chat.get(Scope("acme"), each)


@pytest.mark.both
async def test_a_person_goes_with_all_they_asked_in_every_tenant(room: Room, scope: Scope) -> None:
    gone = [(each, await both(room, each, "Mine?")) for each in (scope, replace(scope, tenant="globex"))]
    colleague = replace(scope, user="usr_eve")
    stays = await both(room, colleague, "Theirs?")
    await room.database.write(leaving.erase_user, "usr_ada")
    for whose, ids in gone:
        for each in ids:
            with pytest.raises(Missing):
                await room.chat.get(whose, each)
    for each in stays:
        _, messages = await room.chat.get(colleague, each)
        assert len(messages) == 2
    assert await room.database.read(_messages) == 4


async def test_a_tenant_goes_alone(room: Room, scope: Scope, other: Scope) -> None:
    await both(room, scope, "Ours?")
    stays = await both(room, other, "Theirs?")
    await room.database.write(leaving.erase_tenant, scope)
    assert await room.chat.list(scope) == ([], None)
    for each in stays:
        await room.chat.get(other, each)
    assert await room.database.read(_messages) == 4


async def test_an_export_holds_everybodys_of_the_tenant_and_nobody_elses(
    room: Room, scope: Scope, other: Scope
) -> None:
    ours = [*await both(room, scope, "Ours?"), *await both(room, replace(scope, user="usr_eve"), "Eve's?")]
    await both(room, other, "Theirs?")
    files = {path: [piece async for piece in pieces] async for path, pieces in leaving.export(room.database, scope)}
    lines = [json.loads(line) for line in b"".join(files["conversations.jsonl"]).splitlines()]
    assert {line["id"] for line in lines} == set(ours)
    assert {line["user_id"] for line in lines} == {scope.user, "usr_eve"}
    assert all([message["role"] for message in line["messages"]] == ["user", "assistant"] for line in lines)


def _messages(session: Session) -> int:
    return session.exec(select(func.count(col(MessageRow.id)))).one()
