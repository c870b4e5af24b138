"""Multipart bodies read as they arrive, so that an upload goes straight to disk and a limit stops it midway."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from terrace.errors import Invalid

MAX_FIELD_BYTES = 64 * 1024
MAX_PARTS = 10_000


class Part:
    """One field or file. Its bytes must be read (or skipped) before the next part is asked for."""

    def __init__(self, name: str, filename: str | None, more: Callable[[], Any]) -> None:
        self.name = name
        self.filename = filename
        self._more = more

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._more()) is not None:
            yield piece

    async def text(self) -> str:
        """A field's value. Raises Invalid past 64 KiB or when it isn't UTF-8."""
        value = b""
        async for piece in self:
            value += piece
            if len(value) > MAX_FIELD_BYTES:
                raise Invalid(f"The field {self.name!r} is longer than {MAX_FIELD_BYTES} bytes.", status=413)
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise Invalid(f"The field {self.name!r} is not UTF-8 text.") from error


class _Reader:
    """Feeds the push parser and hands out what it saw, in order: ('part', headers), ('data', bytes), ('end',)."""

    def __init__(self, request: Request, boundary: bytes) -> None:
        self._body = request.stream()
        self._seen: deque[tuple[str, Any]] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._field = self._value = b""
        self.finished = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._header_end,
                "on_headers_finished": lambda: self._seen.append(("part", self._headers)),
                "on_part_data": lambda data, start, end: self._seen.append(("data", data[start:end])),
                "on_part_end": lambda: self._seen.append(("end", None)),
                "on_end": self._end,
            },
        )

    def _begin(self) -> None:
        self._headers = {}

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _end(self) -> None:
        self.finished = True

    async def next(self) -> tuple[str, Any] | None:
        while not self._seen:
            if self.finished:
                return None
            try:
                chunk = await anext(self._body)
                self._parser.write(chunk)
            except (StopAsyncIteration, MultipartParseError) as error:
                raise Invalid(
                    "The upload broke off or is not valid multipart/form-data. Try curl -F file=@name.",
                    code="bad_multipart",
                    status=400,
                ) from error
        return self._seen.popleft()

    async def data(self) -> bytes | None:
        event = await self.next()
        return event[1] if event is not None and event[0] == "data" else None


async def parts(request: Request) -> AsyncIterator[Part]:
    """The parts of a multipart/form-data body. Raises Invalid when it isn't one, or when it breaks off."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > 200:
        raise Invalid(
            "Send the file as multipart/form-data, with curl -F file=@name for example.",
            code="not_multipart",
            status=415,
        )
    reader = _Reader(request, boundary)
    count = 0
    while (event := await reader.next()) is not None:
        if event[0] != "part":
            continue  # what the caller did not read of the part before
        count += 1
        if count > MAX_PARTS:
            raise Invalid(f"The upload has more than {MAX_PARTS} parts.", code="too_many_parts", status=413)
        _, disposition = parse_options_header(event[1].get(b"content-disposition", b""))
        filename = disposition.get(b"filename")
        yield Part(
            disposition.get(b"name", b"").decode("utf-8", "replace"),
            filename.decode("utf-8", "replace") if filename is not None else None,
            reader.data,
        )
