"""A GGUF file run by llama.cpp (`terrace[llamacpp]`), without any server to install.

xllamacpp carries llama.cpp's own server. Loading a model there holds Python's lock for seconds, its failed assertions
end the process, and it puts handlers of its own on our signals; so it runs in a child process, which the first call
starts and which ends with us. To us it is one more OpenAI-compatible upstream, on a loopback port that takes only a
key drawn at random.
"""

import asyncio
import importlib.util
import json
import secrets
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from terrace.errors import Invalid, Unavailable
from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo
from terrace.models.providers.openai import OpenAI
from terrace.models.providers.upstream import Upstream
from terrace.models.transport.base import Transport

CHILD = "terrace.models.providers.llamacpp_child"
THREADS = 1  # measured: on two busy cores a second thread costs more than it brings
CONTEXT = 8192  # tokens of all calls together
SLOTS = 4  # calls at a time
LOAD_SECONDS = 300.0
STOP_SECONDS = 5.0
MAGIC = b"GGUF"


class LlamaCpp:
    """Raises Invalid when the file is no GGUF file, Unavailable (`extra_missing`) when the extra is not installed."""

    def __init__(self, name: str, path: Path, transport: Transport, threads: int = THREADS) -> None:
        self._name = name
        self._path = path
        self._transport = transport
        self._threads = threads
        self._loading = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
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
        child, self._child, self._server = self._child, None, None
        if child is not None:
            await _stop(child)

    async def _loaded(self) -> OpenAI:
        """The running server; started if it is not there, or not any more."""
        async with self._loading:
            if self._server is None or self._child is None or self._child.returncode is not None:
                await asyncio.to_thread(self._check)
                await self.close()
                self._server = await self._start()
            return self._server

    async def _start(self) -> OpenAI:
        key = secrets.token_urlsafe(24)
        wanted = {
            "path": str(self._path),
            "key": key,
            "context": CONTEXT,
            "slots": SLOTS,
            "threads": self._threads,
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", CHILD,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for us: answers may finish first
        )  # fmt: skip
        try:
            address = await self._greet(child, wanted)
        except BaseException:
            await _stop(child)
            raise
        self._child = child
        return OpenAI(
            self._name,
            Upstream(
                label=f"llama.cpp (`{self._name}`)",
                base_url=f"{address}/v1",
                headers=((b"authorization", f"Bearer {key}".encode()),),
                transport=self._transport,
                secrets=(key,),
                repeats=2,
            ),
        )

    async def _greet(self, child: asyncio.subprocess.Process, wanted: dict[str, object]) -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(json.dumps(wanted).encode() + b"\n")
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                line = await child.stdout.readline()
        except TimeoutError:
            line = b""
        address = json.loads(line).get("address") if line.startswith(b"{") else None
        if not address:
            raise Unavailable(
                f"llama.cpp could not load {self._path}: the file may be damaged or too large for the memory.",
                code="model_not_loaded",
            )
        return str(address)

    def _check(self) -> int:
        """The file's size in bytes."""
        if importlib.util.find_spec("xllamacpp") is None:
            raise Unavailable(
                f"The provider `{self._name}` needs llama.cpp: install it with `pip install terrace[llamacpp]`.",
                code="extra_missing",
            )
        try:
            with self._path.open("rb") as file:
                magic = file.read(len(MAGIC))
            size = self._path.stat().st_size
        except OSError as error:
            raise Invalid(
                f"The model file {self._path} can't be read: {error.strerror}.", code="model_file_unreadable"
            ) from error
        if magic != MAGIC:
            raise Invalid(f"{self._path} is no GGUF file.", code="model_file_unreadable")
        return size


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Closing its input ends it; what does not end is killed."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()
