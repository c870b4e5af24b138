"""What assembly hands to the doors, and how a handler asks for it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from terrace.settings import Settings
from terrace.telemetry.metrics import Metrics
from terrace.types import Scope

if TYPE_CHECKING:
    from terrace.chat.service import Chat
    from terrace.jobs.base import Jobs
    from terrace.knowledge.search import Search
    from terrace.knowledge.service import Knowledge
    from terrace.models.service import Models


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    jobs: "Jobs"
    knowledge: "Knowledge"
    search: "Search"
    chat: "Chat"
    models: "Models"
    metrics: Metrics
    submit: Callable[..., Awaitable[str]]
    ready: Callable[[], Awaitable[dict[str, str]]]
    status: Callable[[Scope], Awaitable[dict[str, Any]]]
    drained: asyncio.Event  # set when we stop and no job of ours runs any more: streams end, clients come back later


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _scope() -> Scope:
    """Who is calling. In local mode: the one person at this machine."""
    return Scope()


House = Annotated[Services, Depends(_services)]
Who = Annotated[Scope, Depends(_scope)]
