"""Multipart bodies, read as they arrive however they are cut."""

from collections.abc import AsyncIterator

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Invalid
from terrace.web.uploads import parts

BOUNDARY = "fence"


def request_of(pieces: list[bytes], content_type: str = f"multipart/form-data; boundary={BOUNDARY}") -> Request:
    left = list(pieces)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
    return Request(scope, receive)


def encode(fields: list[tuple[str, str | None, bytes]]) -> bytes:
    body = b""
    for name, filename, value in fields:
        named = f'; filename="{filename}"' if filename is not None else ""
        body += (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + value + b"\r\n"
        )
    return body + f"--{BOUNDARY}--\r\n".encode()


async def read(request: Request) -> list[tuple[str, str | None, bytes]]:
    async def join(pieces: AsyncIterator[bytes]) -> bytes:
        return b"".join([piece async for piece in pieces])

    return [(part.name, part.filename, await join(part.__aiter__())) async for part in parts(request)]


FIELDS = [("collection", None, b"reports"), ("file", "räport.txt", b"one\r\n--fenc\r\ntwo"), ("tags", None, b"a,b")]


@given(cuts=st.lists(st.integers(1, 400), max_size=30))
async def test_any_cut_gives_the_same_parts(cuts: list[int]) -> None:
    body, places = encode(FIELDS), sorted({0, *cuts})
    pieces = [body[start:end] for start, end in zip(places, [*places[1:], None], strict=True)]
    assert await read(request_of(pieces)) == FIELDS


async def test_a_part_may_be_left_unread() -> None:
    names = [part.name async for part in parts(request_of([encode(FIELDS)]))]
    assert names == ["collection", "file", "tags"]


@pytest.mark.parametrize("end", [10, 60, 120, -3])
async def test_a_body_that_breaks_off_is_refused(end: int) -> None:
    with pytest.raises(Invalid, match="broke off"):
        await read(request_of([encode(FIELDS)[:end]]))


@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data", "multipart/form-data; boundary=", ""]
)
async def test_what_is_no_multipart_is_told_how(content_type: str) -> None:
    with pytest.raises(Invalid, match="curl -F"):
        await read(request_of([b"{}"], content_type))


async def test_endless_headers_are_refused() -> None:
    body = f"--{BOUNDARY}\r\nX-Long: {'a' * 20_000}\r\n\r\n".encode()
    with pytest.raises(Invalid, match="broke off"):
        await read(request_of([body]))


async def test_a_long_field_is_refused() -> None:
    request = request_of([encode([("tags", None, b"a" * 70_000)])])
    part = await anext(aiter(parts(request)))
    with pytest.raises(Invalid, match="longer"):
        await part.text()
