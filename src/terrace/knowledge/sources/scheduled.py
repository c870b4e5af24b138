"""Sources that run by themselves: what a schedule starts, and the schedule that is made with a source."""

from contextlib import suppress
from typing import Any

from sqlmodel import Session

from terrace.errors import Missing
from terrace.knowledge.sources import store
from terrace.knowledge.sources.base import ACTION, NewSource, Source
from terrace.knowledge.sources.service import Sources
from terrace.schedules.base import Action
from terrace.schedules.service import Schedules
from terrace.types import Scope


class Scheduled:
    """The `Scheduling` of sources, by the house's schedules."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def start(self, scope: Scope, source: Source, wanted: NewSource) -> str:
        made = await self._schedules.create(
            scope,
            name=f"{source.name[:150]} ({source.id})",
            action=ACTION,
            payload={"source_id": source.id},
            cron=wanted.cron,
            every=wanted.every,
            timezone=wanted.timezone,
        )
        return made.id

    async def stop(self, scope: Scope, schedule_id: str) -> None:
        with suppress(Missing):  # somebody removed it already
            await self._schedules.remove(scope, schedule_id)


def action(sources: Sources) -> Action:
    """For the schedules: look at a source. It has no confirm, so it never takes out more than half of a folder."""

    def check(session: Session, scope: Scope, payload: dict[str, Any]) -> None:
        store.get(session, scope, payload["source_id"])

    def start(session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        return sources.start(session, scope, {"source_id": payload["source_id"]})

    return Action(ACTION, "Look at a source for what is new, changed or gone", start, ("source_id",), check)
