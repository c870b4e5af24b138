"""Fetching a model as a job."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from terrace.errors import Invalid
from terrace.jobs.base import Done
from terrace.models.base import RankedSentence
from terrace.models.providers.fake import Fake
from terrace.models.service import open_models
from terrace.models.tasks import pull_kind
from terrace.models.transport import open_transport
from terrace.settings import Models


class Puller(Fake):
    async def pull(self, model: str) -> AsyncIterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        yield {"status": "pulling", "completed": 3, "total": 9}
        yield {"status": "success"}


@dataclass
class Context:
    """As much of a job's context as this handler uses."""

    payload: dict[str, Any]
    said: list[tuple[float, float, str]] = field(default_factory=list)

    def progress(self, done: float, total: float, note: str = "") -> None:
        self.said.append((done, total, note))


class NoRanker:
    async def rank(self, question: str, passages: Any, scope: Any = None) -> list[RankedSentence]:
        return []


async def run(payload: dict[str, Any]) -> tuple[Any, Context]:
    settings = Models(discover=False)
    models = open_models(settings, open_transport(settings), NoRanker(), others=[Puller()])
    kind, context = pull_kind(models), Context(payload)
    assert kind.handler is not None
    try:
        return await kind.handler(context), context  # type: ignore[arg-type]
    finally:
        await models.close()


async def test_progress_is_told_in_bytes() -> None:
    result, context = await run({"model": " llama3.2 "})
    assert context.said == [(0, 0, "pulling manifest"), (3, 9, "pulling"), (0, 0, "success")]
    assert result == Done({"model": "llama3.2"})


@pytest.mark.parametrize("payload", [{}, {"model": 3}, {"model": " "}, {"model": "x" * 500}])
async def test_it_must_be_said_which(payload: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await run(payload)
