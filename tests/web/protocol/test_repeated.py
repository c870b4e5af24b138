"""Heads that come again on a connection are read as on any other, however they vary."""

import asyncio
import json
from random import Random
from typing import Any

import pytest

from terrace.web.repeated import Head
from tests.web.protocol.wire import GET, HOST, Server, Wire, problem_in

KEY = HOST + b"Authorization: Bearer a\r\nContent-Length: %d\r\n\r\n%b"
HEADS = (
    KEY,
    KEY.replace(b"Bearer a", b"Bearer b"),
    KEY.replace(b"/x", b"/y?q=1"),
    KEY.replace(b"POST", b"PUT"),
    KEY.replace(b"Content-Length: ", b"content-length:"),
    KEY.replace(b"Host", b"X-Length: Content-Length\r\nHost"),
    HOST + b"Content-Length: %d\r\nAccept: */*\r\nX-Last: 7\r\n\r\n%b",
)


async def seen_by(wire: Wire) -> dict[str, Any]:
    status, _, body = await wire.answer()
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_a_connection_with_many_requests_reads_each_as_a_new_one_does(server: Server, seed: int) -> None:
    random = Random(seed)
    wire = await server.connect()
    head = HEADS[0]
    for _ in range(60):
        if random.random() < 0.3:
            head = random.choice(HEADS)
        request = head % (size := random.choice((0, 1, 3, 12, 4000)), random.randbytes(size))
        requests = [request] * random.choice((1, 1, 1, 2))
        whole = b"".join(requests)
        cut = random.choice((len(whole), random.randrange(len(whole))))
        wire.send(whole[:cut])
        if cut < len(whole):
            await asyncio.sleep(0.001)
            wire.send(whole[cut:])
        other = await server.connect()
        other.send(request)
        expected = await seen_by(other)
        assert expected["length"] == size
        for _ in requests:
            assert await seen_by(wire) == expected
        await other.close()
    await wire.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: 99999999999999999999\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 5\n\nhello",
    ],
)
async def test_what_is_refused_at_first_is_refused_later(server: Server, sent: bytes) -> None:
    wire = await server.connect()
    for _ in range(3):
        wire.send(HOST + b"Content-Length: 5\r\n\r\nhello")
        assert (await seen_by(wire))["body"] == "hello"
    wire.send(HOST + sent)
    assert problem_in(await wire.rest())[0] == 400
    await wire.close()


async def test_the_last_request_is_the_last_and_an_answer_to_head_has_no_body(server: Server) -> None:
    wire = await server.connect()
    for _ in range(3):
        wire.send(KEY.replace(b"POST", b"HEAD") % (2, b"{}"))
        assert (await wire.head()).startswith(b"HTTP/1.1 200 OK")
    wire.send(KEY % (2, b"{}"))
    await seen_by(wire)
    wire.send(KEY.replace(b"Host", b"Connection: close\r\nHost") % (2, b"{}"))
    await seen_by(wire)
    assert await wire.rest() == b""
    await wire.close()


def scope(headers: list[tuple[bytes, bytes]], method: str = "POST") -> dict[str, Any]:
    return {"method": method, "headers": headers, "terrace.headers": dict(headers), "terrace.exchange": object()}


def test_only_a_plain_head_is_learnt() -> None:
    length = (b"content-length", b"2")
    plain = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    head = Head.learnt(plain, scope([length]))
    assert head is not None
    assert head.parted(plain) == (b"2", b"{}")
    assert head.parted(plain + b"P") is None  # the next request
    assert head.parted(plain[:-1]) is None  # more is to come
    assert Head.learnt(GET, scope([(b"host", b"localhost")], "GET")) is None
    assert Head.learnt(b"\r\n" + plain, scope([length])) is None
    assert Head.learnt(plain, scope([length, (b"x", b"y")])) is None
    assert Head.learnt(plain.replace(b"\r\n\r\n", b"\n\n\r\n\r\n"), scope([length])) is None
    other = (b"transfer-encoding", b"chunked")
    chunked = b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"
    assert Head.learnt(chunked, scope([length, other])) is None
