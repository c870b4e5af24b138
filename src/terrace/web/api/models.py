"""Which models there are, and which one answers."""

import asyncio
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, Field

from terrace.errors import Denied
from terrace.jobs.base import Job
from terrace.models.choice import Answering
from terrace.models.service import ProviderInfo
from terrace.types import Scope
from terrace.web.access import Me, resource
from terrace.web.services import House, Services

router = resource(prefix="/models", tags=["models"])


class Pull(BaseModel):
    model: str = Field(min_length=1, max_length=300, examples=["ollama/llama3.2"])


@router.get("")
async def list_models(house: House, me: Me) -> dict[str, Any]:
    """Models one may use, each provider's state, and which model answers and why."""
    models = house.models
    items, providers, answering = await asyncio.gather(
        models.list(me.scope), models.providers(), _answering(house, me.scope)
    )
    return {
        "default": house.settings.models.default,
        "items": items,
        "providers": [each if "operator" in me.permissions else _public(each) for each in providers],
        "answering": answering,
    }


@router.post("/pull", status_code=202)
async def pull_model(house: House, me: Me, body: Pull) -> Job:
    """Have Ollama fetch a model; the job tells its progress."""
    job_id = await house.submit(me.scope, "models.pull", {"model": body.model})
    await house.audit.note(me, "model.pulled", job_id)
    return await house.jobs.get(me.scope, job_id)


async def _answering(house: Services, who: Scope) -> Answering | dict[str, str | None]:
    try:
        return await house.models.answering(who)
    except Denied as error:  # their tenant's or key's models leave nothing
        return {"model": None, "why": error.message, "advice": None}


def _public(provider: ProviderInfo) -> ProviderInfo:
    """Without where it is, which may be a name of a network that members have no business in."""
    return replace(provider, base_url="", why="" if provider.state == "ok" else "An operator can see why.")
