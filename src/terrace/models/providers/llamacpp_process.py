"""llama.cpp's own server (`terrace[llamacpp]`), begun, reached and ended.

Loading a model there holds Python's lock for seconds, its failed assertions end the process, and it puts handlers of
its own on our signals; so it runs in a child process, which ends with us. To us it is an OpenAI-compatible upstream, on
a loopback port that takes only a key drawn at random.
"""

import asyncio
import importlib.util
import json
import secrets
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from terrace.errors import Invalid, Unavailable
from terrace.models.transport.base import Headers

CHILD = "terrace.models.providers.llamacpp_child"
LOAD_SECONDS = 300.0
STOP_SECONDS = 5.0
MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class Loading:
    """A model file, and how it is run: `context` tokens of all calls together, `slots` calls at a time, which llama.cpp
    batches. `name` is what answers call the model; the file's, when empty."""

    path: Path
    context: int
    slots: int
    threads: int
    name: str = ""


class LlamaProcess:
    """A running server. Its address ends in `/v1`."""

    def __init__(self, child: asyncio.subprocess.Process, address: str, key: str) -> None:
        self.child = child
        self.address = address
        self.key = key

    @property
    def alive(self) -> bool:
        return self.child.returncode is None

    @property
    def headers(self) -> Headers:
        return ((b"authorization", f"Bearer {self.key}".encode()),)

    async def ended(self, within: float) -> bool:
        """Whether it has, or does so in so many seconds: a failure may be seen before the end that it comes from."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self.child.wait()
        return not self.alive

    async def stop(self) -> None:
        """Running answers break off."""
        await _stop(self.child)


async def start_llama(loading: Loading) -> LlamaProcess:
    """Returns once the model is loaded. Raises Unavailable (`model_not_loaded`) when it can't be."""
    key = secrets.token_urlsafe(24)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", CHILD,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for us: answers may finish first
    )  # fmt: skip
    try:
        address = await _greet(child, loading, key)
    except BaseException:
        child.kill()  # while it loads it hears nothing
        await child.wait()
        raise
    return LlamaProcess(child, f"{address}/v1", key)


def check_model(path: Path, who: str) -> int:
    """The file's size in bytes. Raises Invalid when it is no GGUF file, Unavailable (`extra_missing`) when the extra is
    not installed; `who` needs it."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise Unavailable(
            f"{who} needs llama.cpp: pip install 'terrace[llamacpp]' in Terrace's environment.", code="extra_missing"
        )
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        size = path.stat().st_size
    except OSError as error:
        raise Invalid(
            f"The model file {path} can't be read: {error.strerror}.", code="model_file_unreadable"
        ) from error
    if magic != MAGIC:
        raise Invalid(f"{path} is no GGUF file.", code="model_file_unreadable")
    return size


async def _greet(child: asyncio.subprocess.Process, loading: Loading, key: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    wanted = {**asdict(loading), "path": str(loading.path), "name": loading.name or loading.path.stem, "key": key}
    child.stdin.write(json.dumps(wanted).encode() + b"\n")
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            line = await child.stdout.readline()
    except TimeoutError:
        line = b""
    address = json.loads(line).get("address") if line.startswith(b"{") else None
    if not address:
        raise Unavailable(
            f"llama.cpp could not load {loading.path}: the file may be damaged or too large for the memory.",
            code="model_not_loaded",
        )
    return str(address)


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
