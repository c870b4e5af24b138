"""Fetching what others named: checked where it connects, bounded in every direction."""

import asyncio
import gzip
import os
import socket
import ssl
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from tests.models.transport_server import Peer, Server, chunked, plain, replying, serving
from tests.outbound.certificates import self_signed, serving_with

from terrace import settings
from terrace.errors import Invalid, TerraceError, Unavailable
from terrace.outbound.guarded import Guarded

LOOPBACK = settings.Outbound(allow=("127.0.0.0/8",))


class Names(AbstractResolver):
    """Answers each question for a name with the next address, the last again and again."""

    def __init__(self, **names: list[str]) -> None:
        self._names = names
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        answers = self._names[host.partition(".")[0]]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@pytest.fixture
async def outbound() -> AsyncIterator[Guarded]:
    opened = Guarded(LOOPBACK)
    yield opened
    await opened.close()


def port_of(server: Server) -> str:
    return server.url.rpartition(":")[2]


async def refused(outbound: Guarded, url: str, **options: object) -> TerraceError:
    with pytest.raises(TerraceError) as told:
        await outbound.fetch("GET", url, **options)  # type: ignore[arg-type]
    assert "secret" not in told.value.message
    return told.value


async def test_an_answer_is_read_whole(outbound: Guarded) -> None:
    answer = plain(b"hello", b"200 OK", b"X-One: a", b"X-One: b", b"Set-Cookie: a=b")
    async with serving(replying(answer)) as server:
        fetched = await outbound.fetch("POST", f"{server.url}/a?b=c", headers={"X-Sent": "yes"}, body=b"body")
        again = await outbound.fetch("GET", f"{server.url}/a")
    assert (fetched.status, fetched.body, fetched.headers["x-one"]) == (200, b"hello", "a, b")
    first, second = server.requests
    assert first.startswith(b"POST /a?b=c HTTP/1.1")
    assert first.endswith(b"body")
    assert b"x-sent: yes" in first.lower()
    assert again.status == 200
    assert b"cookie" not in second.lower()  # nothing is kept between calls
    assert server.connections == 2


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.1", "[::1]", "[::ffff:127.0.0.1]", "0", "[::]"]
)
async def test_our_own_network_is_out_of_reach_however_it_is_spelled(host: str) -> None:
    outbound = Guarded(settings.Outbound())
    async with serving(replying(plain(b"inside"))) as server:
        url = f"http://{host}:{port_of(server)}/?secret"
        assert (await refused(outbound, url)).code == "private_target"
        with pytest.raises(Invalid):
            outbound.check(url)
        assert server.connections == 0
    await outbound.close()


async def test_the_address_is_looked_at_where_it_is_connected_to() -> None:
    """A name that was harmless when it was checked leads inside when it is used (DNS rebinding)."""
    names = Names(rebound=["127.0.0.1"], mapped=["::ffff:127.0.0.1"], metadata=["169.254.169.254"])
    outbound = Guarded(settings.Outbound(), resolver=names)
    async with serving(replying(plain(b"inside"))) as server:
        for name in ("rebound", "mapped", "metadata"):
            url = outbound.check(f"http://{name}.example:{port_of(server)}/")
            assert (await refused(outbound, url)).code == "private_target"
        assert (names.asked, server.connections) == (3, 0)
    await outbound.close()


async def test_a_name_is_resolved_anew_for_every_connection() -> None:
    names = Names(turning=["127.0.0.1", "127.0.0.9"])
    outbound = Guarded(settings.Outbound(allow=("127.0.0.1",)), resolver=names)
    async with serving(replying(plain(b"allowed"))) as server:
        url = f"http://turning.example:{port_of(server)}/"
        assert (await outbound.fetch("GET", url)).body == b"allowed"
        assert (await refused(outbound, url)).code == "private_target"
        assert server.connections == 1
    await outbound.close()


async def test_a_redirect_inside_is_refused() -> None:
    outbound = Guarded(settings.Outbound(allow=("127.0.0.1",)), resolver=Names(inside=["127.0.0.2"]))
    async with serving(replying(plain(b"inside"))) as inner:
        targets = ("http://127.0.0.2:{}/", "http://169.254.169.254:{}/", "http://inside.example:{}/", "//[::1]:{}/")
        for target in targets:
            location = b"Location: " + target.format(port_of(inner)).encode()
            async with serving(replying(plain(b"", b"302 Found", location))) as outer:
                error = await refused(outbound, outer.url.replace("localhost", "127.0.0.1"), redirects=3)
                assert error.code == "private_target"
        assert inner.connections == 0
    await outbound.close()


async def test_redirects_are_followed_as_far_as_allowed(outbound: Guarded) -> None:
    async def behave(peer: Peer) -> None:
        request = await peer.request()
        at = int(request.split()[1].rpartition(b"/")[2].partition(b"?")[0])
        answer = plain(b"", b"302 Found", b"Location: /%d" % (at + 1)) if at < 3 else plain(b"there")
        await peer.write(answer)

    async with serving(behave) as server:
        fetched = await outbound.fetch("GET", f"{server.url}/0", redirects=3)
        assert (fetched.body, fetched.url) == (b"there", f"{server.url}/3")
        assert (await refused(outbound, f"{server.url}/0?secret", redirects=2)).code == "too_many_redirects"
        told = await outbound.fetch("GET", f"{server.url}/0")
        assert (told.status, told.headers["location"]) == (302, "/1")


@pytest.mark.parametrize(("status", "expected"), [(b"303", b"GET"), (b"301", b"GET"), (b"307", b"POST")])
async def test_credentials_stay_with_their_host(outbound: Guarded, status: bytes, expected: bytes) -> None:
    headers = {"Authorization": "Bearer secret", "Content-Type": "text/plain", "X-Other": "kept"}
    async with serving(replying(plain(b"end"))) as second:
        location = b"Location: " + second.url.encode() + b"/a b"
        async with serving(replying(plain(b"", status + b" On", location))) as first:
            await outbound.fetch("POST", first.url, headers=headers, body=b"text", redirects=1)
    request = second.requests[0]
    assert request.startswith(expected + b" /a%20b ")
    assert b"secret" not in request
    assert b"kept" in request
    assert request.endswith(b"text") is (expected == b"POST")
    assert (b"text/plain" in request) is (expected == b"POST")


async def test_another_site_is_refused_where_one_must_stay(outbound: Guarded) -> None:
    answer = plain(b"", b"302 Found", b"Location: http://elsewhere.example/?secret")
    async with serving(replying(answer)) as server:
        error = await refused(outbound, server.url, redirects=3, same_site=True)
    assert error.code == "other_site"
    assert "elsewhere.example" in error.message


@pytest.mark.parametrize(
    "location", [b"http://[", b"ftp://example.org/", b"http://u:secret@example.org/", b"\xff\xfe:"]
)
async def test_a_redirect_to_nowhere_is_told(outbound: Guarded, location: bytes) -> None:
    async with serving(replying(plain(b"", b"302 Found", b"Location: " + location), plain(b"x"))) as server:
        error = await refused(outbound, server.url, redirects=1)
    assert error.code in ("bad_url", "too_many_redirects")


BOMB = gzip.compress(b"\0" * 20_000_000)


async def test_a_compressed_answer_counts_as_what_it_becomes(outbound: Guarded) -> None:
    answer = plain(BOMB, b"200 OK", b"Content-Encoding: gzip")
    async with serving(replying(answer)) as server:
        assert (await refused(outbound, server.url, max_bytes=1_000_000)).code == "too_large"
        cut = await outbound.fetch("GET", server.url, max_bytes=1000, truncate=True)
        assert cut.body == b"\0" * 1000
        assert len((await outbound.fetch("GET", server.url)).body) == 20_000_000


async def test_every_way_to_compress_is_read(outbound: Guarded) -> None:
    bare = zlib.compressobj(wbits=-15)
    ways = {
        b"gzip": gzip.compress(b"one ") + gzip.compress(b"two"),
        b"deflate": zlib.compress(b"one two"),
        b"Deflate": bare.compress(b"one two") + bare.flush(),
        b"identity": b"one two",
    }
    for encoding, body in ways.items():
        async with serving(replying(plain(body, b"200 OK", b"Content-Encoding: " + encoding))) as server:
            assert (await outbound.fetch("GET", server.url)).body == b"one two"


@pytest.mark.parametrize(
    ("encoding", "body"), [(b"gzip", b"\x1f\x8bnot"), (b"gzip", BOMB[:-9]), (b"br", b"x"), (b"gzip, gzip", b"x")]
)
async def test_a_body_that_cannot_be_read_is_told(outbound: Guarded, encoding: bytes, body: bytes) -> None:
    async with serving(replying(plain(body, b"200 OK", b"Content-Encoding: " + encoding))) as server:
        assert (await refused(outbound, server.url)).code == "unreachable"


async def test_an_endless_answer_is_cut_off(outbound: Guarded) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.write(b"x" * 65536)

    async with serving(behave) as server:
        assert (await refused(outbound, server.url, max_bytes=100_000)).code == "too_large"
        assert len((await outbound.fetch("GET", server.url, max_bytes=10, truncate=True)).body) == 10


async def test_who_hangs_or_drips_is_left(outbound: Guarded) -> None:
    async def hang(peer: Peer) -> None:
        await peer.closed()

    async def drip(peer: Peer) -> None:
        await peer.request()
        await peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while True:
            await peer.write(b"x")
            await asyncio.sleep(0.02)

    async def drip_head(peer: Peer) -> None:
        await peer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.write(b"x")
            await asyncio.sleep(0.02)

    for behave in (hang, drip, drip_head):
        async with serving(behave) as server:
            error = await refused(outbound, f"{server.url}/?secret", timeout=0.2)
            assert error.code == "timed_out"
            assert isinstance(error, Unavailable)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(5000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    ],
    ids=["many headers", "long header", "long line", "not http", "nothing", "breaks off"],
)
async def test_what_is_no_answer_is_told(outbound: Guarded, head: bytes) -> None:
    async def behave(peer: Peer) -> None:
        await peer.request()
        await peer.write(head)

    async with serving(behave) as server:
        assert (await refused(outbound, f"{server.url}/?secret")).code == "unreachable"


async def test_nobody_there_is_told(outbound: Guarded) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = await refused(outbound, f"http://127.0.0.1:{free.getsockname()[1]}/?secret")
    assert error.code == "unreachable"
    assert "refused" in error.message


async def test_proxies_of_the_environment_are_not_used() -> None:
    """In a process of its own, for the environment is read there and nowhere else."""
    program = (
        "import asyncio, sys\n"
        "from terrace import settings\n"
        "from terrace.outbound import open_outbound\n"
        "async def main():\n"
        "    outbound = open_outbound(settings.Outbound(allow=('127.0.0.0/8',)))\n"
        "    print((await outbound.fetch('GET', sys.argv[1])).body.decode())\n"
        "    await outbound.close()\n"
        "asyncio.run(main())\n"
    )
    async with serving(replying(plain(b"through a proxy"))) as proxy, serving(replying(plain(b"direct"))) as server:
        environment = {**os.environ, "http_proxy": proxy.url, "ALL_PROXY": proxy.url, "no_proxy": ""}
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, server.url, env=environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert (said.decode().strip(), proxy.connections) == ("direct", 0)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls") / "both.pem")


async def test_a_certificate_nobody_signed_is_not_trusted(outbound: Guarded, certificate: Path) -> None:
    context = serving_with(certificate)
    async with serving(replying(plain(b"secret")), context) as server:
        error = await refused(outbound, server.url)
        assert error.code == "tls_failed"
        assert "self-signed" in error.message
        trusting = Guarded(LOOPBACK, context=ssl.create_default_context(cafile=str(certificate)))
        assert (await trusting.fetch("GET", server.url)).body == b"secret"
        await trusting.close()


async def test_who_speaks_no_tls_is_told(outbound: Guarded) -> None:
    async def behave(peer: Peer) -> None:
        await peer.write(plain(b"no hello here"))

    async with serving(behave) as server:
        assert (await refused(outbound, server.url.replace("http:", "https:"))).code == "tls_failed"


async def test_what_was_encrypted_stays_so(certificate: Path) -> None:
    context = serving_with(certificate)
    trusting = Guarded(LOOPBACK, context=ssl.create_default_context(cafile=str(certificate)))
    async with serving(replying(plain(b"open"))) as open_one:
        location = b"Location: " + open_one.url.encode()
        async with serving(replying(plain(b"", b"302 Found", location)), context) as server:
            assert (await refused(trusting, server.url, redirects=2)).code == "downgraded"
        assert open_one.connections == 0
    await trusting.close()


async def test_pieces_and_no_body_are_read(outbound: Guarded) -> None:
    async with serving(replying(chunked(b"one ", b"two"))) as server:
        assert (await outbound.fetch("GET", server.url)).body == b"one two"
    async with serving(replying(plain(b"", b"200 OK"))) as server:
        assert (await outbound.fetch("HEAD", server.url)).body == b""
    async with serving(replying(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        assert (await outbound.fetch("DELETE", server.url)).status == 204
