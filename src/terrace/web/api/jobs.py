"""Jobs: anything that outlives a request, polled, streamed, cancelled, retried."""

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from terrace.accounts.base import Caller
from terrace.jobs.base import Job, State
from terrace.web.access import Me, Who, resource
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.media import EVENTS, produces
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.services import House
from terrace.web.stream import frame, job_stream, mapped, position, respond

router = resource(prefix="/jobs", tags=["jobs"])
short = resource(prefix="/jobs")


class NewJob(BaseModel):
    kind: str = Field(max_length=100, examples=["models.pull"])
    payload: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(0, ge=-100, le=100)
    delay: float = Field(0, ge=0, le=366 * 86400, description="Seconds before it may start.")


class ProcessDocument(BaseModel):
    document_id: str = Field(max_length=64)


@router.get("")
async def list_jobs(
    house: House,
    me: Me,
    state: State | None = None,
    kind: Annotated[str | None, Query(max_length=100)] = None,
    parent_id: Annotated[str | None, Query(max_length=64)] = None,
    dead: bool | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Job]:
    """Newest first: one's own and those all share, with the permission `jobs:all` everybody's."""
    items, following = await house.jobs.list(
        me.scope,
        everyone=sees_all(me),
        state=state,
        kind=kind,
        parent_id=parent_id,
        dead=dead,
        limit=limit,
        cursor=cursor,
    )
    return Page(items=items, next=following)


@router.post("", status_code=202)
async def create_job(house: House, who: Who, body: NewJob, idempotency_key: IdempotencyKey = None) -> Job:
    """Enqueue a job of a public kind."""
    job_id = await house.submit(
        who, body.kind, body.payload, priority=body.priority, delay=body.delay, idempotency_key=idempotency_key
    )
    return await house.jobs.get(who, job_id)


@router.get("/events", response_class=StreamingResponse, responses=produces(EVENTS))
async def watch_jobs(house: House, me: Me) -> StreamingResponse:
    """Server-sent events: every change of any job one sees, as `job` events."""
    return respond(
        mapped(house.jobs.changes(me.scope, everyone=sees_all(me)), lambda job: frame("job", job)), house.drained
    )


@router.get("/{job_id}")
@short.get("/{job_id}/status")
async def get_job(house: House, me: Me, job_id: str) -> Job:
    """With its place in the queue and the expected wait while it is queued."""
    return await house.jobs.get(me.scope, job_id, everyone=sees_all(me))


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=produces(EVENTS))
async def job_events(house: House, me: Me, request: Request, job_id: str, render: str = "") -> StreamingResponse:
    """Server-sent events from the beginning, or from `Last-Event-ID`; `?render=html` adds the answer as HTML."""
    after, everyone = position(request), sees_all(me)
    await house.jobs.get(me.scope, job_id, everyone=everyone)
    return job_stream(
        house.jobs.events(me.scope, job_id, after, everyone=everyone), house.drained, render=render == "html"
    )


@router.post("/{job_id}/cancel")
async def cancel_job(house: House, me: Me, job_id: str) -> Job:
    """Stop it and its children. One that is over stays as it is."""
    return await house.jobs.cancel(me.scope, job_id, everyone=sees_all(me))


@router.post("/{job_id}/retry")
async def retry_job(house: House, me: Me, job_id: str) -> Job:
    """Put a failed or cancelled job back in the queue."""
    return await house.jobs.retry(me.scope, job_id, everyone=sees_all(me))


@short.post("/process-document", status_code=202)
async def process_document(house: House, who: Who, body: ProcessDocument) -> Job:
    """Read a stored document again."""
    _, job_id = await house.knowledge.reprocess(who, body.document_id)
    return await house.jobs.get(who, job_id)


def sees_all(me: Caller) -> bool:
    """Everybody's jobs of the tenant."""
    return "jobs:all" in me.permissions
