"""A campaign followed live: messages as they end, progress, its state; from where a reader stopped."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from sqlmodel import Session

from terrace.campaigns.runs import store
from terrace.campaigns.runs.base import OVER, Campaign, Event, Message
from terrace.storage import Database, after_commit
from terrace.types import Scope

PAGE = 200  # messages read at a time
PROGRESS_SECONDS = 0.5  # progress is told this often at most
COALESCE_SECONDS = 0.1  # the table is read this often at most
POLL_SECONDS = 5.0  # and at least this often, even when nobody tells us anything


class Feed:
    """One for each process. It wakes by what this process and others write, and reads the table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._followers: dict[str, set[asyncio.Event]] = {}
        self._unwatch: Callable[[], None] | None = None
        self._closed = False

    def told(self, session: Session, campaign_id: str) -> None:
        """In the transaction that changes the campaign."""
        if campaign_id in self._followers:
            after_commit(session, lambda: self._wake(campaign_id))

    async def follow(self, scope: Scope, campaign_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        """Raises Missing at the first step."""
        if self._unwatch is None:
            self._unwatch = self._database.watch(self._wake_all)
        news = asyncio.Event()
        self._followers.setdefault(campaign_id, set()).add(news)
        try:
            async for event in self._events(scope, campaign_id, after, news):
                yield event
        finally:
            followers = self._followers.get(campaign_id, set())
            followers.discard(news)
            if not followers:
                self._followers.pop(campaign_id, None)

    def close(self) -> None:
        """Let every reader go."""
        self._closed = True
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        self._wake_all()

    async def _events(
        self, scope: Scope, campaign_id: str, after: int, news: asyncio.Event
    ) -> AsyncGenerator[Event, None]:
        state: tuple[str, Any] | None = None
        shown, told_at = None, 0.0
        while not self._closed:
            news.clear()  # first listen, then read
            campaign, ended = await self._database.read(_read, scope, campaign_id, after)
            if (campaign.state, campaign.reason) != state:
                state = (campaign.state, campaign.reason)
                yield Event("state", msgspec.to_builtins({"state": campaign.state, "reason": campaign.reason}))
            for seq, message in ended:
                after = seq
                yield Event("message", _shown(message), seq)
            more, over = len(ended) == PAGE, campaign.state in OVER and not campaign.counts.writing
            progress = _progress(campaign)
            if progress != shown and (time.monotonic() >= told_at + PROGRESS_SECONDS or (over and not more)):
                shown, told_at = progress, time.monotonic()
                yield Event("progress", progress)
            if more:
                continue
            if over:
                yield Event("done", {"state": campaign.state, **progress})
                return
            untold = progress != shown  # and has to be told soon, whether more happens or not
            await self._news(news, PROGRESS_SECONDS if untold else POLL_SECONDS)

    async def _news(self, news: asyncio.Event, longest: float) -> None:
        try:
            async with asyncio.timeout(longest):
                await news.wait()
        except TimeoutError:
            return
        await asyncio.sleep(COALESCE_SECONDS)

    def _wake(self, campaign_id: str) -> None:
        for each in self._followers.get(campaign_id, ()):
            each.set()

    def _wake_all(self) -> None:
        for campaign_id in self._followers:
            self._wake(campaign_id)


def _read(session: Session, scope: Scope, campaign_id: str, after: int) -> tuple[Campaign, list[tuple[int, Message]]]:
    return store.get(session, scope, campaign_id), store.ended_after(session, scope, campaign_id, after, PAGE)


def _shown(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(message)
    return shown


def _progress(campaign: Campaign) -> dict[str, Any]:
    counts = campaign.counts
    return {
        "done": counts.done,
        "failed": counts.failed,
        "skipped": counts.skipped,
        "writing": counts.writing,
        "total": counts.total,
        "cost": campaign.cost,
        "per_second": None if campaign.per_second is None else round(campaign.per_second, 2),
        "eta": None if campaign.eta is None else round(campaign.eta, 1),
    }
