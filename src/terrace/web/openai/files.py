"""/v1/files: what OpenAI's SDKs do with `client.files`."""

from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.requests import Request as Body

from terrace.batches.base import File
from terrace.batches.files import MOST, Files, Received
from terrace.batches.store import Order
from terrace.errors import Invalid
from terrace.web.openai.kept import Routes, query, say, say_list, whole
from terrace.web.openai.request import ClientGone, Request
from terrace.web.uploads import parts

FIELDS = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})
ORDERS: dict[str, Order] = {"asc": "asc", "desc": "desc"}


class FilesDoor:
    def __init__(self, files: Files) -> None:
        self._files = files
        self.routes = Routes(
            "files",
            {"GET": self._list, "POST": self._create},
            {"GET": self._get, "DELETE": self._delete},
            {("GET", "content"): self._content},
        )

    async def _create(self, request: Request, _id: str) -> None:
        """Fields come before the file or after it."""
        told: dict[str, str] = {}
        received: list[tuple[str, Received]] = []
        try:
            async for part in parts(Body(request.asgi, request.receive)):
                if part.filename is None:
                    told[_known(part.name)] = await part.text()
                elif part.name != "file" or received:
                    raise Invalid("Send one file, as the field `file`.", code="invalid_parameter", param="file")
                else:
                    received.append((part.filename, await self._files.receive(request.owner, aiter(part))))
            if not received:
                raise Invalid("`file` is required: send it as multipart/form-data.", code="file_missing", param="file")
            expires_after = _seconds(told)
        except BaseException as error:
            for _, each in received:
                await self._files.drop(each)
            if isinstance(error, ClientDisconnect):
                raise ClientGone from None
            raise
        [(name, each)] = received
        file = await self._files.admit(request.owner, each, name, told.get("purpose", ""), expires_after)
        await say(request, shown(file))

    async def _list(self, request: Request, _id: str) -> None:
        asked = query(request)
        order = ORDERS.get(asked.get("order", "desc"))
        if order is None:
            raise Invalid("`order` must be asc or desc.", code="invalid_parameter", param="order")
        found, more = await self._files.list(
            request.owner,
            purpose=asked.get("purpose"),
            after=asked.get("after"),
            limit=whole(asked, "limit", MOST),
            order=order,
        )
        await say_list(request, [shown(each) for each in found], more)

    async def _get(self, request: Request, file_id: str) -> None:
        await say(request, shown(await self._files.get(request.owner, file_id)))

    async def _delete(self, request: Request, file_id: str) -> None:
        await self._files.delete(request.owner, file_id)
        await say(request, {"id": file_id, "object": "file", "deleted": True})

    async def _content(self, request: Request, file_id: str) -> None:
        if link := await self._files.link(request.owner, file_id):
            headers = [(b"location", link.encode()), (b"cache-control", b"no-store")]
            await request.answer(b"", status=307, headers=headers)
            return
        file, pieces = await self._files.content(request.owner, file_id)
        disposition = f"attachment; filename*=UTF-8''{quote(file.name)}"
        await request.download(pieces, file.bytes, disposition)


def shown(file: File) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _known(name: str) -> str:
    if name not in FIELDS:
        raise Invalid(f"The field `{name[:100]}` is not known here.", code="unknown_parameter", param=name[:100])
    return name


def _seconds(told: dict[str, str]) -> int | None:
    """How long the file is kept, if the sender says."""
    given = told.get("expires_after[seconds]")
    if told.get("expires_after[anchor]", "created_at") != "created_at" or (given is not None and not _number(given)):
        raise Invalid(
            "`expires_after` is an anchor, `created_at`, and seconds.", code="invalid_parameter", param="expires_after"
        )
    return None if given is None else int(given)


def _number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10
