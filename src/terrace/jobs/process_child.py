"""What runs inside one of the processes of `processes.py`: a loop that reads a call, makes it, writes what came of it.

The child handles files somebody sent and may be taken over by one, so what it writes is data (MessagePack) that
the parent decodes into the type it expects; nothing of it is ever executed there. What it reads comes from the
parent and is trusted (pickle).

Frames: 1 byte of kind, 8 bytes of length (big-endian), body.
Up: `p` progress, `r` result, `e` error. A call is answered by any number of `p` and one `r` or `e`.
"""

import gc
import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec

from terrace.errors import TerraceError

PROGRESS_EVERY = 0.1  # seconds
NICENESS = 10
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Call:
    """A call on its way down: which function, with what, within which bounds."""

    function: str  # "package.module:name"
    arguments: tuple[Any, ...]
    seconds: float  # of CPU
    memory: int  # bytes of address space
    progress: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way up. `kind` is that of a TerraceError, `memory`, or empty for anything else."""

    kind: str
    message: str
    code: str = ""
    status: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    trace: str = ""


class Pipe:
    """Frames to the parent."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last = 0.0

    def send(self, kind: bytes, body: bytes) -> None:
        self._file.write(kind + len(body).to_bytes(8, "big"))
        self._file.write(body)
        self._file.flush()

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Say how far we are; at most every PROGRESS_EVERY seconds, the first and the last always."""
        now = time.monotonic()
        if done >= total or now - self._last >= PROGRESS_EVERY:
            self._last = now
            self.send(b"p", msgspec.msgpack.encode((done, total, note)))


def main() -> None:
    """Serve calls from stdin until it ends; the parent's pid is the first argument."""
    parent = int(sys.argv[1])
    _die_with(parent)
    os.nice(NICENESS)
    calls = sys.stdin.buffer
    pipe = Pipe(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what a library prints must not land between frames
    while header := calls.read(8):
        _answer(pickle.loads(calls.read(int.from_bytes(header, "big"))), pipe)


def _answer(call: Call, pipe: Pipe) -> None:
    try:
        _bound(call.seconds, call.memory)
        module, _, name = call.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        result = function(*call.arguments, **({"progress": pipe.progress} if call.progress else {}))
        body = msgspec.msgpack.encode(result)
        del result
        pipe.send(b"r", body)
    except TerraceError as error:
        failure = Failure(error.kind, error.message, error.code, error.status, error.extra)
        pipe.send(b"e", msgspec.msgpack.encode(failure))
    except MemoryError:
        pipe.send(b"e", msgspec.msgpack.encode(Failure("memory", "")))
    except Exception as error:
        failure = Failure("", f"{type(error).__name__}: {error}"[:500], trace=traceback.format_exc()[-4000:])
        pipe.send(b"e", msgspec.msgpack.encode(failure))
    finally:
        gc.collect()


def _bound(seconds: float, memory: int) -> None:
    """Set the bounds of the coming call. Only the soft limits, which the next call may raise again."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = used.ru_utime + used.ru_stime
    _limit(resource.RLIMIT_CPU, int(spent + seconds) + 2)
    if sys.platform == "linux":  # elsewhere the kernel ignores or refuses it
        _limit(resource.RLIMIT_AS, memory)
    _limit(resource.RLIMIT_CORE, 0)


def _limit(which: int, value: int) -> None:
    import resource

    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _die_with(parent: int) -> None:
    """Be killed when the parent goes, however it goes. Elsewhere than on Linux, the end of stdin tells it."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if sys.platform != "win32" and os.getppid() != parent:
        os._exit(0)
