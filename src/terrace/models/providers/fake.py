"""A provider that says what it is told to, for tests and demonstrations."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

from terrace.models.base import ChatRequest, Delta, Embeddings, Finish, ModelInfo, TextDelta, Usage
from terrace.models.providers.ending import Ending
from terrace.models.providers.parts import text_of
from terrace.models.tokens import estimate

Step = Delta | str | float | BaseException | Callable[[], Awaitable[object]]


class Fake:
    """Each call plays the next script, the last one again and again; without any, it echoes the user's last words.

    A step is a delta, a string (a TextDelta), a number of seconds to pause, something to await (an event's `wait`),
    or an error to raise. A script need not end in Usage and Finish: they are added. `requests` holds what was asked,
    `left` counts the calls whose reader went away.
    """

    def __init__(self, name: str = "fake", scripts: Iterable[Sequence[Step]] = (), models: Sequence[str] = ("echo",)):
        self._name = name
        self._scripts = list(scripts)
        self._models = models
        self.requests: list[ChatRequest] = []
        self.left = 0
        self.running = 0
        self.failure: BaseException | None = None  # raised by `models` while set

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        if self.failure is not None:
            raise self.failure
        return [ModelInfo(f"{self._name}/{model}", self._name, model) for model in self._models]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        number = len(self.requests)
        self.requests.append(request)
        script = self._scripts[min(number, len(self._scripts) - 1)] if self._scripts else _echo(request)
        self.running += 1
        try:
            async for delta in self._played(script, Ending(request)):
                yield delta
        except (GeneratorExit, asyncio.CancelledError):
            self.left += 1
            raise
        finally:
            self.running -= 1

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """Two numbers a text: how long it is, and one."""
        vectors = [[float(len(text)), 1.0] for text in texts]
        return Embeddings(vectors, Usage(sum(map(estimate, texts)), 0, estimated=True))

    async def close(self) -> None:
        """Nothing is open."""

    async def _played(self, script: Sequence[Step], ending: Ending) -> AsyncGenerator[Delta, None]:
        for step in script:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, float | int):
                await asyncio.sleep(step)
            elif callable(step):
                await step()
            elif isinstance(step, Usage):
                ending.usage = step
            elif isinstance(step, Finish):
                ending.reason = step.reason
            else:
                delta = TextDelta(step) if isinstance(step, str) else step
                ending.saw(delta)
                yield delta
        for last in ending.deltas():
            yield last


def _echo(request: ChatRequest) -> list[Step]:
    said = [text_of(message.get("content")) for message in request.messages if message.get("role") == "user"]
    words = (said[-1] if said else "").split(" ")
    return [word if position == 0 else f" {word}" for position, word in enumerate(words)]
