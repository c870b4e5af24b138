"""Our HTTP/1.1, by raw sockets: what an application may do, slow clients, and the end."""

import asyncio
import socket
from math import inf
from typing import Any

import httpx
import pytest

from terrace.web import protocol
from tests.web.protocol.wire import GET, HOST, answer, body_of, connected, echo, problem_in, served, timed

# What an application may do


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
async def test_no_header_of_an_answer_can_begin_another(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def injecting(asgi: Any, receive: Any, send: Any) -> None:
        await answer(send, b"x", headers=[(b"x-given", value)])

    async with served(injecting) as server:
        said = await server.say(GET)
    assert said.startswith(b"HTTP/1.1 500 ")
    assert b"x-given" not in said
    assert "the application failed" in caplog.text


async def test_an_application_that_fails_is_a_500_or_a_cut_connection(caplog: pytest.LogCaptureFixture) -> None:
    async def failing(asgi: Any, receive: Any, send: Any) -> None:
        if asgi["path"] == "/silent":
            return
        if asgi["path"] != "/first":
            length = [(b"content-length", b"4")] if asgi["path"] == "/short" else []
            await send({"type": "http.response.start", "status": 200, "headers": length})
            await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        if asgi["path"] == "/short":
            await send({"type": "http.response.body", "body": b""})
        raise LookupError("a detail for the log alone")

    async with served(failing) as server:
        for path in (b"silent", b"first"):
            said = await server.say(b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert said.startswith(b"HTTP/1.1 500 ")
            assert b"detail" not in said
        for path in ("later", "short"):
            async with httpx.AsyncClient(verify=False) as client:
                with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                    await client.get(f"{server.url}/{path}")
    assert "a detail for the log alone" in caplog.text


async def test_an_early_answer_is_read_though_the_body_still_comes() -> None:
    async def hasty(asgi: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 413)

    async with served(hasty) as server:
        wire = await server.connect()
        wire.send(HOST + b"Content-Length: 2000000\r\n\r\n" + b"x" * 1_000_000)
        assert (await wire.answer())[0] == 413
        wire.send(b"x" * 1_000_000 + GET)  # and then the connection is good again
        assert (await wire.answer())[0] == 413
        await wire.close()
        impatient = await server.say(HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello")
        assert impatient.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in impatient


async def test_a_body_nobody_takes_is_not_read_on() -> None:
    taking = asyncio.Event()

    async def slow(asgi: Any, receive: Any, send: Any) -> None:
        await taking.wait()
        await answer(send, b"%d" % len(await body_of(receive)))

    async with served(slow) as server:
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, HOST + b"Content-Length: 8000000\r\n\r\n")
            sending = asyncio.ensure_future(loop.sock_sendall(client, bytes(8_000_000)))
            done, _ = await asyncio.wait({sending}, timeout=0.3)
            assert not done  # the kernel's buffers are full, ours is not
            taking.set()
            await sending
            said = await loop.sock_recv(client, 1000)
        assert said.endswith(b"8000000")


async def test_an_answer_nobody_reads_waits() -> None:
    written = 0

    async def endless(asgi: Any, receive: Any, send: Any) -> None:
        nonlocal written
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(2000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            written += 1
        await send({"type": "http.response.body", "body": b""})

    async with served(endless) as server:
        wire = await server.connect()
        wire.send(GET)
        await wire.exactly(1000)
        await asyncio.sleep(0.2)
        assert 0 < written < 2000
        wire.reset()


# Time


@pytest.mark.parametrize(
    ("begun", "seconds", "answer"),
    [
        (b"", protocol.HEAD_SECONDS, b""),
        (b"GET / HTTP/1.1\r\nHost:", protocol.HEAD_SECONDS, b"408"),
        (HOST + b"Content-Length: 5\r\n\r\nhel", protocol.BODY_SECONDS, b"408"),
        (GET, protocol.IDLE_SECONDS, b"200"),
    ],
)
async def test_slow_and_idle_clients_are_sent_away(begun: bytes, seconds: float, answer: bytes) -> None:
    async with timed(echo) as (server, serving, clock):
        wire = await server.connect()
        await connected(serving)
        clock.ahead = 1.0 if begun else 0.0  # what has come by then has a deadline of its own
        wire.send(begun)
        await connected(serving, clock.time() + seconds)
        clock.ahead += seconds - 1
        serving.sweep()
        assert serving.connections
        clock.ahead += 2
        serving.sweep()
        said = await wire.rest()
        assert (said.split()[1] if said else b"") == answer
        await wire.close()


async def test_a_body_that_trickles_is_too_slow() -> None:
    async with timed(echo) as (server, serving, clock):
        wire = await server.connect()
        wire.send(HOST + b"Content-Length: 100000\r\n\r\n")
        await connected(serving)
        while serving.connections:
            wire.send(b"x")
            await asyncio.sleep(0.02)
            clock.ahead += 10
            serving.sweep()
            if clock.ahead > 2 * protocol.BODY_GRACE:
                break
        assert problem_in(await wire.rest())[1]["code"] == "request_timeout"
        await wire.close()


async def test_waiting_for_the_application_is_nobodys_fault() -> None:
    async def thinking(asgi: Any, receive: Any, send: Any) -> None:
        await body_of(receive)
        await thought.wait()
        await answer(send, b"done")

    thought = asyncio.Event()
    async with timed(thinking) as (server, serving, clock):
        wire = await server.connect()
        wire.send(GET)
        await connected(serving, inf)
        clock.ahead = 10_000.0
        serving.sweep()
        thought.set()
        assert (await wire.answer())[2] == b"done"
        await wire.close()


async def test_whoever_reads_nothing_of_an_answer_is_cut_off() -> None:
    async def long(asgi: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(50_000_000))

    async with timed(long) as (server, serving, clock):
        wire = await server.connect()
        wire.send(GET)
        await wire.exactly(1000)
        await asyncio.sleep(0.1)
        for _ in range(200):  # what the kernel still takes counts as progress
            clock.ahead += protocol.WRITE_SECONDS + 1
            serving.sweep()
            await asyncio.sleep(0.02)
            if not serving.connections:
                break
        assert not serving.connections
        wire.reset()


async def test_too_many_connections_are_told_so_at_once() -> None:
    async with timed(echo, most=1) as (server, serving, _):
        first = await server.connect()
        await connected(serving)
        said = await server.say(b"")
        assert problem_in(said)[0] == 503
        assert b"retry-after: 1" in said
        first.send(GET)
        assert (await first.answer())[0] == 200
        await first.close()


# The end


async def test_what_is_being_answered_may_end_when_the_server_stops() -> None:
    going, ending = asyncio.Event(), asyncio.Event()

    async def slow(asgi: Any, receive: Any, send: Any) -> None:
        going.set()
        await ending.wait()
        await answer(send, b"done")

    async with served(slow, grace=20) as server:
        idle, busy = await server.connect(), await server.connect()
        busy.send(GET)
        await going.wait()
        server.stop.set()
        assert await idle.rest() == b""
        ending.set()
        status, headers, body = await busy.answer()
        assert (status, headers["connection"], body) == (200, "close", b"done")
        await asyncio.gather(idle.close(), busy.close())


async def test_what_does_not_end_in_time_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    ended: list[str] = []

    async def endless(asgi: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async with served(endless, grace=0.05) as server:
        wire = await server.connect()
        wire.send(GET)
        await wire.exactly(10)
        server.stop.set()
        await server.serving
        assert ended == ["cancelled"]
        wire.reset()
