"""Documents: uploaded, followed, read, tagged, read again, deleted."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response, StreamingResponse

from terrace.knowledge.base import Document, DocumentState
from terrace.knowledge.views import BatchItem, StoredChunk, TextSlice
from terrace.web.access import Who, resource
from terrace.web.api.media import ELSEWHERE, elsewhere, produces
from terrace.web.api.pages import IdCursor, Limit, NumberCursor, Page
from terrace.web.received import receive_batch, receive_one
from terrace.web.services import House

router = resource(prefix="/documents", tags=["documents"])
short = resource(prefix="/documents")

UPLOAD_BYTES = 1 << 40  # each file has its own bound, checked while it arrives
FILE_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "collection": {"type": "string", "description": "Name or id; `default` when absent."},
                        "tags": {"type": "string", "description": "Separated by commas, or repeated."},
                    },
                }
            }
        },
    }
}
FILES_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "Files, or zips of files.",
                        },
                        "collection": {"type": "string"},
                        "tags": {"type": "string"},
                    },
                }
            }
        },
    }
}


class Uploaded(BaseModel):
    document: Document
    job_id: str | None


class Batch(BaseModel):
    job_id: str | None
    documents: list[BatchItem]


class DocumentChange(BaseModel):
    name: str | None = Field(None, min_length=1, max_length=255)
    collection: str | None = Field(None, min_length=1, max_length=200)
    tags: list[str] | None = Field(None, max_length=100)


Start = Annotated[int | None, Query(ge=0, description="First character of the span.")]
End = Annotated[int | None, Query(ge=0, description="Character after the span.")]
Width = Annotated[int, Query(ge=50, le=4000, description="Pixels across.")]


@router.post(
    "/upload",
    status_code=202,
    responses={200: {"model": Uploaded}},
    openapi_extra=FILE_FORM,
    max_body_size=UPLOAD_BYTES,
)
@short.post("/upload", status_code=202, max_body_size=UPLOAD_BYTES)
async def upload(house: House, who: Who, request: Request, response: Response) -> Uploaded:
    """One file. 202 with the job that reads it; 200 when this very file is already in the collection."""
    document, job_id = await receive_one(house.knowledge, who, request)
    response.status_code = 200 if document.duplicate else 202
    return Uploaded(document=document, job_id=job_id)


@router.post("/batch-upload", status_code=202, openapi_extra=FILES_FORM, max_body_size=UPLOAD_BYTES)
@short.post("/batch-upload", status_code=202, max_body_size=UPLOAD_BYTES)
async def batch_upload(house: House, who: Who, request: Request) -> Batch:
    """Many files, or a zip: one parent job, a child for each file; a bad file is told and stops no other."""
    job_id, items = await receive_batch(house.knowledge, who, request)
    return Batch(job_id=job_id, documents=list(items))


@router.get("")
@short.get("/list")
async def list_documents(
    house: House,
    who: Who,
    collection: Annotated[str | None, Query(max_length=200)] = None,
    tag: Annotated[str | None, Query(max_length=100)] = None,
    state: DocumentState | None = None,
    q: Annotated[str, Query(max_length=200, description="Part of a name or title.")] = "",
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[Document]:
    """Newest first."""
    items, following = await house.knowledge.list(
        who, collection=collection, tag=tag, state=state, q=q, limit=limit, cursor=cursor
    )
    return Page(items=items, next=following)


@router.get("/{document_id}")
async def get_document(house: House, who: Who, document_id: str) -> Document:
    return await house.knowledge.get(who, document_id)


@router.patch("/{document_id}")
async def change_document(house: House, who: Who, document_id: str, body: DocumentChange) -> Document:
    """Rename it, tag it, move it."""
    return await house.knowledge.update(who, document_id, name=body.name, tags=body.tags, collection=body.collection)


@router.delete("/{document_id}", status_code=204)
@short.delete("/{document_id}", status_code=204)
async def delete_document(house: House, who: Who, document_id: str) -> None:
    """With its chunks, vectors and original; a job reading it is stopped."""
    await house.knowledge.delete(who, document_id)


@router.post("/{document_id}/reprocess", status_code=202)
async def reprocess(house: House, who: Who, document_id: str) -> Uploaded:
    """Read it again; what is there answers meanwhile."""
    document, job_id = await house.knowledge.reprocess(who, document_id)
    return Uploaded(document=document, job_id=job_id)


@router.get("/{document_id}/original", response_class=StreamingResponse, responses=produces("*/*") | ELSEWHERE)
async def original(house: House, who: Who, document_id: str) -> Response:
    """The file as it was uploaded, or where to fetch it (307)."""
    if link := await house.knowledge.original_link(who, document_id):
        return elsewhere(link)
    document, stream = await house.knowledge.original(who, document_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(document.name)}",
        "Content-Length": str(document.bytes),
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    return StreamingResponse(stream, media_type=document.media_type, headers=headers)


@router.get("/{document_id}/text")
async def text(house: House, who: Who, document_id: str, start: Start = 0, end: End = None) -> TextSlice:
    """The text that was read from it; spans count its characters."""
    return await house.knowledge.text(who, document_id, start or 0, end)


@router.get("/{document_id}/chunks")
async def chunks(
    house: House, who: Who, document_id: str, limit: Limit = 50, cursor: NumberCursor = None
) -> Page[StoredChunk]:
    """The passages it was cut into, in the order of the text."""
    items, following = await house.knowledge.chunks(who, document_id, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.get("/{document_id}/pages")
async def pages(house: House, who: Who, document_id: str) -> list[dict[str, int]]:
    """Each page's number and span of the text."""
    found = await house.knowledge.pages(who, document_id)
    return [{"number": page.number, "start": page.span.start, "end": page.span.end} for page in found]


@router.get("/{document_id}/pages/{number}.png", response_class=Response, responses=produces("image/png"))
async def page_image(
    house: House,
    who: Who,
    document_id: str,
    number: int,
    start: Start = None,
    end: End = None,
    width: Width = 1200,
) -> Response:
    """A page of a PDF as a picture, the span marked."""
    image = await house.knowledge.page_image(who, document_id, number, start=start, end=end, width=width)
    return Response(image, media_type="image/png", headers={"Cache-Control": "private, max-age=300"})


@router.get("/{document_id}/pages/{number}/marks")
async def page_marks(house: House, who: Who, document_id: str, number: int, start: int, end: int) -> JSONResponse:
    """Where the span stands on the page: boxes in fractions of its width and height, from the top left."""
    return JSONResponse(await house.knowledge.page_marks(who, document_id, number, start=start, end=end))
