"""The listening socket, and serving on it until we are told to stop."""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from email.utils import formatdate

from terrace.errors import Conflict
from terrace.models.transport.outbox import Outbox
from terrace.settings import Settings
from terrace.web.exchange import ASGI
from terrace.web.protocol import Connection
from terrace.web.security import is_loopback

log = logging.getLogger("terrace.web")

SWEEP = 1.0  # seconds between two looks at the clocks of all connections
BACKLOG = 4096  # connections the kernel keeps until we take them
MAX_FILES = 65_536
OTHER_FILES = 256  # the database, the page, documents, pipes


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
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """Where it is reached from this machine, which listens on every address of its own too when told 0.0.0.0."""
    shown = "localhost" if is_loopback(host) or host in ("0.0.0.0", "::", "[::]") else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def _spare_the_collector() -> None:
    """What was made until now lives as long as the process; walking it again and again costs 20 us a request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _allow_connections() -> int:
    """How many connections may be open: each may need another, to a model server. Takes as many files as we may have;
    what a shell gives at first (1,024) is little."""
    import resource  # there is none on Windows

    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(most, MAX_FILES)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        files = wanted
    return (MAX_FILES if files == resource.RLIM_INFINITY else files) // 2 - OTHER_FILES


class Serving:
    """What all connections of one server share."""

    def __init__(self, app: ASGI, loop: asyncio.AbstractEventLoop, *, most: int) -> None:
        self.app = app
        self.loop = loop
        self.most = most
        self.connections: set[Connection] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.leaving = False  # every answer is the last on its connection
        self.closing = False
        self.empty = asyncio.Event()
        self.outbox = Outbox(loop)
        self.date = b""
        self._timer: asyncio.TimerHandle | None = None
        self.sweep()

    def sweep(self) -> None:
        """Every second: what time it is, and whose time is over."""
        self.date = b"date: %b\r\n" % formatdate(usegmt=True).encode()
        now = self.loop.time()
        for late in [each for each in self.connections if each.deadline <= now]:
            late.expire(now)
        self._timer = self.loop.call_later(SWEEP, self.sweep)

    def lost(self, connection: "Connection") -> None:
        self.connections.discard(connection)
        if self.closing and not self.connections:
            self.empty.set()

    async def close(self, grace: float) -> None:
        """What is being answered gets `grace` seconds to end; everything else ends now."""
        self.closing = True
        for connection in list(self.connections):
            connection.wind_up()
        try:
            async with asyncio.timeout(grace):
                if self.connections:
                    await self.empty.wait()
                if self.tasks:
                    await asyncio.wait(self.tasks)
        except TimeoutError:
            log.warning("%d answers were cut: they did not end within %g seconds", len(self.tasks), grace)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)  # they learn that their clients are gone
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()


async def serve(
    app: ASGI,
    listener: socket.socket,
    settings: Settings,
    *,
    started: Callable[[], None],
    stop: asyncio.Event,
    closed: asyncio.Event | None = None,
) -> None:
    """Until `stop` is set and `web.shutdown_delay` is over. Nobody is let in any more then, which sets `closed`, and
    open streams get `web.shutdown_grace` seconds to end."""
    loop = asyncio.get_running_loop()
    serving = Serving(app, loop, most=max(_allow_connections(), OTHER_FILES))
    spare = listener.dup()
    server = await loop.create_server(lambda: Connection(serving), sock=listener, backlog=BACKLOG)
    try:
        _spare_the_collector()
        started()
        await stop.wait()
        serving.leaving = True
        await asyncio.sleep(settings.web.shutdown_delay)
        server.close()
        await _let_in_the_last(serving, spare)
    finally:
        if closed is not None:
            closed.set()
        server.close()
        spare.close()
        await serving.close(settings.web.shutdown_grace)


async def _let_in_the_last(serving: Serving, listener: socket.socket) -> None:
    """Whoever the kernel has let in already: closing the listener would reset them, in the middle of their request."""
    await asyncio.sleep(0)  # the server lets go of its own copy of the socket
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:  # BlockingIOError: that was all; any other: there is nothing to be had either
            return
        caller.setblocking(False)
        await serving.loop.connect_accepted_socket(lambda: Connection(serving), caller)
