"""A tenant's export: one zip, made while it is sent."""

import asyncio
import zipfile
from collections.abc import AsyncIterator, Iterable
from typing import BinaryIO, cast
from urllib.parse import quote

from starlette.responses import StreamingResponse

from terrace.types import Scope
from terrace.web.services import Exporter


def archive(name: str, scope: Scope, exporters: Iterable[Exporter]) -> StreamingResponse:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}", "Cache-Control": "no-store"}
    return StreamingResponse(_zipped(scope, exporters), media_type="application/zip", headers=headers)


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
                with zip.open(path, "w", force_zip64=True) as member:
                    async for piece in pieces:
                        await asyncio.to_thread(member.write, piece)
                        if ready := pipe.take():
                            yield ready
    yield pipe.take()
