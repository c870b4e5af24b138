"""Importing from other systems: a house that is put together, but in which nobody works."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from terrace.accounts.tenants import Tenants
from terrace.assembly.house import assemble
from terrace.assembly.joints import Upstream
from terrace.errors import Missing
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.moving.mongo_qdrant.house import House
from terrace.moving.mongo_qdrant.service import Imports
from terrace.settings import Settings
from terrace.types import DEFAULT_TENANT, Scope


@asynccontextmanager
async def importing(settings: Settings, tenant: str) -> AsyncIterator[tuple[Imports, Scope]]:
    """On the data of these settings, beside whatever serves them. `tenant`: by id or name. Raises Missing."""
    embedding = settings.knowledge.embedding
    async with assemble(settings) as house:

        def opener(setting: str, precision: str) -> StatefulEmbedder:
            options = embedding.model_copy(update={"model": setting, "precision": precision})
            providers = {name: Upstream(name, lambda: house.models) for name in settings.models.providers}
            return open_embedder(options, settings.data, providers)

        scope = await _scope(house.accounts.tenants, tenant)
        await house.generations.start()
        imports = Imports(
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
        yield imports, scope


async def _scope(tenants: Tenants, given: str) -> Scope:
    """Documents that come into a tenant that is none would be nobody's."""
    if given == DEFAULT_TENANT or given.startswith("tnt_"):
        return Scope((await tenants.get(given)).id)
    found, _ = await tenants.list(q=given)
    for each in found:
        if each.name == given:
            return Scope(each.id)
    raise Missing(f"No tenant is named {given}; `terrace tenant list` shows which there are.")
