"""Importing from other systems: a house that is put together, but in which nobody works."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from terrace.assembly.house import assemble
from terrace.assembly.joints import Upstream
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.moving.mongo_qdrant.house import House
from terrace.moving.mongo_qdrant.service import Imports
from terrace.settings import Settings


@asynccontextmanager
async def importing(settings: Settings) -> AsyncIterator[Imports]:
    """On the data of these settings, beside whatever serves them."""
    embedding = settings.knowledge.embedding
    async with assemble(settings) as house:

        def opener(setting: str, precision: str) -> StatefulEmbedder:
            options = embedding.model_copy(update={"model": setting, "precision": precision})
            providers = {name: Upstream(name, lambda: house.models) for name in settings.models.providers}
            return open_embedder(options, settings.data, providers)

        await house.generations.start()
        yield Imports(
            House(
                database=house.database,
                blobs=house.blobs,
                index=house.index,
                jobs=house.jobs,
                generations=house.generations,
                opener=opener,
                configured=embedding.model,
                folder=settings.data / "imports",
                admit=house.limits.admit,
            )
        )
