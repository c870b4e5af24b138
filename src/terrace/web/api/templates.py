"""Templates of campaigns: texts with places for what is known of a contact. Each change is a new version."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from terrace.campaigns.templates.coverage import Placeholder
from terrace.campaigns.templates.drafts import Draft, Mode, problems
from terrace.campaigns.templates.language import MAX_CHARS, Problem
from terrace.campaigns.templates.service import StoredTemplate, TemplateVersion
from terrace.types import Scope
from terrace.web.access import Who, resource
from terrace.web.api.fields import Name
from terrace.web.api.pages import IdCursor, Limit, NumberCursor, Page
from terrace.web.services import House, Services

router = resource(prefix="/templates", tags=["campaigns"])

Body = Annotated[str, Field(max_length=MAX_CHARS, examples=["Thank {{contact.name}} for {{contact.order}}."])]
System = Annotated[str, Field(max_length=20_000, description="Further instructions for the model.")]
Query_ = Annotated[
    str,
    Field(
        max_length=2_000,
        examples=["{{contact.product}} warranty"],
        description="What `{{knowledge}}` looks for: a small template of the contact's fields.",
    ),
]


class Text(BaseModel):
    body: Body
    mode: Mode = Field("write", description="write: the body is a prompt for a model; fill: it is the message itself.")
    system: System = ""
    knowledge_query: Query_ = ""


class NewTemplate(Text):
    name: Name


class TemplateChange(BaseModel):
    """What is left out stays. A changed text is a new version; campaigns keep the one they have pinned."""

    name: Name | None = None
    body: Body | None = None
    mode: Mode | None = None
    system: System | None = None
    knowledge_query: Query_ | None = None


class TemplateCheck(Text):
    list_id: str | None = Field(None, max_length=200, description="A list, by id or name, whose contacts are checked.")


class Checked(BaseModel):
    """`ok`: it can be kept, and every contact of the list has what it asks for."""

    ok: bool
    problems: list[Problem]
    contacts: int | None = None
    placeholders: list[Placeholder] = Field(default_factory=list)


@router.get("")
async def list_templates(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[StoredTemplate]:
    """Newest first, each at its newest version."""
    items, following = await house.templates.list(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_template(house: House, who: Who, body: NewTemplate) -> StoredTemplate:
    return await house.templates.create(who, body.name, draft_of(body))


@router.post("/check")
async def check_template(house: House, who: Who, body: TemplateCheck) -> Checked:
    """What is wrong with a text, by line and column, and which contacts of a list lack what it asks for."""
    return await checked(house, who, body)


@router.get("/{template_id}")
async def get_template(
    house: House, who: Who, template_id: str, version: Annotated[int | None, Query(ge=1, le=1_000_000)] = None
) -> StoredTemplate:
    return await house.templates.get(who, template_id, version)


@router.patch("/{template_id}")
async def change_template(house: House, who: Who, template_id: str, body: TemplateChange) -> StoredTemplate:
    changes: dict[str, Any] = body.model_dump(exclude_none=True)
    return await house.templates.change(who, template_id, changes.pop("name", None), changes)


@router.delete("/{template_id}", status_code=204)
async def delete_template(house: House, who: Who, template_id: str) -> None:
    """Campaigns that have pinned a version keep it."""
    await house.templates.delete(who, template_id)


@router.get("/{template_id}/versions")
async def list_versions(
    house: House, who: Who, template_id: str, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[TemplateVersion]:
    """Newest first."""
    items, following = await house.templates.versions(who, template_id, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


def draft_of(body: Text) -> Draft:
    return Draft(body.body, body.mode, body.system, body.knowledge_query)


async def checked(house: Services, who: Scope, body: TemplateCheck) -> Checked:
    draft = draft_of(body)
    found = problems(draft)
    if found or body.list_id is None:
        return Checked(ok=not found, problems=found)
    coverage = await house.campaigns.draft_coverage(who, draft, body.list_id)
    return Checked(ok=not coverage.missing, problems=[], **asdict(coverage))
