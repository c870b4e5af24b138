"""Documents analysed: sent, followed, read, tried again, added to the documents. One's own alone."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from fastapi import Request
from pydantic import BaseModel, Field
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response, StreamingResponse

from terrace.analysis.base import Analysis, AnalysisState, Wish
from terrace.analysis.service import ID, Analyses, Saved
from terrace.analysis.types import TYPES
from terrace.errors import Conflict, Invalid
from terrace.types import Scope
from terrace.web import markdown
from terrace.web.access import Me, Who, resource
from terrace.web.api.documents import UPLOAD_BYTES, Uploaded
from terrace.web.api.headers import IdempotencyKey
from terrace.web.api.media import ELSEWHERE, EVENTS, elsewhere, produces
from terrace.web.api.pages import Cursor, Limit, Page
from terrace.web.api.watching import while_admitted
from terrace.web.services import House
from terrace.web.stream import job_stream, position
from terrace.web.uploads import Part, parts

_STRING = {"type": "string"}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "type": {"type": "string", "enum": list(TYPES), "description": "`free` when absent."},
                        "prompt": {**_STRING, "description": "What is asked; the type's own when absent."},
                        "schema": {**_STRING, "description": "A JSON schema, as text, of the fields to be filled."},
                        "model": {**_STRING, "description": "Which model looks at it."},
                        "webhook": {**_STRING, "description": "An address that is told when it is over."},
                    },
                }
            }
        },
    }
}
WORDS: dict[AnalysisState, str] = {
    "saving": "saving",
    "queued": "queued",
    "processing": "processing",
    "converted": "conversion complete",
    "answered": "api call done",
    "succeeded": "api call done",
    "failed": "failed",
    "cancelled": "failed",
}
"""What the short path calls each state."""


class _AnalysisId(Convertor[str]):
    """What the last route of all takes for a file's id, so that no other path is taken for one."""

    regex = ID

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("analysis", _AnalysisId())

router = resource(prefix="/analyses", tags=["analyses"])
short = resource()
last = resource()  # after all other routes


class Type(BaseModel):
    name: str
    title: str
    prompt: str
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class Types(BaseModel):
    items: list[Type]


class ToDocument(BaseModel):
    collection: str = Field("default", min_length=1, max_length=200)
    tags: list[str] = Field([], max_length=100)


@router.post("", status_code=202, openapi_extra=FORM, max_body_size=UPLOAD_BYTES)
async def analyse(house: House, who: Who, request: Request, idempotency_key: IdempotencyKey = None) -> Analysis:
    """One file. It is looked at page by page; poll it, follow its events, or be told at `webhook`."""
    return await _received(house.analyses, who, request, idempotency_key)


@short.post("/upload", status_code=202, max_body_size=UPLOAD_BYTES)
async def upload(house: House, who: Who, request: Request, idempotency_key: IdempotencyKey = None) -> dict[str, str]:
    """The same; the answer names the id to ask for."""
    return {"file_id": (await _received(house.analyses, who, request, idempotency_key)).id}


@last.get("/{file_id:analysis}")
async def state(house: House, who: Who, file_id: str) -> dict[str, Any]:
    """How far it is, and the result once it is there."""
    found = await house.analyses.get(who, file_id)
    told: dict[str, Any] = {"_id": found.id, "name": found.name, "status": WORDS[found.state], "result": found.result}
    return told if found.error is None else {**told, "error": found.error["message"]}


@router.get("")
async def list_analyses(
    house: House, who: Who, state: AnalysisState | None = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[Analysis]:
    """Newest first, without their results."""
    items, following = await house.analyses.list(who, state=state, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.get("/types")
async def types(_who: Who) -> Types:
    """The types there are, with what is asked and the fields that are filled."""
    return Types(
        items=[
            Type(
                name=each.name, title=each.title, prompt=each.prompt, schema=dict(each.schema) if each.schema else None
            )
            for each in TYPES.values()
        ]
    )


@router.get("/{analysis_id}")
async def get_analysis(house: House, who: Who, analysis_id: str, render: str = "") -> Analysis:
    """`?render=html` adds the result's markdown as HTML."""
    found = await house.analyses.get(who, analysis_id)
    if render != "html" or found.result is None:
        return found
    html = await asyncio.to_thread(markdown.render, found.result["markdown"], frozenset())
    return replace(found, result={**found.result, "html": html})


@router.delete("/{analysis_id}", status_code=204)
async def delete_analysis(house: House, who: Who, analysis_id: str) -> None:
    """With its file, pages and result; what works on it is stopped."""
    await house.analyses.delete(who, analysis_id)


@router.post("/{analysis_id}/retry", status_code=202)
async def retry(house: House, who: Who, analysis_id: str) -> Analysis:
    """Try a failed or cancelled one again; what was answered is not asked, or paid, again."""
    return await house.analyses.retry(who, analysis_id)


@router.post("/{analysis_id}/document", status_code=202)
async def to_document(house: House, who: Who, analysis_id: str, body: ToDocument | None = None) -> Uploaded:
    """Add the result's markdown to the documents, named after the file."""
    wanted = body or ToDocument()
    document, job_id = await house.analyses.to_document(
        who, analysis_id, collection=wanted.collection, tags=wanted.tags
    )
    return Uploaded(document=document, job_id=job_id)


@router.get("/{analysis_id}/events", response_class=StreamingResponse, responses=produces(EVENTS))
async def events(house: House, me: Me, request: Request, analysis_id: str) -> StreamingResponse:
    """Server-sent events from the beginning, or from `Last-Event-ID`: `analysis`, `page`, `progress`, `done`."""
    after = position(request)
    found = await house.analyses.get(me.scope, analysis_id)
    if found.job_id is None:
        raise Conflict("This file is still arriving.", code="not_saved_yet")
    followed = while_admitted(house, me, house.jobs.events(me.scope, found.job_id, after))
    return job_stream(followed, house.drained)


@router.get("/{analysis_id}/original", response_class=StreamingResponse, responses=produces("*/*") | ELSEWHERE)
async def original(house: House, who: Who, analysis_id: str) -> Response:
    """The file as it was sent, or where to fetch it (307)."""
    if link := await house.analyses.original_link(who, analysis_id):
        return elsewhere(link)
    found, stream = await house.analyses.original(who, analysis_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name)}",
        "Content-Length": str(found.bytes),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(stream, media_type=found.media_type, headers=headers)


@router.get("/{analysis_id}/pages/{number}.png", response_class=Response, responses=produces("image/png", "image/jpeg"))
async def page_image(house: House, who: Who, analysis_id: str, number: int) -> Response:
    """A page as the model was given it: a PNG or a JPEG, whichever is smaller."""
    image, media_type = await house.analyses.page_image(who, analysis_id, number)
    return Response(image, media_type=media_type, headers={"Cache-Control": "private, max-age=300"})


async def _received(analyses: Analyses, who: Scope, request: Request, key: str | None) -> Analysis:
    """The one file of the body; fields come before or after it, as the client sends them."""
    fields: dict[str, str] = {}
    files = _files(request, fields)
    async for name, stream in files:
        saved: Saved = await analyses.receive(who, name, stream)
        async with analyses.kept_on_success(who, saved):
            if await anext(files, None) is not None:
                raise Invalid("This takes one file; send each by itself.", code="one_file_only")
            return await analyses.start(who, saved, _wish(fields, key))
    raise Invalid("There is no file in the upload. Send one as the field `file`.", code="file_missing")


async def _files(request: Request, fields: dict[str, str]) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    async for part in parts(request):
        if part.filename is not None:
            yield part.filename, aiter(part)
        else:
            await _field(part, fields)


async def _field(part: Part, fields: dict[str, str]) -> None:
    if part.name == "file":
        raise Invalid("The field 'file' holds no file. With curl it is -F file=@name, with the @.")
    if part.name not in ("type", "prompt", "schema", "model", "webhook"):
        raise Invalid(
            f"The field {part.name[:100]!r} is not known here; use file, type, prompt, schema, model and webhook."
        )
    fields[part.name] = (await part.text()).strip()


def _wish(fields: dict[str, str], key: str | None) -> Wish:
    return Wish(
        type=fields.get("type") or "free",
        prompt=fields.get("prompt", ""),
        schema=_schema(fields.get("schema", "")),
        model=fields.get("model") or None,
        webhook=fields.get("webhook") or None,
        key=key,
    )


def _schema(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The schema is not JSON: {str(error)[:200]}.", code="bad_schema") from error
