"""The parts of campaigns put together: what assembly builds."""

from collections.abc import Callable
from dataclasses import dataclass

from terrace import settings
from terrace.campaigns.runs.base import Emitter, PriceList, Retriever, Silent, Writers
from terrace.campaigns.runs.feed import Feed
from terrace.campaigns.runs.loading import Loader
from terrace.campaigns.runs.preparing import Preparing
from terrace.campaigns.runs.previewing import Previewing
from terrace.campaigns.runs.service import Campaigns
from terrace.campaigns.runs.steps import Steps
from terrace.campaigns.runs.store import pinned
from terrace.campaigns.runs.tasks import Messages
from terrace.campaigns.runs.writing import Writer
from terrace.campaigns.templates.coverage import People
from terrace.campaigns.templates.service import Templates
from terrace.jobs.base import JobKind
from terrace.jobs.service import JobService
from terrace.storage import Database


@dataclass(frozen=True, slots=True)
class Opened:
    campaigns: Campaigns
    templates: Templates
    feed: Feed
    kinds: tuple[JobKind, ...]


def open_campaigns(
    database: Database,
    jobs: JobService,
    models: Writers,
    retriever: Retriever,
    prices: PriceList,
    people: People,
    options: settings.Campaigns,
    emitter: Emitter | None = None,
    check_webhook: Callable[[str], str] = str,
) -> Opened:
    """`models` must have been opened with `purse.Purses` as their meter, else nothing is counted."""
    feed = Feed(database)
    steps = Steps(jobs, emitter or Silent(), feed.told)
    writer = Writer(models, retriever, options.knowledge_passages)
    preparing = Preparing(database, people, steps)
    messages = Messages(database, Loader(database, people), writer, steps)
    previewing = Previewing(database, people, writer, models, prices, steps)
    campaigns = Campaigns(
        database, jobs, models, prices, people, options, steps, preparing, feed, check_webhook=check_webhook
    )
    kinds = (preparing.kind(), messages.kind(), previewing.kind())
    return Opened(campaigns, Templates(database, pinned), feed, kinds)
