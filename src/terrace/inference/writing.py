"""Chat and completions: the caller's bytes to llama.cpp, its bytes to the caller, so many at a time."""

import asyncio
import re
import time
from collections.abc import Callable

from terrace.errors import Limited, Unavailable
from terrace.inference.caller import Caller
from terrace.inference.measures import Measures
from terrace.models.providers.llamacpp_process import LlamaProcess, Loading, check_model, start_llama
from terrace.models.transport import Response, Transport
from terrace.models.wrappers.limited import Gate
from terrace.settings import Inference as Options
from terrace.telemetry.calls import Call, Outcome, Usage

PROVIDER = "inference"
FIRST_SECONDS = 900.0  # to the first token: a long prompt on a slow processor
IDLE_SECONDS = 300.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
TAIL = 4096  # bytes at an answer's end that hold its timings
PAUSE = 0.2  # seconds before it is asked again, unless its process is seen to have ended
ATTEMPTS = 3  # llama.cpp may close a kept connection while we write to it

_COUNTED = re.compile(rb'"(prompt_n|cache_n|predicted_n)":(\d+)')  # inside a text, quotes are escaped


class Writer:
    """One model behind `slots` places and a queue. It is loaded by `load`, and again when its process has died."""

    def __init__(self, options: Options, transport: Transport, measures: Measures) -> None:
        if options.model is None:
            raise ValueError("a writer needs a model")
        self.name = options.name or options.model.stem
        self.gate = Gate("The model", options.slots, options.queue, options.queue_wait)
        self._loading = Loading(options.model, options.context, options.slots, options.threads, self.name)
        self._transport = transport
        self._measures = measures
        self._turn = asyncio.Lock()
        self._process: LlamaProcess | None = None
        self._usual = 1.0  # seconds an answer takes

    def check(self) -> None:
        """Raises Invalid or Unavailable when the model can't be loaded, as far as that is seen from its file."""
        check_model(self._loading.path, "The role `inference`")

    @property
    def ready(self) -> bool:
        return self._process is not None and self._process.alive

    async def load(self) -> LlamaProcess:
        async with self._turn:
            if self._process is None or not self._process.alive:
                self._process = await start_llama(self._loading)
            return self._process

    async def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.stop()

    async def run(self, caller: Caller, path: str, body: bytes, *, stream: bool) -> None:
        """Answer. Raises Limited, with when to come back, when the queue is full, Unavailable when llama.cpp fails."""
        await self._enter()
        began = time.monotonic()
        trip = _Trip()
        outcome: Outcome = "error"
        code = "internal"
        try:
            await self._relay(caller, trip, path, body, stream=stream)
            outcome, code = "ok", ""
            self._usual += (time.monotonic() - began - self._usual) / 8
        except asyncio.CancelledError:
            outcome, code = "cancelled", ""
            raise
        except Unavailable as error:
            code = error.code
            raise
        finally:
            self.gate.release()
            took, first = time.monotonic() - began, trip.first and trip.first - began
            self._measures.metrics.record(
                Call(PROVIDER, self.name, "chat", outcome, code, took, first, trip.usage(), None)
            )

    async def _enter(self) -> None:
        try:
            await self.gate.acquire(None)
        except Unavailable as error:
            self._measures.refused.value += 1
            wait = min(max(1.0, self._usual * (self.gate.waiting + 1) / self.gate.limit), 600.0)
            raise Limited(error.message, code="queue_full", retry_after=wait) from error

    async def _relay(self, caller: Caller, trip: "_Trip", path: str, body: bytes, *, stream: bool) -> None:
        response = await self._ask(path, body)
        try:
            if stream and response.status == 200:
                async for piece in response:
                    self._measures.speed.count(trip.saw(piece))
                    await caller.piece(piece)
                await caller.end()
            else:
                whole = await response.read(MAX_ANSWER_BYTES)
                trip.saw(whole)
                self._measures.speed.count(trip.written)
                await caller.answer(whole, status=response.status)
        finally:
            response.close()

    async def _ask(self, path: str, body: bytes) -> Response:
        for left in reversed(range(ATTEMPTS)):
            process = await self.load()
            try:
                return await self._transport.send(
                    "POST",
                    process.address + path,
                    (*process.headers, (b"content-type", b"application/json")),
                    body,
                    first_byte_timeout=FIRST_SECONDS,
                    idle_timeout=IDLE_SECONDS,
                )
            except Unavailable:
                if not left:
                    raise
                await process.ended(within=PAUSE)
        raise AssertionError("the last attempt returns or raises")


class _Trip:
    """What is seen of an answer as it passes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tail = b""
        self.first: float | None = None
        self.events = 0

    def saw(self, piece: bytes) -> int:
        """How many events it begins."""
        if self.first is None:
            self.first = self._clock()
        self._tail = (self._tail + piece)[-TAIL:]
        events = piece.count(b"data: ")
        self.events += events
        return events

    @property
    def written(self) -> int:
        return self._counted().get(b"predicted_n", 0)

    def _counted(self) -> dict[bytes, int]:
        return {name: int(number) for name, number in _COUNTED.findall(self._tail)}

    def usage(self) -> Usage | None:
        """As llama.cpp counts; the events that were seen when it was broken off."""
        counted = self._counted()
        if b"predicted_n" in counted:
            cached = counted.get(b"cache_n", 0)
            return Usage(counted.get(b"prompt_n", 0) + cached, counted[b"predicted_n"], cached)
        return Usage(0, self.events, estimated=True) if self.events else None
