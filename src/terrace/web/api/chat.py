"""Ask, and get an answer with its sources: whole, or streamed as it is written."""

from datetime import datetime
from typing import Any

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from terrace.chat.service import Ask
from terrace.jobs.base import Job
from terrace.web.access import Me, resource
from terrace.web.answers import whole
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.media import EVENTS, produces
from terrace.web.api.pages import Names
from terrace.web.api.watching import while_admitted
from terrace.web.services import House
from terrace.web.stream import job_stream, wants_stream

router = resource(tags=["chat"])
short = resource()


class Question(BaseModel):
    message: str = Field(min_length=1)
    use_rag: bool | None = Field(None, description="Answer from documents; by default when there are any.")
    model: str | None = Field(None, max_length=300)
    conversation_id: str | None = Field(None, max_length=64)
    parent_id: str | None = Field(None, max_length=64, description="The message to answer after: edit and branch.")
    collections: Names = []
    tags: Names = []
    passages: int | None = Field(None, ge=1, le=50)
    cache: bool = Field(False, description="Take an answer given before to the same question over the same documents.")
    stream: bool = False

    def ask(self, key: str | None) -> Ask:
        return Ask(
            key=key,
            message=self.message,
            use_rag=self.use_rag,
            model=self.model,
            conversation_id=self.conversation_id,
            parent_id=self.parent_id,
            collections=tuple(self.collections),
            tags=tuple(self.tags),
            passages=self.passages,
            cache=self.cache or None,
        )


class Answer(BaseModel):
    response: str
    sources: list[dict[str, Any]]
    conversation_id: str
    message_id: str
    user_message_id: str
    job_id: str
    model: str
    usage: dict[str, Any]
    cached: bool = Field(False, description="Given before; nothing was asked and nothing used.")
    cached_at: datetime | None = Field(None, description="When it was written then.")


@router.post("/chat", response_model=Answer, responses=produces(EVENTS))
@short.post("/chat", response_model=Answer)
async def chat(
    house: House, me: Me, request: Request, body: Question, idempotency_key: IdempotencyKey = None
) -> Response | Answer:
    """The answer with its checked sources, or with `stream` its events. It goes on if the client leaves.

    `X-Job-Id` of a stream names the job, whose events can be followed again should the stream be cut.
    """
    who = me.scope
    started = await house.chat.ask(who, body.ask(idempotency_key))
    if body.stream or wants_stream(request):
        events = while_admitted(house, me, house.jobs.events(who, started.job_id))
        stream = job_stream(events, house.drained, render="render=html" in request.url.query)
        stream.headers["X-Job-Id"] = started.job_id
        return stream
    return _answer(whole(await house.jobs.wait(who, started.job_id)))


def _answer(job: Job) -> Answer:
    return Answer.model_validate({**(job.result or {}), "job_id": job.id})
