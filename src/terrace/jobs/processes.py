"""A few warm subprocesses for CPU-bound work on files somebody sent: bounded, killable, never trusted.

A call runs alone in its process, under limits on wall time, CPU time and address space, at a lower priority than the
server. A process that overstays or whose caller goes away is killed with its whole group; one that crashes takes
nothing with it. Processes are fresh interpreters (never forks of a threaded server), see none of the server's
environment beyond what an interpreter needs, and are gone when the server is, even after `kill -9`.
"""

import asyncio
import logging
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import msgspec

from terrace.errors import Conflict, Denied, Internal, Invalid, Limited, Missing, TerraceError, Unavailable
from terrace.jobs.process_child import Call, Failure

log = logging.getLogger(__name__)

R = TypeVar("R")
OnProgress = Callable[[float, float, str], None]

IDLE_SECONDS = 60.0
MAX_CALLS = 200  # then a fresh process, whatever the old one leaked
MAX_RESIDENT = 400 * 1024**2  # bytes after a call; a larger process is not kept
MAX_FRAME = 512 * 1024**2  # bytes; more than this from a child is an attack
CHILD = "from terrace.jobs.process_child import main; main()"
# All that a child sees of the environment: no keys, no tokens.
ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME")
KINDS: dict[str, type[TerraceError]] = {
    each.kind: each for each in (Invalid, Denied, Missing, Conflict, Limited, Unavailable, Internal)
}


class Processes:
    """At most `limit` processes; a call waits for a free one. Idle ones leave after `idle` seconds."""

    def __init__(self, limit: int, *, idle: float = IDLE_SECONDS, max_calls: int = MAX_CALLS) -> None:
        self._slots = asyncio.Semaphore(limit)
        self._idle_seconds = idle
        self._max_calls = max_calls
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def run(
        self,
        function: Callable[..., R],
        *arguments: Any,
        timeout: float,
        memory: int,
        progress: OnProgress | None = None,
    ) -> R:
        """Call a module-level function in another process and return its result.

        The result is decoded into the function's return annotation (dataclasses, tuples, dicts, str, bytes...).
        `timeout` is in seconds, from the moment a process is free; `memory` in bytes of address space. With
        `progress`, the function is given a keyword argument `progress(done, total, note="")` whose calls arrive here.

        Raises what the function raised if that was a TerraceError; Invalid with code `parse_timeout`, `parse_memory`
        or `parse_crashed`; Internal for any other exception. Cancelling the caller kills the process.
        """
        call = Call(f"{function.__module__}:{function.__qualname__}", arguments, timeout, memory, progress is not None)
        async with self._slots:
            try:
                kind, body = await self._exchange(self._idle.pop() if self._idle else _Process(), call, progress)
            except _UsedProcessDied:  # perhaps an earlier file's doing: this one gets a fresh process to itself
                kind, body = await self._exchange(_Process(), call, progress)
        if kind == b"e":
            raise _error(msgspec.msgpack.decode(body, type=Failure), memory)
        decoder = _decoder(function)
        result: R = decoder.decode(body) if len(body) < 65_536 else await asyncio.to_thread(decoder.decode, body)
        return result

    async def close(self) -> None:
        """Kill what runs and wait until every process is gone."""
        self._closed = True
        for process in [*self._idle, *self._busy]:
            self._dismiss(process)
        self._idle.clear()
        while self._leaving:
            await asyncio.gather(*self._leaving)

    @property
    def alive(self) -> int:
        """Processes there are now, busy or idle."""
        return len(self._idle) + len(self._busy)

    async def _exchange(self, process: "_Process", call: Call, progress: OnProgress | None) -> tuple[bytes, bytes]:
        if self._closed:
            raise _shutting_down()
        self._busy.add(process)
        try:
            async with asyncio.timeout(call.seconds):
                answer = await process.exchange(call, progress)
        except TimeoutError:
            self._dismiss(process)
            raise _took_too_long(call.seconds) from None
        except BaseException:
            self._dismiss(process)
            raise
        finally:
            self._busy.discard(process)
        self._put_back(process)
        return answer

    def _put_back(self, process: "_Process") -> None:
        if self._closed or process.calls >= self._max_calls or process.resident() > MAX_RESIDENT:
            self._dismiss(process)
            return
        self._idle.append(process)
        process.expiry = asyncio.get_running_loop().call_later(self._idle_seconds, self._expire, process)

    def _expire(self, process: "_Process") -> None:
        if process in self._idle:
            self._idle.remove(process)
            self._dismiss(process)

    def _dismiss(self, process: "_Process") -> None:
        task = asyncio.get_running_loop().create_task(process.end())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


class _UsedProcessDied(Exception):
    """A process that had served other calls before died during this one."""


class _Process:
    """One child and the conversation with it."""

    def __init__(self) -> None:
        self.calls = 0
        self.expiry: asyncio.TimerHandle | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ended = False

    async def exchange(self, call: Call, progress: OnProgress | None) -> tuple[bytes, bytes]:
        """Send a call and return the last frame of its answer. Raises Invalid when the child dies over it."""
        if self.expiry is not None:
            self.expiry.cancel()
        if self._process is None:
            self._process = await _start()
            if self._ended:
                await self.end()
        if self._ended:
            raise _shutting_down()
        self.calls += 1
        assert self._process.stdin is not None
        body = pickle.dumps(call)
        try:
            self._process.stdin.write(len(body).to_bytes(8, "big") + body)
            await self._process.stdin.drain()
            while True:
                kind, body = await self._frame()
                if kind in (b"r", b"e"):
                    return kind, body
                if kind == b"p" and progress is not None:
                    progress(*msgspec.msgpack.decode(body, type=tuple[float, float, str]))
        except (asyncio.IncompleteReadError, ConnectionError):
            status = await self._process.wait()
            if self._ended:
                raise _shutting_down() from None
            log.warning("subprocess died with status %s", status)
            if sys.platform != "win32" and status == -signal.SIGXCPU:
                raise _took_too_long(call.seconds) from None
            raise (_UsedProcessDied if self.calls > 1 else _crashed)() from None

    async def _frame(self) -> tuple[bytes, bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        header = await self._process.stdout.readexactly(9)
        length = int.from_bytes(header[1:], "big")
        if length > MAX_FRAME:
            raise Internal("A subprocess answered with more than it may.", code="process_failed")
        return header[:1], await self._process.stdout.readexactly(length)

    def resident(self) -> int:
        """Bytes of memory the child holds now; 0 where the system doesn't say."""
        if self._process is None or sys.platform != "linux":
            return 0
        try:
            with open(f"/proc/{self._process.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    async def end(self) -> None:
        """Kill it and everything it started, and wait until it is gone."""
        if self.expiry is not None:
            self.expiry.cancel()
        self._ended = True
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def _start() -> asyncio.subprocess.Process:
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment["PYTHONUTF8"] = "1"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", CHILD, str(os.getpid())),  # -P: no module of the folder we happen to be in
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        limit=1024 * 1024,
    )


@lru_cache(maxsize=64)
def _decoder(function: Callable[..., Any]) -> "msgspec.msgpack.Decoder[Any]":
    try:
        hint = get_type_hints(function).get("return", Any)
    except TypeError:  # a builtin has no annotations
        hint = Any
    return msgspec.msgpack.Decoder(hint)


def _error(failure: Failure, memory: int) -> TerraceError:
    if failure.kind == "memory":
        return _too_large(memory)
    if failure.kind in KINDS:
        error = KINDS[failure.kind](failure.message, code=failure.code, status=failure.status)
        error.extra = failure.extra
        return error
    log.error("subprocess failed: %s\n%s", failure.message, failure.trace)
    return Internal("Reading this file failed inside Terrace; the log says where.", code="process_failed")


def _crashed() -> Invalid:
    return Invalid(
        "Reading this file crashed the process that read it; the file is probably damaged. "
        "Open it in the program it comes from, save it again and retry.",
        code="parse_crashed",
    )


def _shutting_down() -> Unavailable:
    return Unavailable("The server is shutting down.", code="shutting_down")


def _took_too_long(timeout: float) -> Invalid:
    return Invalid(
        f"Reading this file took longer than {timeout:g} seconds. Split it, or raise knowledge.parse_timeout.",
        code="parse_timeout",
    )


def _too_large(memory: int) -> Invalid:
    return Invalid(
        f"Reading this file needs more than {memory // 1024**2} MB of memory. "
        "Split it, or raise knowledge.parse_memory.",
        code="parse_memory",
    )
