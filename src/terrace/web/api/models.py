"""Which models there are, and which one answers."""

import asyncio
from typing import Any

from pydantic import BaseModel, Field

from terrace.jobs.base import Job
from terrace.web.access import Who, resource
from terrace.web.services import House

router = resource(prefix="/models", tags=["models"])


class Pull(BaseModel):
    model: str = Field(min_length=1, max_length=300, examples=["ollama/llama3.2"])


@router.get("")
async def list_models(house: House) -> dict[str, Any]:
    """Models by provider, each provider's state, and which model answers and why."""
    models = house.models
    items, providers, answering = await asyncio.gather(models.list(), models.providers(), models.answering())
    return {
        "default": house.settings.models.default,
        "items": items,
        "providers": providers,
        "answering": answering,
    }


@router.post("/pull", status_code=202)
async def pull_model(house: House, who: Who, body: Pull) -> Job:
    """Have Ollama fetch a model; the job tells its progress."""
    job_id = await house.submit(who, "models.pull", {"model": body.model})
    return await house.jobs.get(who, job_id)
