"""Uvicorn, started and stopped the way Terrace needs it."""

import asyncio
import gc
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from terrace.errors import Conflict, Invalid
from terrace.settings import Settings
from terrace.web.edge import ASGI
from terrace.web.security import is_loopback


def bind(settings: Settings) -> socket.socket:
    """The listening socket, bound before anything else starts. Raises Conflict when the port is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"{settings.host}:{settings.port} cannot be listened on: {error.strerror}. "
            "Is Terrace running already? TERRACE_PORT=8001 uses another port.",
            code="address_in_use",
        ) from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    shown = "localhost" if is_loopback(host) else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _spare_the_collector() -> None:
    """What was made until now lives as long as the process; walking it again and again costs 20 us a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


class _OneWrite:
    """A transport that sends an answer's head together with what follows it at once: one system call instead of two."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _OneWrite(transport)))


class _Server(uvicorn.Server):
    """Tells when it listens, and leaves signals to us: uvicorn would raise them again before we have drained."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            _spare_the_collector()
            self._on_started()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    app: ASGI, listener: socket.socket, settings: Settings, *, started: Callable[[], None], stop: asyncio.Event
) -> None:
    """Until `stop` is set; open streams then get `web.shutdown_grace` seconds to end."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.web.shutdown_grace),
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config, started)
    serving = asyncio.ensure_future(server.serve(sockets=[listener]))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.should_exit = True
    await serving
