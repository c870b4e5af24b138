"""Conversations: kept, searched, renamed, branched, exported, deleted."""

from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from terrace.web.access import Who, resource
from terrace.web.answers import shown
from terrace.web.api.media import produces
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.services import House

router = resource(prefix="/conversations", tags=["conversations"])

_TYPES = {"md": "text/markdown; charset=utf-8", "json": "application/json"}


class NewConversation(BaseModel):
    title: str = Field("", max_length=200)


class Change(BaseModel):
    title: str | None = Field(None, min_length=1, max_length=200)
    head_id: str | None = Field(None, max_length=64, description="The message the visible branch ends with.")


class Regenerate(BaseModel):
    message_id: str = Field(max_length=64)
    model: str | None = Field(None, max_length=300)


@router.get("")
async def list_conversations(
    house: House,
    who: Who,
    q: Annotated[str, Query(max_length=500, description="Words in titles and messages.")] = "",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[dict[str, Any]]:
    """Latest first; a search adds a snippet."""
    items, following = await house.chat.list(who, q=q, limit=limit, cursor=cursor)
    return Page(items=[asdict(item) for item in items], next=following)


@router.post("", status_code=201)
async def create_conversation(house: House, who: Who, body: NewConversation) -> dict[str, Any]:
    return asdict(await house.chat.create(who, body.title))


@router.get("/{conversation_id}")
async def get_conversation(house: House, who: Who, conversation_id: str) -> dict[str, Any]:
    """With every message of every branch; `head_id` ends the visible one."""
    conversation, messages = await house.chat.get(who, conversation_id)
    return {**asdict(conversation), "messages": [shown(message) for message in messages]}


@router.patch("/{conversation_id}")
async def change_conversation(house: House, who: Who, conversation_id: str, body: Change) -> dict[str, Any]:
    """Rename it, or show another branch."""
    return asdict(await house.chat.change(who, conversation_id, title=body.title, head_id=body.head_id))


@router.delete("/{conversation_id}", status_code=204)
async def delete_conversation(house: House, who: Who, conversation_id: str) -> None:
    """With all its messages; an answer being written is stopped."""
    await house.chat.delete(who, conversation_id)


@router.post("/{conversation_id}/regenerate", status_code=202)
async def regenerate(house: House, who: Who, conversation_id: str, body: Regenerate) -> dict[str, Any]:
    """Another answer beside this one."""
    return asdict(await house.chat.regenerate(who, conversation_id, body.message_id, model=body.model))


@router.get(
    "/{conversation_id}/export", response_class=Response, responses=produces("text/markdown", "application/json")
)
async def export(house: House, who: Who, conversation_id: str, format: Literal["md", "json"] = "md") -> Response:
    """The visible branch as Markdown, or everything as JSON."""
    name, content = await house.chat.export(who, conversation_id, format)
    disposition = f"attachment; filename*=UTF-8''{quote(f'{name}.{format}')}"
    return Response(content, media_type=_TYPES[format], headers={"Content-Disposition": disposition})
