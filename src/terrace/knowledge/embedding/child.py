"""The embedding process: `python -m terrace.knowledge.embedding.child '<wire.Model as JSON>'`.

One thread reads frames, one answers queries, the others work through bulk requests batch by batch, niced, so
that a query never waits for more than a turn of the processor. It ends when its input does: with its parent,
however that one died.
"""

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, PriorityQueue, SimpleQueue
from typing import Any, BinaryIO

import msgspec

from terrace.knowledge.embedding.base import EmbeddingAbsent
from terrace.knowledge.embedding.wire import MAX_HEADER, PREFIX, Answer, Ask, Hello, Model, frame

M_ARENA_MAX = -8  # malloc.h
NICENESS = 10  # of bulk threads
QUIET = 2.0  # seconds without bulk work after which its memory is given back
COUNT_FIRST, EMBED_NEXT = 0, 1


@dataclass
class _Bulk:
    """A bulk request under way: its batches may finish in any order, on any thread."""

    ask: Ask
    tokens: list[list[int]]
    vectors: Any
    left: int
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(order=True)
class _Job:
    """Bulk work in the order it is done: counts first, then requests in turn, a request's batches as listed."""

    rank: int
    request: int
    part: int
    ask: Ask = field(compare=False)
    run: Callable[[], None] = field(compare=False)


class Child:
    def __init__(self, encoder: Any, output: BinaryIO, threads: int) -> None:
        self._encoder = encoder
        self._output = output
        self._writing = threading.Lock()
        self._queries: SimpleQueue[Ask] = SimpleQueue()
        self._bulk: PriorityQueue[_Job] = PriorityQueue()
        threading.Thread(target=self._answer_queries, daemon=True).start()
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def read_forever(self, source: BinaryIO) -> None:
        decode = msgspec.msgpack.Decoder(Ask).decode
        while (prefix := source.read(PREFIX.size)) and len(prefix) == PREFIX.size:
            size, _ = PREFIX.unpack(prefix)
            if size > MAX_HEADER:
                return
            ask = decode(source.read(size))
            if ask.query:
                self._queries.put(ask)
            elif ask.op == "count":
                self._bulk.put(_Job(COUNT_FIRST, ask.id, 0, ask, partial(self._count, ask)))
            else:
                self._bulk.put(_Job(EMBED_NEXT, ask.id, 0, ask, partial(self._split, ask)))

    def _answer_queries(self) -> None:
        while True:
            ask = self._queries.get()
            self._guarded(ask, partial(self._query, ask))

    def _work(self) -> None:
        lower_priority(NICENESS)
        while True:
            try:
                job = self._bulk.get(timeout=QUIET)
            except Empty:
                give_back_memory()
                job = self._bulk.get()
            self._guarded(job.ask, job.run)

    def _guarded(self, ask: Ask, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._send(Answer(ask.id, error=f"{type(error).__name__}: {error}"))

    def _count(self, ask: Ask) -> None:
        self._send(Answer(ask.id, counts=self._encoder.count(ask.texts)))

    def _query(self, ask: Ask) -> None:
        tokens = self._encoder.tokens(ask.texts, query=True)
        vectors = self._room(len(tokens))
        for places in self._encoder.batches(tokens):
            vectors[places] = self._encoder.run([tokens[place] for place in places])
        self._send(Answer(ask.id), vectors)

    def _split(self, ask: Ask) -> None:
        tokens = self._encoder.tokens(ask.texts)
        batches = self._encoder.batches(tokens)
        bulk = _Bulk(ask, tokens, self._room(len(tokens)), left=len(batches))
        if not batches:
            self._send(Answer(ask.id), bulk.vectors)
        for part, places in enumerate(reversed(batches)):  # longest first: the last to finish is then a short one
            self._bulk.put(_Job(EMBED_NEXT, ask.id, part, ask, partial(self._run, bulk, places)))

    def _run(self, bulk: _Bulk, places: list[int]) -> None:
        bulk.vectors[places] = self._encoder.run([bulk.tokens[place] for place in places])
        with bulk.lock:
            bulk.left -= 1
            done = bulk.left == 0
        if done:
            self._send(Answer(bulk.ask.id), bulk.vectors)

    def _room(self, rows: int) -> Any:
        import numpy as np

        return np.zeros((rows, self._encoder.dimensions), np.float32)

    def _send(self, answer: Answer, vectors: Any = None) -> None:
        body = b"" if vectors is None else memoryview(vectors).cast("B") if vectors.size else b""
        with self._writing:
            self._output.write(frame(answer, body))
            self._output.flush()


def lower_priority(by: int) -> None:
    """Makes the calling thread give way to others (Linux gives each thread its own niceness)."""
    with contextlib.suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), by)


def share_one_heap() -> None:
    """glibc gives each thread a heap that never shrinks; one for all holds a third less after bulk work."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back_memory() -> None:
    """What glibc keeps of what was freed: a third of the process after bulk work."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def main() -> None:
    share_one_heap()
    model = msgspec.json.decode(sys.argv[1], type=Model)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between our frames
    os.environ["RAYON_NUM_THREADS"] = "1"  # the tokenizer's own threads; ours are enough
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    try:
        from terrace.knowledge.embedding.encoder import load

        encoder = load(model)
    except ImportError as error:
        output.write(frame(Hello(absent=f"The embedding runtime is not installed: {error}.")))
    except EmbeddingAbsent as error:
        output.write(frame(Hello(absent=error.message)))
    else:
        output.write(frame(Hello(dimensions=encoder.dimensions)))
        output.flush()
        Child(encoder, output, model.threads).read_forever(sys.stdin.buffer)
    output.flush()
    os._exit(0)  # threads may be deep in a computation nobody waits for


if __name__ == "__main__":
    main()
