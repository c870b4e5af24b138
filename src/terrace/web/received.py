"""From a multipart body to the knowledge room, file by file as the bytes arrive."""

from collections.abc import AsyncIterator, Sequence

from fastapi import Request

from terrace.errors import Invalid
from terrace.knowledge.base import Document
from terrace.knowledge.service import Knowledge, Labels
from terrace.knowledge.views import BatchItem
from terrace.types import Scope
from terrace.web.uploads import parts


async def receive_one(knowledge: Knowledge, scope: Scope, request: Request) -> tuple[Document, str | None]:
    """The one file of the body. Raises Invalid when there is none, or another."""
    labels = Labels()
    files = _files(request, labels)
    async for name, stream in files:
        taken = await knowledge.receive(scope, name, stream)
        async with knowledge.kept_on_success(taken):
            if await anext(files, None) is not None:
                raise Invalid("This takes one file; send more to /api/documents/batch-upload.", code="one_file_only")
            return await knowledge.admit(scope, taken, labels)
    raise Invalid("There is no file in the upload. Send one as the field `file`.", code="file_missing")


async def receive_batch(knowledge: Knowledge, scope: Scope, request: Request) -> tuple[str | None, Sequence[BatchItem]]:
    labels = Labels()
    job_id, items = await knowledge.batch_upload(scope, _files(request, labels), labels)
    if not items:
        raise Invalid("There are no files in the upload. Send them as the field `files`.", code="file_missing")
    return job_id, items


async def _files(request: Request, labels: Labels) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Each file with its name; fields go into `labels`, before or after the files as the client sends them."""
    async for part in parts(request):
        if part.filename is not None:
            yield part.filename, aiter(part)
        elif part.name == "collection":
            labels.collection = (await part.text()).strip() or labels.collection
        elif part.name == "tags":
            labels.tags += [tag for tag in (await part.text()).split(",") if tag.strip()]
        elif part.name in ("file", "files"):
            raise Invalid(f"The field {part.name!r} holds no file. With curl it is -F {part.name}=@name, with the @.")
        else:
            raise Invalid(f"The field {part.name[:100]!r} is not known here; use file, collection and tags.")
