"""The input file: one request a line, read as it streams, checked before any is made."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import msgspec

from terrace.batches.base import LineError
from terrace.errors import Invalid
from terrace.settings import MB
from terrace.storage import Blobs

MAX_LINE_BYTES = 16 * MB
MAX_ID_CHARS = 512
MAX_ERRORS = 100  # told of one file
BAD_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Line(msgspec.Struct):
    custom_id: str | None = None
    method: str | None = None
    url: str | None = None
    body: msgspec.Raw = msgspec.Raw(b"")


class _Body(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A request of a file that was checked."""

    number: int  # in the file, from 1
    custom_id: str
    body: bytes


@dataclass(slots=True)
class Checked:
    """What a file holds, or why it is refused."""

    count: int = 0
    models: set[str | None] = field(default_factory=set)
    errors: list[LineError] = field(default_factory=list)

    @property
    def model(self) -> str | None:
        """The one that all requests name."""
        return next(iter(self.models)) if len(self.models) == 1 else None


async def requests(blobs: Blobs, key: str) -> AsyncIterator[Line]:
    """Those of a file that `check` found good, in order."""
    async for number, text in _numbered(blobs, key):
        line = _decode(text)
        yield Line(number, line.custom_id or "", bytes(line.body))


async def check(blobs: Blobs, key: str, endpoint: str, most: int) -> Checked:
    """Every line; up to MAX_ERRORS of what is wrong."""
    checked = Checked()
    seen: set[str] = set()
    try:
        async for number, text in _numbered(blobs, key):
            checked.count += 1
            if checked.count > most:
                message = f"A batch has at most {most:,} requests. Split the file."
                checked.errors.append(LineError("too_many_requests", message, number))
                break
            if (error := _wrong(number, text, endpoint, seen, checked.models)) is not None:
                checked.errors.append(error)
                if len(checked.errors) == MAX_ERRORS:
                    break
    except _TooLong as error:
        message = f"A line has at most {MAX_LINE_BYTES // MB} MB."
        checked.errors.append(LineError("line_too_long", message, error.number))
    if not checked.count and not checked.errors:
        checked.errors.append(LineError("empty_file", "The input file holds no request."))
    return checked


class _TooLong(Invalid):
    def __init__(self, number: int) -> None:
        super().__init__(f"Line {number} is too long.", code="line_too_long")
        self.number = number


async def _numbered(blobs: Blobs, key: str) -> AsyncIterator[tuple[int, bytes]]:
    """Lines that aren't blank, with their numbers."""
    number, rest = 0, b""
    async for piece in blobs.stream(key):
        *whole, rest = (rest + piece).split(b"\n") if b"\n" in piece else [rest + piece]
        for text in whole:
            number += 1
            if text.strip():
                yield number, _bare(number, text)
        if len(rest) > MAX_LINE_BYTES:
            raise _TooLong(number + 1)
    if rest.strip():
        yield number + 1, _bare(number + 1, rest)


def _bare(number: int, text: bytes) -> bytes:
    """Without the mark of byte order that some editors put before the first line."""
    return text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text


def _decode(text: bytes) -> _Line:
    return msgspec.json.decode(text, type=_Line)


def _wrong(number: int, text: bytes, endpoint: str, seen: set[str], models: set[str | None]) -> LineError | None:
    """What is wrong with a line; a good one's id and model are remembered."""

    def error(code: str, message: str, param: str | None = None) -> LineError:
        return LineError(code, message, number, param)

    try:
        line = _decode(text)
    except msgspec.ValidationError as why:
        return error("invalid_request", f"A line is an object with custom_id, method, url and body: {why}.")
    except BAD_JSON as why:
        return error("invalid_json_line", f"This line is not valid JSON: {why}.")
    if not line.custom_id or len(line.custom_id) > MAX_ID_CHARS:
        return error("missing_required_parameter", f"custom_id has 1 to {MAX_ID_CHARS} characters.", "custom_id")
    if line.custom_id in seen:
        return error("duplicate_custom_id", f"The custom_id {line.custom_id!r} was used by a line before.", "custom_id")
    seen.add(line.custom_id)
    if line.method != "POST":
        return error("invalid_method", "method must be POST.", "method")
    if line.url != endpoint:
        return error("invalid_url", f"url must be the batch's endpoint, {endpoint}.", "url")
    if not bytes(line.body).startswith(b"{"):
        return error("missing_required_parameter", "body must be an object: the request itself.", "body")
    try:
        body = msgspec.json.decode(line.body, type=_Body)
    except BAD_JSON as why:
        return error("invalid_request", f"body is not a request: {why}.", "body")
    if body.stream:
        return error("invalid_request", "A batch cannot stream: leave stream out.", "body.stream")
    models.add(body.model)
    return None
