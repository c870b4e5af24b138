"""One contract for both transports, against a server that misbehaves; then what is the lean client's own."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.transport_server import Behaviour, Peer, Server, chunked, plain, replying, serving

from terrace.errors import Invalid, TerraceError, Unavailable
from terrace.models.transport import Transport, open_transport
from terrace.models.transport.lean import LeanTransport
from terrace.models.transport.opening import SchemeTransport
from terrace.models.transport.tls import TLSTransport
from terrace.settings import Models

Serve = Callable[[Behaviour], AbstractAsyncContextManager[Server]]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate for localhost in one file."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "the tests make a certificate with the openssl command: install it"
    path = tmp_path_factory.mktemp("tls")
    command = (
        f"{openssl} req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {path}/key.pem -out {path}/certificate.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    both = path / "both.pem"
    both.write_text((path / "key.pem").read_text() + (path / "certificate.pem").read_text())
    return both


@pytest.fixture(params=["http", "https", "aiohttp"])
async def kind(request: pytest.FixtureRequest) -> str:
    """The lean client in the clear and through TLS, and aiohttp through TLS."""
    return str(request.param)


@pytest.fixture
async def transport(kind: str, certificate: Path) -> AsyncIterator[Transport]:
    trusting = ssl.create_default_context(cafile=str(certificate))
    lean = LeanTransport(connect_timeout=30, context=trusting)
    opened: Transport = lean
    if kind == "aiohttp":
        opened = SchemeTransport(lean, TLSTransport(connect_timeout=30, context=trusting))
    yield opened
    await opened.close()


@pytest.fixture
def serve(kind: str, certificate: Path) -> Serve:
    context = None
    if kind != "http":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    return lambda behaviour: serving(behaviour, context)


async def refused(transport: Transport, url: str, **timeouts: float) -> str:
    """The code of the error that a whole exchange ends in."""

    async def whole() -> None:
        await (await transport.send("POST", url, (), b"{}", **timeouts)).read()

    with pytest.raises(TerraceError) as caught:
        await whole()
    return caught.value.code


async def test_sends_a_request_and_reads_its_answer(transport: Transport, serve: Serve) -> None:
    answer = plain(b'{"ok":true}', b"201 Created", b"X-Custom: yes")
    async with serve(replying(answer)) as server:
        response = await transport.send("POST", f"{server.url}/a/b?c=d", ((b"x-key", b"value"),), b'{"q":1}')
        assert response.status == 201
        assert (b"x-custom", b"yes") in response.headers
        assert await response.read() == b'{"ok":true}'
    (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b?c=d HTTP/1.1\r\n")
    assert b"x-key: value" in head
    assert b"content-length: 7" in head.lower()
    assert body == b'{"q":1}'


async def test_one_connection_serves_many_requests(transport: Transport, serve: Serve) -> None:
    async with serve(replying(plain(b"1"), chunked(b"2"), plain(b"3"))) as server:
        for expected in (b"1", b"2", b"3"):
            assert await (await transport.send("GET", server.url)).read() == expected
        assert server.connections == 1


async def test_pieces_come_as_they_arrive(transport: Transport, serve: Serve) -> None:
    more = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        await peer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        await peer.closed()

    async with serve(behave) as server:
        pieces = aiter(await transport.send("GET", server.url))
        assert await anext(pieces) == b"one"
        more.set()
        assert await anext(pieces) == b"two"
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_a_body_may_end_with_the_connection(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with serve(behave) as server:
        assert await (await transport.send("GET", server.url)).read() == b"all of it"


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n"),
    ],
)
async def test_answers_without_a_body(transport: Transport, serve: Serve, method: str, answer: bytes) -> None:
    async with serve(replying(answer)) as server:
        response = await transport.send(method, server.url)
        assert await asyncio.wait_for(response.read(), 20) == b""


async def test_informational_answers_are_passed_over(transport: Transport, serve: Serve) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    async with serve(replying(early + plain(b"done"))) as server:
        response = await transport.send("POST", server.url, (), b"x")
        assert response.status == 200
        assert await response.read() == b"done"
        assert b"link" not in dict(response.headers)


async def test_a_connection_closed_between_requests_is_not_used_again(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(plain(b"%d" % peer.number))

    async with serve(behave) as server:
        for expected in (b"1", b"2", b"3"):
            response = await transport.send("GET", server.url)
            assert await response.read() == expected
            await asyncio.sleep(0.02)  # the close arrives


async def test_it_says_when_nobody_listens(transport: Transport, kind: str) -> None:
    assert await refused(transport, f"{kind.replace('aiohttp', 'https')}://localhost:1/") == "upstream_unreachable"


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-le"])
async def test_it_says_when_the_upstream_hangs_up_before_answering(
    transport: Transport, serve: Serve, sent: bytes
) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(sent)

    async with serve(behave) as server:
        assert await refused(transport, server.url) == "upstream_broke"
        assert len(server.requests) == 1, "a POST whose bytes may have arrived is never sent again"


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
)
async def test_a_body_that_breaks_off_gives_what_came_and_then_fails(
    transport: Transport, serve: Serve, sent: bytes
) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(sent)

    async with serve(behave) as server:
        pieces = aiter(await transport.send("POST", server.url, (), b"x"))
        assert await anext(pieces) == b"half"
        with pytest.raises(Unavailable) as caught:
            await anext(pieces)
        assert caught.value.code == "upstream_broke"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff" * 100,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
    ids=["ssh", "binary", "chunk size", "length", "giant header"],
)
async def test_nonsense_is_an_upstream_that_broke(transport: Transport, serve: Serve, nonsense: bytes) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(nonsense)
        await peer.closed()

    async with serve(behave) as server:
        assert await asyncio.wait_for(refused(transport, server.url), 20) == "upstream_broke"


@pytest.mark.parametrize("kind", ["http", "https"])
async def test_many_headers_are_an_upstream_that_broke(transport: Transport, serve: Serve) -> None:
    """The lean client bounds their sum; aiohttp, which only an https proxy brings in, bounds each."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 40_000 + b"\r\n")
        await peer.closed()

    async with serve(behave) as server:
        assert await asyncio.wait_for(refused(transport, server.url), 20) == "upstream_broke"


async def test_an_answer_that_never_begins_times_out(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.closed()

    async with serve(behave) as server:
        assert await refused(transport, server.url, first_byte_timeout=0.1) == "upstream_timeout"


async def test_the_idle_time_counts_from_the_first_piece_on(transport: Transport, serve: Serve) -> None:
    """A whole answer may take far longer to begin than two pieces of it may lie apart."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.2)
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await asyncio.sleep(0.2)
        await peer.write(b"whole")
        await peer.closed()

    async with serve(behave) as server:
        response = await transport.send("POST", server.url, (), b"x", first_byte_timeout=30, idle_timeout=0.1)
        assert await response.read() == b"whole"


async def test_a_body_that_never_begins_times_out(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        await peer.closed()

    async with serve(behave) as server:
        assert await asyncio.wait_for(refused(transport, server.url, first_byte_timeout=0.1), 20) == "upstream_timeout"


async def test_the_total_time_ends_a_silence_too(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal")
        await peer.closed()

    async with serve(behave) as server:
        assert await asyncio.wait_for(refused(transport, server.url, total_timeout=0.2), 20) == "upstream_timeout"


async def test_an_answer_that_falls_silent_times_out(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.closed()

    async with serve(behave) as server:
        assert await refused(transport, server.url, idle_timeout=0.1) == "upstream_stalled"


async def test_an_answer_that_never_ends_times_out(transport: Transport, serve: Serve) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            await peer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    async with serve(behave) as server:
        assert await asyncio.wait_for(refused(transport, server.url, total_timeout=0.3), 20) == "upstream_timeout"


async def test_more_than_the_limit_is_refused(transport: Transport, serve: Serve) -> None:
    async with serve(replying(plain(b"x" * 300_000))) as server:
        response = await transport.send("GET", server.url)
        with pytest.raises(Unavailable) as caught:
            await response.read(100_000)
        assert caught.value.code == "upstream_too_large"


async def test_closing_a_response_closes_the_upstream_connection_at_once(transport: Transport, serve: Serve) -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await peer.closed()
        gone.set()

    async with serve(behave) as server:
        response = await transport.send("GET", server.url)
        response.close()
        response.close()
        await asyncio.wait_for(gone.wait(), 20)


async def test_cancelling_a_call_closes_the_upstream_connection(transport: Transport, serve: Serve) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.closed()
        gone.set()

    async with serve(behave) as server:
        call = asyncio.ensure_future(transport.send("POST", server.url, (), b"x"))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(gone.wait(), 20)


async def test_a_slow_reader_slows_the_upstream_down(transport: Transport, serve: Serve) -> None:
    """Far less than the whole is taken off the wire, and none of it is lost."""
    piece, count = b"z" * 65_536, 400  # 26 MB
    sent = 0

    async def behave(peer: Peer) -> None:
        nonlocal sent
        peer.writer.transport.set_write_buffer_limits(65_536)
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * count))
        for _ in range(count):
            await peer.write(piece)
            sent += 1
        await peer.closed()

    async with serve(behave) as server:
        response = await transport.send("GET", server.url)
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < count
        total = 0
        async for each in response:
            total += len(each)
        assert total == len(piece) * count


async def test_a_bad_certificate_is_refused(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    transport = open_transport(Models())
    async with serving(replying(plain(b"x")), context) as server:
        with pytest.raises(Unavailable) as caught:
            await transport.send("GET", server.url)
        assert "certificate" in caught.value.message
    await transport.close()


# The lean client's own.


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_an_answer_may_be_split_at_any_byte(data: st.DataObject) -> None:
    answers = (chunked(b"data: one\n\n", b"data: two\n\n"), plain(b"second", b"200 OK", b"X-A: b"))
    cuts = [
        [*sorted(data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=12))), len(answer)] for answer in answers
    ]

    async def behave(peer: Peer) -> None:
        for answer, ends in zip(answers, cuts, strict=True):
            await peer.request()
            start = 0
            for end in ends:
                await peer.write(answer[start:end])
                await asyncio.sleep(0)
                start = end
        await peer.closed()

    async def check() -> None:
        transport = LeanTransport()
        async with serving(behave) as server:
            assert await (await transport.send("GET", server.url)).read() == b"data: one\n\ndata: two\n\n"
            assert await (await transport.send("GET", server.url)).read() == b"second"
            assert server.connections == 1
            await transport.close()

    asyncio.run(check())


@given(st.binary(max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_bytes_end_in_an_answer_or_an_error_of_ours(garbage: bytes) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(garbage)

    async def check() -> None:
        transport = LeanTransport()
        async with serving(behave) as server:
            code = ""
            try:
                await (await transport.send("GET", server.url)).read()
            except Unavailable as error:
                code = error.code
            assert code in ("", "upstream_broke")
            await transport.close()

    asyncio.run(asyncio.wait_for(check(), 10))


@pytest.mark.parametrize(("method", "connections"), [("GET", 2), ("POST", 1)])
async def test_only_what_is_safe_is_repeated_on_a_stale_connection(method: str, connections: int) -> None:
    """The connection closes on the second request, as when the upstream's own keep-alive ran out just then."""

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(plain(b"first"))
        if peer.number == 1:
            await peer.request()
        else:
            await peer.closed()

    transport = LeanTransport()
    async with serving(behave) as server:
        await (await transport.send("GET", server.url)).read()
        if method == "GET":
            assert await (await transport.send(method, server.url)).read() == b"first"
        else:
            assert await refused(transport, server.url) == "upstream_broke"
        assert server.connections == connections
        await transport.close()


async def test_an_idle_connection_expires_before_the_upstream_may_close_it() -> None:
    gone = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(plain(b"x", b"200 OK", b"keep-alive: timeout=1"))
        await peer.closed()
        gone.set()

    transport = LeanTransport()
    async with serving(behave) as server:
        await (await transport.send("GET", server.url)).read()
        await asyncio.wait_for(gone.wait(), 20)
        await transport.close()


async def test_more_connections_than_the_cap_are_refused_early() -> None:
    asked = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.closed()

    transport = LeanTransport(connections_per_host=1)
    async with serving(behave) as server:
        first = asyncio.ensure_future(transport.send("GET", server.url))
        await asked.wait()
        with pytest.raises(Unavailable) as caught:
            await transport.send("GET", server.url)
        assert (caught.value.code, caught.value.retry_after) == ("upstream_busy", 1.0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await transport.close()


async def test_an_answer_nobody_asked_for_ends_the_connection() -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(plain(b"%d" % peer.number) + (plain(b"smuggled") if peer.number == 1 else b""))
        await peer.closed()

    transport = LeanTransport()
    async with serving(behave) as server:
        assert await (await transport.send("GET", server.url)).read() == b"1"
        assert await (await transport.send("GET", server.url)).read() == b"2"
        await transport.close()


@pytest.mark.parametrize(
    "url", ["http:///x", "http://host:99999/", "http://a\r\nb/", "ftp://host/", "http://u:p@h/", "http://:p@h/"]
)
async def test_an_address_that_is_none_is_invalid(url: str) -> None:
    with pytest.raises(Invalid):
        await LeanTransport().send("GET", url)


async def test_a_header_with_a_line_break_is_invalid() -> None:
    with pytest.raises(Invalid):
        await LeanTransport().send("GET", "http://localhost:1/", ((b"x", b"a\r\nHost: evil"),))


@pytest.mark.parametrize("host", ["a" * 70, "a..b", "a" * 300])
async def test_a_name_no_host_can_have_is_not_reached(host: str) -> None:
    assert await refused(LeanTransport(), f"http://{host}/") == "upstream_unreachable"
