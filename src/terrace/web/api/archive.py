"""A tenant's export: one zip, made while it is sent."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import BinaryIO, cast
from urllib.parse import quote

import msgspec
from starlette.responses import StreamingResponse

from terrace.accounts.base import Caller
from terrace.types import Scope
from terrace.web.services import Exporter, Services

MEMBERS = 200  # read at a time


async def archive(house: Services, me: Caller, tenant_id: str) -> StreamingResponse:
    """Whoever makes it can read what is private to the tenant's people, so the audit log has it."""
    await house.audit.note(me, "tenant.exported", tenant_id, tenant=tenant_id)
    scope = Scope(tenant_id)
    name = quote(f"{scope.tenant}.zip")
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}", "Cache-Control": "no-store"}
    exporters: list[Exporter] = [partial(_people, house), *house.exporters]
    return StreamingResponse(_zipped(scope, exporters), media_type="application/zip", headers=headers)


async def _people(house: Services, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    yield "members.jsonl", _members(house, scope)


async def _members(house: Services, scope: Scope) -> AsyncIterator[bytes]:
    cursor: str | None = None
    while True:
        found, cursor = await house.people.members(scope, limit=MEMBERS, cursor=cursor)
        yield b"".join(msgspec.json.encode(each) + b"\n" for each in found)
        if cursor is None:
            return


def _inside(path: str) -> str:
    """As an archive may have it: whoever unpacks it with whatever tool gets files below the folder they chose."""
    parts = ["".join(each if each.isprintable() else "_" for each in part) for part in path.split("/")]
    return "/".join(f"{part}_" if part.strip(". ") == "" else part for part in parts)


class _Pipe:
    """What the zip writes, until it is sent."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, piece: bytes) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


async def _zipped(scope: Scope, exporters: Iterable[Exporter]) -> AsyncIterator[bytes]:
    pipe = _Pipe()
    with zipfile.ZipFile(cast(BinaryIO, pipe), "w", zipfile.ZIP_DEFLATED) as zip:
        for exporter in exporters:
            async for path, pieces in exporter(scope):
                with zip.open(_inside(path), "w", force_zip64=True) as member:
                    async for piece in pieces:
                        await asyncio.to_thread(member.write, piece)
                        if ready := pipe.take():
                            yield ready
    yield pipe.take()
