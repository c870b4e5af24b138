"""Campaigns: one message for each contact of a list, previewed, started, followed, exported."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC
from typing import Annotated, Any, Literal

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from terrace.campaigns.runs.base import Campaign, Event, Message, MessageState, Options, Wanted
from terrace.errors import BY_KIND, Internal
from terrace.jobs.base import EventId, Job
from terrace.web.access import Me, Who, resource
from terrace.web.api.fields import Id, Name, Until
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.media import EVENTS, produces
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.api.watching import while_admitted
from terrace.web.services import House
from terrace.web.stream import frame, mapped, position, respond

router = resource(prefix="/campaigns", tags=["campaigns"])

PREVIEW_SECONDS = 120.0  # a preview is waited for

Model = Annotated[str, Field(min_length=1, max_length=300, examples=["openai/gpt-4o-mini"])]
Collection = Annotated[str, Field(max_length=200, description="Where `{{knowledge}}` looks; everywhere if empty.")]
Budget = Annotated[float, Field(ge=0, le=1_000_000, description="Dollars. Writing pauses before it is exceeded.")]
AtATime = Annotated[int, Field(ge=1, le=1000, description="Messages written at a time.")]
Address = Annotated[str, Field(max_length=2000, description="Told of each message and of the end, signed.")]
State = Annotated[MessageState | None, Query()]
Approved = Annotated[bool | None, Query(description="Only those approved, or only those that are not.")]


class Writing(BaseModel):
    """How messages are written. What is left out stays as it is, or as is usual."""

    max_tokens: int | None = Field(None, ge=16, le=32_768, description="The longest message; usually 1024.")
    temperature: float | None = Field(None, ge=0, le=2)
    marks: bool | None = Field(None, description="Keep the numbers of cited sources in the text.")
    incomplete: Literal["refuse", "skip"] | None = Field(
        None, description="Contacts that lack a value: the start is refused (as usual), or they are skipped."
    )


class NewCampaign(BaseModel):
    list_id: str = Field(min_length=1, max_length=200, description="Contacts: a list, by id or name.")
    template_id: str = Field(min_length=1, max_length=200, description="A template, by id or name.")
    template_version: int | None = Field(
        None, ge=1, le=1_000_000, description="The newest when left out; it is pinned."
    )
    name: str = Field("", max_length=200)
    model: Model | None = None
    options: Writing = Field(default_factory=Writing)
    collection: Collection | None = None
    budget: Budget | None = None
    concurrency: AtATime | None = None
    start_at: Until | None = Field(None, description="When it begins, once it was started.")
    webhook: Address | None = None


class CampaignChange(BaseModel):
    """What is left out stays. After the start: name, concurrency and budget."""

    list_id: Id | None = None
    template_id: Id | None = None
    template_version: int | None = Field(None, ge=1, le=1_000_000)
    name: Name | None = None
    model: Model | None = None
    options: Writing | None = None
    collection: Collection | None = None
    budget: Budget | None = None
    concurrency: AtATime | None = None
    start_at: Until | None = None
    webhook: Address | None = None


class Look(BaseModel):
    count: int = Field(5, ge=1, le=10, description="Messages to be written.")
    dry: bool = Field(False, description="Ask no model: show what it would be asked, and estimate by that.")


class Words(BaseModel):
    text: str = Field(min_length=1, max_length=150_000)


@router.get("")
async def list_campaigns(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[Campaign]:
    """Newest first."""
    items, following = await house.campaigns.list(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_campaign(
    house: House, who: Who, body: NewCampaign, idempotency_key: IdempotencyKey = None
) -> Campaign:
    """A draft: nothing is written before it is started."""
    return await house.campaigns.create(who, wanted(body), idempotency_key)


@router.get("/{campaign_id}")
async def get_campaign(house: House, who: Who, campaign_id: str) -> Campaign:
    return await house.campaigns.get(who, campaign_id)


@router.patch("/{campaign_id}")
async def change_campaign(house: House, who: Who, campaign_id: str, body: CampaignChange) -> Campaign:
    return await house.campaigns.change(who, campaign_id, changes(body))


@router.delete("/{campaign_id}", status_code=204)
async def delete_campaign(house: House, who: Who, campaign_id: str) -> None:
    """With its messages; one that runs is cancelled first."""
    await house.campaigns.delete(who, campaign_id)


@router.post("/{campaign_id}/preview")
async def preview(house: House, who: Who, campaign_id: str, body: Look) -> Campaign:
    """Write a few messages and say what the whole may cost: `preview` of the answer. They cost what they cost."""
    job_id = await house.campaigns.preview(who, campaign_id, count=body.count, dry=body.dry)
    campaign, job = await house.campaigns.previewed(who, campaign_id, job_id, PREVIEW_SECONDS)
    return succeeded(campaign, job)


@router.post("/{campaign_id}/start")
async def start(house: House, who: Who, campaign_id: str) -> Campaign:
    """Every placeholder is checked against every contact, then each gets their message. Again, it changes nothing."""
    return await house.campaigns.start(who, campaign_id)


@router.post("/{campaign_id}/pause")
async def pause(house: House, who: Who, campaign_id: str) -> Campaign:
    """What is being written is finished, nothing else begins."""
    return await house.campaigns.pause(who, campaign_id)


@router.post("/{campaign_id}/resume")
async def resume(house: House, who: Who, campaign_id: str) -> Campaign:
    return await house.campaigns.resume(who, campaign_id)


@router.post("/{campaign_id}/cancel")
async def cancel(house: House, who: Who, campaign_id: str) -> Campaign:
    """For good. What is written stays."""
    return await house.campaigns.cancel(who, campaign_id)


@router.post("/{campaign_id}/retry")
async def retry(house: House, who: Who, campaign_id: str) -> Campaign:
    """The failed messages again."""
    return await house.campaigns.retry(who, campaign_id)


@router.post("/{campaign_id}/approve")
async def approve_all(house: House, who: Who, campaign_id: str) -> Campaign:
    """Every message that is written."""
    return await house.campaigns.approve_all(who, campaign_id)


@router.get("/{campaign_id}/events", response_class=StreamingResponse, responses=produces(EVENTS))
async def campaign_events(house: House, me: Me, request: Request, campaign_id: str) -> StreamingResponse:
    """Server-sent events: `message` for each that ended, `progress`, `state`, and `done` at the end; from the
    beginning, or from `Last-Event-ID`."""
    at = position(request)
    await house.campaigns.get(me.scope, campaign_id)
    events = house.campaigns.events(me.scope, campaign_id, 0 if at is None else at.seq)
    return respond(mapped(while_admitted(house, me, events), framed), house.drained)


@router.get(
    "/{campaign_id}/export",
    response_class=StreamingResponse,
    responses=produces("text/csv", "application/x-ndjson"),
)
async def export_campaign(
    house: House,
    who: Who,
    campaign_id: str,
    format: Literal["csv", "jsonl"] = "csv",
    state: State = None,
    approved: Approved = None,
) -> StreamingResponse:
    """All messages, in the order of the contacts."""
    await house.campaigns.get(who, campaign_id)
    pieces = house.campaigns.export(who, campaign_id, format, state=state, approved=approved)
    media = "text/csv; charset=utf-8" if format == "csv" else "application/x-ndjson"
    headers = {"Content-Disposition": f'attachment; filename="{campaign_id}.{format}"', "Cache-Control": "no-store"}
    return StreamingResponse(closed(pieces), media_type=media, headers=headers)


@router.get("/{campaign_id}/messages")
async def list_messages(
    house: House,
    who: Who,
    campaign_id: str,
    state: State = None,
    approved: Approved = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[Message]:
    """In the order of the contacts."""
    items, following = await house.campaigns.messages(
        who, campaign_id, state=state, approved=approved, limit=limit, cursor=cursor
    )
    return Page(items=items, next=following)


@router.get("/{campaign_id}/messages/{message_id}")
async def get_message(house: House, who: Who, campaign_id: str, message_id: str) -> Message:
    return await house.campaigns.message(who, campaign_id, message_id)


@router.patch("/{campaign_id}/messages/{message_id}")
async def edit_message(house: House, who: Who, campaign_id: str, message_id: str, body: Words) -> Message:
    """Its text as you want it; an approval is taken back."""
    return await house.campaigns.edit(who, campaign_id, message_id, body.text)


@router.post("/{campaign_id}/messages/{message_id}/regenerate")
async def regenerate(house: House, who: Who, campaign_id: str, message_id: str) -> Message:
    """Write this one again; the text stays until there is another."""
    return await house.campaigns.regenerate(who, campaign_id, message_id)


@router.post("/{campaign_id}/messages/{message_id}/approve")
async def approve(house: House, who: Who, campaign_id: str, message_id: str) -> Message:
    return await house.campaigns.approve(who, campaign_id, message_id)


def wanted(body: NewCampaign) -> Wanted:
    return Wanted(
        list=body.list_id,
        template=body.template_id,
        version=body.template_version,
        name=body.name,
        model=body.model,
        options=Options(**body.options.model_dump(exclude_none=True)),
        collection=body.collection,
        budget=body.budget,
        concurrency=body.concurrency,
        start_at=None if body.start_at is None else seconds(body.start_at),
        webhook=body.webhook,
    )


NAMES = {"list_id": "list", "template_id": "template", "template_version": "version"}


def changes(body: CampaignChange) -> dict[str, Any]:
    given = body.model_dump(exclude_unset=True)
    told = {NAMES.get(name, name): value for name, value in given.items()}
    if told.get("options") is not None:
        told["options"] = {name: value for name, value in told["options"].items() if value is not None}
    if told.get("start_at") is not None:
        told["start_at"] = seconds(told["start_at"])
    removable = ("collection", "budget", "start_at", "webhook")
    return {name: value for name, value in told.items() if value is not None or name in removable}


def seconds(moment: Any) -> float:
    """Without a time zone it is UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    told: float = aware.timestamp()
    return told


def succeeded(campaign: Campaign, job: Job) -> Campaign:
    """Raises what ended the job otherwise."""
    if job.error is not None:
        raise BY_KIND.get(job.error.kind, Internal)(job.error.message, code=job.error.code, job_id=job.id)
    return campaign


def framed(event: Event) -> bytes:
    return frame(event.type, event.data, None if event.seq is None else EventId(1, event.seq))


async def closed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    generator: Any = pieces
    async with aclosing(generator):
        async for piece in generator:
            yield piece
