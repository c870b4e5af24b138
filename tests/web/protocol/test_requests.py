"""Our HTTP/1.1, by raw sockets: what is taken, what is refused."""

import asyncio
import json
from typing import Any

import pytest

from terrace.web import protocol
from tests.web.protocol.wire import BEGIN, GET, HOST, Server, answer, body_of, problem_in, served

# What is taken


async def test_a_request_in_pieces_is_a_request(server: Server) -> None:
    wire = await server.connect()
    request = HOST + b"X-Name: value\r\nContent-Length: 5\r\n\r\nhello"
    for index in range(len(request)):
        wire.send(request[index : index + 1])
        await asyncio.sleep(0)
    status, headers, body = await wire.answer()
    seen = json.loads(body)
    assert (status, seen["method"], seen["path"], seen["body"]) == (200, "POST", "/x", "hello")
    assert ["x-name", "value"] in seen["headers"]
    assert "date" in headers
    assert seen["client"] == "127.0.0.1"
    await wire.close()


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_turn(server: Server) -> None:
    wire = await server.connect()
    wire.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(10)))
    for number in range(10):
        assert json.loads((await wire.answer())[2])["path"] == f"/{number}"
    wire.send(GET)
    assert (await wire.answer())[0] == 200
    await wire.close()


async def test_pipelined_bodies_stay_with_their_requests(server: Server) -> None:
    wire = await server.connect()
    for number in range(4):
        wire.send(HOST + b"Content-Length: 3\r\n\r\n%d%d%d" % (number, number, number))
        wire.send(HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\n%d\r\n0\r\n\r\n" % number)
    for number in range(4):
        assert json.loads((await wire.answer())[2])["body"] == str(number) * 3
        assert json.loads((await wire.answer())[2])["body"] == f"ab{number}"
    await wire.close()


async def test_percent_signs_queries_and_other_forms_of_the_address(server: Server) -> None:
    wire = await server.connect()
    for target, path, query in (
        (b"/a%20b?c=d%20e&f", "/a b", "c=d%20e&f"),
        (b"http://elsewhere/x?y", "/x", "y"),
        (b"/" + b"a" * 500, "/" + "a" * 500, ""),
    ):
        wire.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        seen = json.loads((await wire.answer())[2])
        assert (seen["path"], seen["query"]) == (path, query)
    await wire.close()


async def test_http_1_0_and_connection_close_end_the_connection(server: Server) -> None:
    for request in (b"GET / HTTP/1.0\r\n\r\n", GET[:-2] + b"Connection: close\r\n\r\n"):
        answer = await server.say(request + GET)  # whatever follows is not answered
        assert answer.count(b"HTTP/1.1 200 OK") == 1
        assert b"connection: close" in answer


async def test_whoever_waits_for_100_continue_gets_it(server: Server) -> None:
    wire = await server.connect()
    wire.send(HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await wire.exactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
    wire.send(b"hello")
    assert json.loads((await wire.answer())[2])["body"] == "hello"
    await wire.close()


async def test_an_upgrade_is_ignored_and_trailers_are_no_headers(server: Server) -> None:
    answer = await server.say(GET[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    wire = await server.connect()
    wire.send(HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Api-Key: sneaked\r\n\r\n")
    seen = json.loads((await wire.answer())[2])
    assert seen["body"] == "a"
    assert not [name for name, _ in seen["headers"] if name == "x-api-key"]
    await wire.close()


async def test_head_gets_no_body_and_an_answer_without_length_is_chunked() -> None:
    async def pieces(asgi: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"", b"two"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with served(pieces) as server:
        wire = await server.connect()
        wire.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert (await wire.answer())[2] == b""
        _, headers, _ = await wire.answer()
        assert headers["transfer-encoding"] == "chunked"
        assert await wire.exactly(22) == b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n"
        await wire.close()
        old = await server.say(b"GET / HTTP/1.0\r\n\r\n")
        assert old.endswith(b"\r\n\r\none two")
        assert b"transfer-encoding" not in old


# What is refused

REFUSED = {
    "both lengths": (HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "both lengths turned": (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "one length twice": (HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a list of lengths": (HOST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "a signed length": (HOST + b"Content-Length: +5\r\n\r\nhello", 400),
    "a huge length": (HOST + b"Content-Length: 99999999999999999999\r\n\r\nhello", 400),
    "a hidden coding": (HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "another coding": (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "two codings": (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400),
    "chunks in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "a chunk of no size": (HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    "a chunk size with a blank": (HOST + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400),
    "a folded header": (HOST + b"X: a\r\n b\r\n\r\n", 400),
    "a blank before the colon": (HOST + b"Content-Length : 5\r\n\r\nhello", 400),
    "lines ended by LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "a CR in a header": (b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
    "a NUL in a header": (b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two keys": (GET[:-2] + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "HTTP/2": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "no path": (b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a bad path": (b"GET /\xc3\xbc HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a tunnel": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a long address": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "many headers": (GET[:-2] + b"".join(b"X-%d: y\r\n" % number for number in range(101)) + b"\r\n", 431),
    "a long header": (GET[:-2] + b"X: " + b"y" * 66_000 + b"\r\n\r\n", 431),
    "a header without end": (GET[:-2] + b"X: " + b"y" * 66_000, 431),
    "a trailer without end": (HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 600_000, 431),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_could_be_read_in_two_ways_is_refused_and_ends_the_connection(server: Server, what: str) -> None:
    request, expected = REFUSED[what]
    answer = await server.say(request)
    status, said = problem_in(answer)
    assert status == expected, said
    assert len(BEGIN.findall(answer)) == 1


async def test_a_bad_request_after_good_ones_waits_for_their_answers(server: Server) -> None:
    answer = await server.say(GET + GET + b"nonsense\r\n\r\n" + GET)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert problem_in(answer)[0] == 400


async def test_more_requests_at_once_than_anybody_needs_are_refused() -> None:
    async def quick(asgi: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x")

    async with served(quick) as server:
        said = await server.say(GET * 100)
        assert said.count(b"HTTP/1.1 200 OK") == protocol.MAX_PIPELINED + 1
        assert problem_in(said)[1]["code"] == "too_many_pipelined"


async def test_what_has_no_end_leaves_the_application_without_a_body() -> None:
    seen: list[str] = []

    async def listening(asgi: Any, receive: Any, send: Any) -> None:
        seen.append("called")
        try:
            await body_of(receive)
        except ConnectionError:
            seen.append("gone")

    async with served(listening) as server:
        said = await server.say(HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n")
        assert problem_in(said)[0] == 400
        wire = await server.connect()
        wire.send(HOST + b"Content-Length: 10\r\n\r\nabc")
        async with asyncio.timeout(20):
            while seen.count("called") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            wire.reset()
            while seen.count("gone") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
