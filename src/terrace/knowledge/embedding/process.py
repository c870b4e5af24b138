"""The embedder as the server sees it: a process of its own, started when needed, gone when idle.

States: unloaded -> preparing -> ready -> unloaded ...; absent when the model cannot be had, asked again after a
while. A process that dies takes nothing along: what it was asked is asked once more of the next one.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from terrace.errors import Unavailable
from terrace.knowledge.embedding.absent import estimate_tokens
from terrace.knowledge.embedding.base import EmbedderState, EmbeddingAbsent
from terrace.knowledge.embedding.wire import PREFIX, Answer, Ask, Hello, Model, frame
from terrace.types import Scope

log = logging.getLogger(__name__)

SLICE = 128  # texts sent at a time, so that concurrent documents take turns
BULK_REQUESTS = 4  # slices under way; more wait here rather than in the pipe
RETRY_ABSENT_SECONDS = 60.0
CLOSE_SECONDS = 5.0
PATIENCE_SECONDS = 300.0  # without any answer to all that was asked: then the process hangs and is replaced
STREAM_LIMIT = 1024 * 1024


class _Died(Exception):
    """The process ended before it answered."""


class _Running:
    """One life of the process."""

    def __init__(self, process: asyncio.subprocess.Process, hello: Hello, patience: float) -> None:
        self._process = process
        self._patience = patience
        self._heard = 0.0  # when it last answered, or began to be asked
        self._watch: asyncio.TimerHandle | None = None
        self.hello = hello
        self._asked: dict[int, asyncio.Future[tuple[Answer, bytes]]] = {}
        self._last = self._answers = 0  # each question has one answer, even if nobody waits for it any more
        self.alive = True
        self._reader = asyncio.create_task(self._read(), name="embedding answers")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def busy(self) -> bool:
        return bool(self._asked)

    @classmethod
    async def start(cls, model: Model, patience: float) -> "_Running":
        """Raises EmbeddingAbsent when the child says so, _Died when it says nothing."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "terrace.knowledge.embedding.child", msgspec.json.encode(model).decode(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            limit=STREAM_LIMIT, start_new_session=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            head, _ = await _read_frame(process.stdout)
            hello = msgspec.msgpack.decode(head, type=Hello)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it may be deep in a download
            await _end(process)
            if isinstance(error, asyncio.IncompleteReadError):
                raise _Died from error
            raise
        if hello.absent:
            await _end(process)
            raise EmbeddingAbsent(hello.absent)
        return cls(process, hello, patience)

    async def ask(self, op: Any, texts: Sequence[str], query: bool) -> tuple[Answer, bytes]:
        """Raises _Died when the process ends first."""
        if not self.alive:
            raise _Died
        if self._last == self._answers:
            self._heard = asyncio.get_running_loop().time()
        self._last += 1
        number = self._last
        future: asyncio.Future[tuple[Answer, bytes]] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        if self._watch is None:
            self._look()
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(frame(Ask(number, op, list(texts), query)))
            await stdin.drain()
            return await future
        except ConnectionError as error:
            raise _Died from error
        finally:
            self._asked.pop(number, None)

    def _look(self) -> None:
        """Kills a process that has been asked and is silent; what it was asked is then asked of the next."""
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self.alive or self._last == self._answers:
            return
        if loop.time() - self._heard >= self._patience:
            log.warning("the embedding process hangs and is replaced")
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        else:
            self._watch = loop.call_at(self._heard + self._patience, self._look)

    async def close(self) -> None:
        self.alive = False
        if self._watch is not None:
            self._watch.cancel()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await _end(self._process)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                head, body = await _read_frame(self._process.stdout)
                answer = msgspec.msgpack.decode(head, type=Answer)
                self._answers += 1
                self._heard = asyncio.get_running_loop().time()
                future = self._asked.get(answer.id)
                if future is not None and not future.done():
                    future.set_result((answer, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            log.warning("the embedding process ended; it is started again when needed")
        finally:
            self.alive = False
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(_Died())


class ProcessEmbedder:
    def __init__(self, model: Model, *, name: str, dimensions: int = 0, unload_after: float = 900.0) -> None:
        self._model = model
        self._dimensions = dimensions
        self._unload_after = unload_after
        self.patience = PATIENCE_SECONDS
        self._running: _Running | None = None
        self._starting: asyncio.Task[_Running] | None = None
        self._bulk = asyncio.Semaphore(BULK_REQUESTS)
        self._state = EmbedderState("unloaded", name, "The model loads when it is first needed.")
        self._retry_at = 0.0
        self._unloading: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def name(self) -> str:
        return self._state.model

    @property
    def dimensions(self) -> int:
        """0 until a model from a folder or hub was first loaded."""
        return self._dimensions

    @property
    def pid(self) -> int | None:
        """Of the process that holds the model, while there is one."""
        return self._running.pid if self._running is not None and self._running.alive else None

    def state(self) -> EmbedderState:
        if self._state.state == "ready" and self.pid is None:
            return EmbedderState("unloaded", self.name, "The model loads again when it is next needed.")
        return self._state

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        import numpy as np

        if query:
            return self._vectors(*await self._ask("embed", texts, query=True))
        parts = [np.zeros((0, self._dimensions), np.float32)]
        for start in range(0, len(texts), SLICE):
            async with self._bulk:
                parts.append(self._vectors(*await self._ask("embed", texts[start : start + SLICE])))
        return np.concatenate(parts[1:] or parts)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Exact when there is a model, an estimate from the length when there is none."""
        try:
            return (await self._ask("count", texts))[0].counts
        except EmbeddingAbsent:
            return estimate_tokens(texts)

    async def close(self) -> None:
        self._closed = True
        if self._unloading is not None:
            self._unloading.cancel()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        running, self._running = self._running, None
        if running is not None:
            await running.close()
        await asyncio.gather(*self._closing)

    async def _ask(self, op: str, texts: Sequence[str], *, query: bool = False) -> tuple[Answer, bytes]:
        for _ in range(2):
            with contextlib.suppress(_Died):
                running = await self._started()
                try:
                    answer, body = await running.ask(op, texts, query)
                finally:
                    self._rest()
                if answer.error:
                    raise Unavailable(f"The embedding model failed: {answer.error}", code="embedding_failed")
                return answer, body
        raise Unavailable("The embedding process died twice over the same text.", code="embedding_died")

    async def _started(self) -> _Running:
        """The running process, started if need be: once for all who wait, and on even when one of them gives up."""
        if self._unloading is not None:
            self._unloading.cancel()
        if self._closed:
            raise _closed()
        if self._running is not None and self._running.alive:
            return self._running
        if self._state.state == "absent" and asyncio.get_running_loop().time() < self._retry_at:
            raise EmbeddingAbsent(self._state.why)
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="embedding start")
            self._starting.add_done_callback(_heard)
        starting = self._starting
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if starting.cancelled():
                raise _closed() from None
            raise

    async def _start(self) -> _Running:
        self._tell("preparing", "The embedding model is being loaded.")
        try:
            if self._running is not None:
                await self._running.close()
            self._running = running = await _Running.start(self._model, self.patience)
        except EmbeddingAbsent as error:
            self._retry_at = asyncio.get_running_loop().time() + RETRY_ABSENT_SECONDS
            self._tell("absent", error.message)
            raise
        except BaseException:
            self._tell("unloaded", "The embedding process did not start.")
            raise
        finally:
            self._starting = None
        self._dimensions = running.hello.dimensions
        self._tell("ready")
        return running

    def _vectors(self, _: Answer, body: bytes) -> Any:
        import numpy as np

        return np.frombuffer(body, np.float32).reshape(-1, self._dimensions)

    def _tell(self, state: Any, why: str = "") -> None:
        self._state = EmbedderState(state, self.name, why)

    def _rest(self) -> None:
        """Have the model leave memory after a while of silence."""
        if self._unloading is not None:
            self._unloading.cancel()
        if self._unload_after and not self._closed:
            self._unloading = asyncio.get_running_loop().call_later(self._unload_after, self._unload)

    def _unload(self) -> None:
        running = self._running
        if running is None or running.busy or self._starting is not None:
            return
        self._running = None
        self._tell("unloaded", "The model left memory because nobody asked; it loads again when needed.")
        task = asyncio.create_task(running.close(), name="embedding unload")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _closed() -> Unavailable:
    return Unavailable("The embedding model is closed: the server is shutting down.")


def _heard(task: "asyncio.Task[_Running]") -> None:
    """Its error was told in `state()`, even if all who waited for it have given up."""
    if not task.cancelled():
        task.exception()


async def _read_frame(stream: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head, body = PREFIX.unpack(await stream.readexactly(PREFIX.size))
    return await stream.readexactly(head), await stream.readexactly(body)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Closing its input is enough; a process that does not notice is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), CLOSE_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
