"""A GGUF file run by llama.cpp inside our own process (`terrace[llamacpp]`).

xllamacpp carries llama.cpp's server; it runs in threads of its own, outside Python's lock, on a port of the loopback
interface that only takes a key drawn at random. To us it is one more OpenAI-compatible upstream. The model is loaded
by the first call that needs it.
"""

import asyncio
import secrets
import signal
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from terrace.errors import Invalid, Unavailable
from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.upstream import Upstream
from terrace.models.transport.base import Transport

THREADS = 1  # measured: on two busy cores a second thread costs more than it brings
CONTEXT = 8192  # tokens of all calls together
SLOTS = 4  # calls at a time
MAGIC = b"GGUF"


class LlamaCpp:
    """Raises Invalid when the file is no GGUF file, Unavailable (`extra_missing`) when the extra is not installed."""

    def __init__(self, name: str, path: Path, transport: Transport, threads: int = THREADS) -> None:
        self._name = name
        self._path = path
        self._transport = transport
        self._threads = threads
        self._loading = asyncio.Lock()
        self._server: Any = None
        self._upstream: OpenAI | None = None

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        await asyncio.to_thread(self._check)
        model = self._path.stem
        return [
            ModelInfo(
                id=f"{self._name}/{model}",
                provider=self._name,
                name=model,
                context_tokens=CONTEXT,
                vision=False,
                size_bytes=self._path.stat().st_size,
            )
        ]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        server = await self._loaded()
        async with aclosing(server.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        raise Invalid(f"The provider `{self._name}` makes no embeddings.", code="no_embeddings")

    async def close(self) -> None:
        """Unload the model; running answers end."""
        server, self._server, self._upstream = self._server, None, None
        if server is not None:
            await asyncio.to_thread(_drop, [server])

    async def _loaded(self) -> OpenAI:
        async with self._loading:
            if self._upstream is None:
                await asyncio.to_thread(self._check)
                key = secrets.token_urlsafe(24)
                self._server = await asyncio.to_thread(self._start, key)
                _take_signals_back()
                self._upstream = OpenAI(
                    self._name,
                    Upstream(
                        label=f"llama.cpp (`{self._name}`)",
                        base_url=f"{self._server.listening_address}/v1",
                        headers=((b"authorization", f"Bearer {key}".encode()),),
                        transport=self._transport,
                        secrets=(key,),
                    ),
                )
            return self._upstream

    def _check(self) -> None:
        try:
            import xllamacpp  # noqa: F401
        except ImportError:
            raise Unavailable(
                f"The provider `{self._name}` needs llama.cpp: install it with `pip install terrace[llamacpp]`.",
                code="extra_missing",
            ) from None
        try:
            with self._path.open("rb") as file:
                magic = file.read(len(MAGIC))
        except OSError as error:
            raise Invalid(
                f"The model file {self._path} can't be read: {error.strerror}.", code="model_file_unreadable"
            ) from error
        if magic != MAGIC:
            raise Invalid(f"{self._path} is no GGUF file.", code="model_file_unreadable")

    def _start(self, key: str) -> Any:
        from xllamacpp import CommonParams, Server

        params = CommonParams()
        params.model.path = str(self._path)
        params.n_ctx = CONTEXT
        params.n_parallel = SLOTS
        params.kv_unified = True  # slots share the context, so that one call may use most of it
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.cache_ram_mib = 0
        params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
        params.ui = params.endpoint_slots = False
        params.verbosity = 0
        try:
            return Server(params)
        except RuntimeError as error:
            raise Unavailable(
                f"llama.cpp could not load {self._path}: the file may be damaged or too large for the memory.",
                code="model_not_loaded",
            ) from error


def _take_signals_back() -> None:
    """llama.cpp's server puts its own handlers on SIGINT and SIGTERM, which would keep them from us."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def _drop(server: list[Any]) -> None:
    """Let go of the last reference here, in a thread: it waits for llama.cpp to stop."""
    server.clear()
