"""A provider around a provider: passes everything on, for wrappers that change one thing."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from terrace.models.base import ChatRequest, Delta, Embeddings, ModelInfo, Provider


class Wrapper:
    def __init__(self, inner: Provider) -> None:
        self.inner = inner

    @property
    def name(self) -> str:
        return self.inner.name

    async def models(self) -> list[ModelInfo]:
        return await self.inner.models()

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        async with aclosing(self.inner.stream(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        return await self.inner.embed(model, texts)

    async def close(self) -> None:
        await self.inner.close()
