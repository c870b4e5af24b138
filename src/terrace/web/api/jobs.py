"""Jobs: anything that outlives a request, polled, streamed, cancelled, retried."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from terrace.accounts.base import Caller
from terrace.accounts.roles import FAMILIES, Permission
from terrace.errors import Denied, Invalid
from terrace.jobs.base import Job, JobKind, State
from terrace.web.access import Me, Who, resource
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.media import EVENTS, produces
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.api.watching import while_admitted
from terrace.web.services import House, Services
from terrace.web.stream import frame, job_stream, mapped, position, respond

ROOMS: dict[str, Permission] = {"analysis": "analyses", "campaign": "campaigns"}
"""What lets people begin the jobs whose kind begins so."""

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
    cursor: IdCursor = None,
) -> Page[Job]:
    """Newest first: one's own and those all share, with the permission `jobs:all` everybody's.

    What somebody else asked, and was answered, is left out: `payload` is empty and `result` null.
    """
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
    return Page(items=[told(house, me, each) for each in items], next=following)


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
    changes = while_admitted(house, me, house.jobs.changes(me.scope, everyone=sees_all(me)))
    return respond(mapped(changes, lambda job: frame("job", told(house, me, job))), house.drained)


@router.get("/{job_id}")
@short.get("/{job_id}/status")
async def get_job(house: House, me: Me, job_id: str) -> Job:
    """With its place in the queue and the expected wait while it is queued."""
    return told(house, me, await house.jobs.get(me.scope, job_id, everyone=sees_all(me)))


@router.get("/{job_id}/events", response_class=StreamingResponse, responses=produces(EVENTS))
async def job_events(house: House, me: Me, request: Request, job_id: str, render: str = "") -> StreamingResponse:
    """Server-sent events from the beginning, or from `Last-Event-ID`; `?render=html` adds the answer as HTML."""
    after, everyone = position(request), sees_all(me)
    if not may_read(house, me, await house.jobs.get(me.scope, job_id, everyone=everyone)):
        raise Denied(
            "You may see how this job does, stop it and repeat it; what it says is for whoever began it.",
            code="private_job",
        )
    events = while_admitted(house, me, house.jobs.events(me.scope, job_id, after, everyone=everyone))
    return job_stream(events, house.drained, render=render == "html")


@router.post("/{job_id}/cancel")
async def cancel_job(house: House, me: Me, job_id: str) -> Job:
    """Stop it and its children. One that is over stays as it is."""
    await check_steers(house, me, job_id)
    job = await house.jobs.cancel(me.scope, job_id, everyone=sees_all(me))
    await note(house, me, "job.cancelled", job)
    return told(house, me, job)


@router.post("/{job_id}/retry")
async def retry_job(house: House, me: Me, job_id: str) -> Job:
    """Put a failed or cancelled job back in the queue."""
    await check_steers(house, me, job_id)
    job = await house.jobs.retry(me.scope, job_id, everyone=sees_all(me))
    await note(house, me, "job.retried", job)
    return told(house, me, job)


@short.post("/process-document", status_code=202)
async def process_document(house: House, who: Who, body: ProcessDocument) -> Job:
    """Read a stored document again."""
    _, job_id = await house.knowledge.reprocess(who, body.document_id)
    return await house.jobs.get(who, job_id)


def sees_all(me: Caller) -> bool:
    """Everybody's jobs of the tenant."""
    return "jobs:all" in me.permissions


def may_read(house: Services, me: Caller, job: Job) -> bool:
    """What a job was given and what it says: who may do with what it is about where its kind is shared, else whom it
    belongs to (and their keys that may begin such). Whoever sits at this machine reads everything anyway."""
    kind = kind_of(house, job)
    if me.via in ("local", "terminal"):
        return True
    if kind.shared:
        permission = needed(kind)
        return bool(me.permissions & FAMILIES.get(permission.partition(":")[0], {permission}))
    return job.user == me.scope.user and (me.via != "key" or needed(kind) in me.permissions)


def told(house: Services, me: Caller, job: Job) -> Job:
    """Without what they may not read."""
    return job if may_read(house, me, job) else replace(job, payload={}, result=None)


async def check_steers(house: Services, me: Caller, job_id: str) -> None:
    """That they may stop and repeat it: everybody's with `jobs:all`; else what they could begin again themselves.

    Raises Missing, Denied.
    """
    if sees_all(me):
        return
    job = await house.jobs.get(me.scope, job_id)
    permission = needed(kind_of(house, job))
    if permission not in me.permissions:
        raise Denied(
            f"Stopping and repeating this job needs the permission `{permission}`.",
            code="not_permitted",
            permission=permission,
        )


async def note(house: Services, me: Caller, action: str, job: Job) -> None:
    """What somebody did to another's job, as only `jobs:all` lets them, stands in the audit log."""
    if job.user != me.scope.user and not kind_of(house, job).shared:
        await house.audit.note(me, action, job.id)


def kind_of(house: Services, job: Job) -> JobKind:
    try:
        return house.jobs.kind(job.kind)
    except Invalid:  # an older version made it: take it for somebody's own
        return JobKind(job.kind, None)


def needed(kind: JobKind) -> Permission:
    """What lets people begin such jobs: public ones by POST /api/jobs, those of a room in that room, other shared ones
    by uploading, and all others by asking."""
    if kind.public:
        return "operator"
    return ROOMS.get(kind.name.partition(".")[0]) or ("documents:write" if kind.shared else "chat")
