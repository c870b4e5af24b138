"""A GGUF file run by llama.cpp (`terrace[llamacpp]`), without any server to install.

Its server runs in a child process, which the first call starts: see `llamacpp_process`.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from terrace.errors import Invalid
from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo
from terrace.models.providers.llamacpp_process import LlamaProcess, Loading, check_model, start_llama
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.upstream import Upstream
from terrace.models.transport.base import Transport

THREADS = 1  # measured: on two busy cores a second thread costs more than it brings
CONTEXT = 8192  # tokens of all calls together
SLOTS = 4  # calls at a time


class LlamaCpp:
    """Raises Invalid when the file is no GGUF file, Unavailable (`extra_missing`) when the extra is not installed."""

    def __init__(self, name: str, path: Path, transport: Transport, threads: int = THREADS) -> None:
        self._name = name
        self._path = path
        self._transport = transport
        self._threads = threads
        self._loading = asyncio.Lock()
        self._process: LlamaProcess | None = None
        self._server: OpenAI | None = None

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        size = await asyncio.to_thread(self._check)
        model = self._path.stem
        return [
            ModelInfo(
                id=f"{self._name}/{model}",
                provider=self._name,
                name=model,
                context_tokens=CONTEXT,
                vision=False,
                size_bytes=size,
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
        """Unload the model; running answers break off."""
        process, self._process, self._server = self._process, None, None
        if process is not None:
            await process.stop()

    async def _loaded(self) -> OpenAI:
        """The running server; started if it is not there, or not any more."""
        async with self._loading:
            if self._server is None or self._process is None or not self._process.alive:
                await asyncio.to_thread(self._check)
                await self.close()
                self._server = await self._start()
            return self._server

    async def _start(self) -> OpenAI:
        self._process = process = await start_llama(Loading(self._path, CONTEXT, SLOTS, self._threads))
        return OpenAI(
            self._name,
            Upstream(
                label=f"llama.cpp (`{self._name}`)",
                base_url=process.address,
                headers=process.headers,
                transport=self._transport,
                secrets=(process.key,),
                repeats=2,
            ),
        )

    def _check(self) -> int:
        return check_model(self._path, f"The provider `{self._name}`")
