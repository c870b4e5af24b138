"""The house: every implementation named and put together."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from tempfile import NamedTemporaryFile

from terrace.accounts.limits.shared.limits import SharedLimits
from terrace.accounts.opening import Accounts, open_accounts
from terrace.accounts.secret import load_secret
from terrace.analysis.leaving import Leaving as AnalysesLeaving
from terrace.analysis.reading import Reader
from terrace.analysis.running import Tools
from terrace.analysis.service import Analyses
from terrace.analysis.tasks import kinds as analysis_kinds
from terrace.assembly import leaving
from terrace.assembly.engines import open_engine
from terrace.assembly.joints import Upstream, collection_names, cost_of, job_starter, stored_by, turns_of
from terrace.batches import running as batches_running
from terrace.batches.base import Answer
from terrace.batches.files import Files
from terrace.batches.service import Batches
from terrace.campaigns.contacts.files import FileImports
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.contacts.service import Contacts
from terrace.campaigns.contacts.tasks import job_kinds as contact_kinds
from terrace.campaigns.databases.reaching import resolver
from terrace.campaigns.databases.service import Databases
from terrace.campaigns.databases.tasks import job_kinds as database_kinds
from terrace.campaigns.runs.opening import open_campaigns
from terrace.campaigns.runs.purse import Purses
from terrace.campaigns.runs.service import Campaigns
from terrace.campaigns.templates.service import Templates
from terrace.chat.answering import Answering
from terrace.chat.cache.service import AnswerCache
from terrace.chat.library import Library
from terrace.chat.rag import RAG
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds as chat_kinds
from terrace.errors import Invalid
from terrace.jobs.carriers import open_carrier
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge.doctor import Doctor
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.generations.base import REEMBED
from terrace.knowledge.generations.queries import RecentQueries
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.generations.serving import ServingEmbedder
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.health.retrievals import Retrievals
from terrace.knowledge.health.service import Health
from terrace.knowledge.health.store import CHECK
from terrace.knowledge.health.tasks import CHECK_ALL, TIDY
from terrace.knowledge.health.tasks import job_kinds as health_kinds
from terrace.knowledge.index import open_index
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.quoting import QuotingRanker
from terrace.knowledge.receiving import Door
from terrace.knowledge.search import Search
from terrace.knowledge.service import Knowledge
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.running import Runner
from terrace.knowledge.sources.scheduled import Scheduled
from terrace.knowledge.sources.scheduled import action as source_action
from terrace.knowledge.sources.service import Sources as DocumentSources
from terrace.knowledge.sources.visiting import Visitor
from terrace.knowledge.sources.watching import Watcher
from terrace.knowledge.tasks import job_kinds as knowledge_kinds
from terrace.models.discovery import candidates
from terrace.models.providers.upstream import Address
from terrace.models.service import Models, open_models
from terrace.models.tasks import pull_kind
from terrace.models.transport import Transport, open_transport
from terrace.moving.marks import whole
from terrace.outbound import Outbound, open_outbound
from terrace.outbound.addresses import Reach
from terrace.schedules.base import Action, BuiltIn
from terrace.schedules.service import Schedules
from terrace.settings import Settings
from terrace.storage import Blobs, Database, open_blobs, open_database
from terrace.storage.blobs.opening import bucket_of
from terrace.storage.opening import check_database_url
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.metrics import Metrics
from terrace.telemetry.prices import Prices
from terrace.telemetry.usage import UsageReport
from terrace.types import Scope
from terrace.web.access import Doorkeeper
from terrace.web.openai import OpenAIDoor
from terrace.web.openai.base import Sources
from terrace.web.openai.batches import BatchesDoor
from terrace.web.openai.files import FilesDoor
from terrace.web.security import is_loopback
from terrace.web.services import Exporter
from terrace.webhooks.endpoints import Endpoints
from terrace.webhooks.service import Webhooks

HOUR = 3600
DISCOVERED = ("openai", "anthropic", "ollama")  # providers that may be there without being configured


@dataclass(frozen=True, slots=True)
class House:
    settings: Settings
    database: Database
    blobs: Blobs
    jobs: LocalJobs
    models: Models
    transport: Transport
    embedder: StatefulEmbedder
    index: InspectedIndex
    search: Search
    knowledge: Knowledge
    sources: DocumentSources
    watcher: Watcher
    generations: Generations
    answering: Answering
    analyses: Analyses
    analysed: AnalysesLeaving
    templates: Templates
    campaigns: Campaigns
    chat: Chat
    cache: AnswerCache
    metrics: Metrics
    ledger: Ledger
    usage: UsageReport
    prices: Prices
    limits: SharedLimits
    files: Files
    batches: Batches
    schedules: Schedules
    health: Health
    library_doctor: Doctor
    outbound: Outbound
    webhooks: Webhooks
    contacts: Contacts
    contact_imports: FileImports
    databases: Databases
    endpoints: Endpoints
    exporters: tuple[Exporter, ...]
    accounts: Accounts
    doorkeeper: Doorkeeper
    openai: OpenAIDoor
    drained: asyncio.Event


@asynccontextmanager
async def assemble(settings: Settings, token: str | None = None) -> AsyncIterator[House]:
    """Everything built and connected, nothing working yet; closed in the reverse order."""
    async with AsyncExitStack() as stack:
        own_folder(settings)
        whole(settings.data)
        metrics = Metrics()
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        ledger = Ledger(database, settings.data / "usage")
        usage = UsageReport(database, ledger)
        prices = Prices(database)
        limits = SharedLimits(
            database, ledger, prices, metrics.record, settings.limits, stored=stored_by, redis=settings.redis
        )
        if settings.redis.url:
            metrics.redis_up.labels("limits").set_function(lambda: float(limits.through_redis))
        blobs = await open_blobs(settings)
        stack.push_async_callback(blobs.close)
        processes = Processes(settings.jobs.cpu_slots + 1)  # one more, so that a page picture need not wait for files
        stack.push_async_callback(processes.close)
        askers = Processes(2)  # of other databases: one that takes its time holds up no document
        stack.push_async_callback(askers.close)
        transport = open_transport(settings.models)
        stack.push_async_callback(transport.close)
        upstreams = {name: Upstream(name, lambda: models) for name in (*settings.models.providers, *DISCOVERED)}
        embedder = open_embedder(settings.knowledge.embedding, settings.data, upstreams)
        stack.push_async_callback(embedder.close)
        purses = Purses(limits, limits.largest, prices.of)
        models = open_models(settings.models, transport, QuotingRanker(embedder), purses, os.environ)
        stack.push_async_callback(models.close)
        index = open_index(database)
        stack.push_async_callback(index.close)
        retrievals = Retrievals(database)
        stack.push_async_callback(retrievals.close)
        queries = RecentQueries(database)
        stack.push_async_callback(queries.close)
        serving = ServingEmbedder(embedder)
        search = Search(database, index, serving, retrievals.count, queries.asked)
        jobs = open_engine(settings, database)
        jobs.carry(open_carrier(settings.redis))
        if settings.redis.url:
            metrics.redis_up.labels("events").set_function(lambda: float(jobs.carrier.carries))
        stack.push_async_callback(jobs.close)
        outbound = open_outbound(settings.outbound)
        stack.push_async_callback(outbound.close)
        sealer = load_secret(settings.accounts, settings.data)
        webhooks = Webhooks(database, jobs, outbound, sealer, settings.webhooks)
        webhooks.start()
        stack.callback(webhooks.close)
        jobs.on_final(webhooks.job_ended, webhooks.wants_job)
        files = FileParser(settings.knowledge, processes)
        knowledge = Knowledge(database, blobs, jobs, index, Door(blobs, processes, settings.knowledge), files, limits)
        library = Library(database, search)
        answering = Answering(models, library, settings.chat)
        costs = partial(cost_of, settings, prices)
        cache = AnswerCache(database, settings.cache, embedder, cost=costs, count=metrics.cached)
        chat = Chat(database, jobs, models, settings.chat, limits, cache)
        ingest = Ingest(database, blobs, files, index, serving, webhooks)
        for kind in (
            *knowledge_kinds(ingest),
            pull_kind(models),
            *chat_kinds(database, answering, limits, cache),
            *webhooks.kinds(),
        ):
            jobs.register(kind)

        reader = Reader(processes, settings.analysis, settings.knowledge)
        analyses = Analyses(database, blobs, jobs, models, reader, settings.analysis, knowledge, limits, outbound.check)
        for kind in analysis_kinds(Tools(blobs, reader, models, settings.analysis, usage, webhooks)):
            jobs.register(kind)
        analysed = AnalysesLeaving(database, blobs)

        batch_files = Files(database, blobs, settings.batches, limits)

        async def run_line(scope: Scope, endpoint: str, body: bytes) -> Answer:
            return await openai.run_line(scope, endpoint, body)

        batches = Batches(batches_running.House(database, blobs, run_line, settings.batches, emitter=webhooks), jobs)
        jobs.register(batches.kind)

        contacts = Contacts(database, settings.campaigns, turns_of(chat))
        intake = Intake(database, blobs, settings.campaigns)
        contact_imports = FileImports(database, blobs, jobs, processes, intake)
        databases = Databases(
            database,
            jobs,
            askers,
            intake,
            sealer=sealer,
            resolve=resolver(settings.outbound.allow),
            options=settings.campaigns,
            folders=settings.schedules.folders,
            kept=settings.data,
        )
        for kind in (*contact_kinds(contact_imports, intake), *database_kinds(databases, intake)):
            jobs.register(kind)

        generations = Generations(
            database,
            jobs,
            index,
            serving,
            settings.knowledge.embedding,
            lambda options: open_embedder(options, settings.data, upstreams),
        )
        stack.push_async_callback(generations.close)
        jobs.register(generations.builder.kind())
        await generations.refresh()

        library_doctor = Doctor(database, blobs, jobs, index, serving)
        health = Health(database, jobs, index, serving, library_doctor, knowledge.delete, serving=generations.keys)
        for kind in health_kinds(health, library_doctor):
            jobs.register(kind)

        schedules = Schedules(database, settings.schedules, emitter=webhooks)
        schedules.register(Action(CHECK, "Look through the corpus", health.begin))
        schedules.register(
            Action(CHECK_ALL, "Look through everybody's corpus", job_starter(jobs, CHECK_ALL), permission="operator")
        )
        schedules.register(Action(TIDY, "Tidy the library", job_starter(jobs, TIDY), permission="operator"))
        schedules.build_in(BuiltIn("Corpus health", CHECK_ALL, HOUR))

        keeper = Keeper(database, blobs, jobs, index, Door(blobs, processes, settings.knowledge), limits)
        visitor = Visitor(database, processes, keeper, settings.outbound, settings.knowledge)
        jobs.register(Runner(database, processes, outbound, keeper, settings.schedules, visitor).kind())
        sources = DocumentSources(database, blobs, jobs, keeper, outbound, settings.schedules, Scheduled(schedules))
        schedules.register(source_action(sources))
        schedules.register(Action(REEMBED, "Make all vectors anew", generations.start_one, permission="operator"))

        campaigns = open_campaigns(
            database, jobs, models, library, prices, contacts, settings.campaigns, webhooks, outbound.check
        )
        stack.callback(campaigns.feed.close)
        for kind in campaigns.kinds:
            jobs.register(kind)
        schedules.register(
            Action(
                "campaign.start",
                "Start a campaign",
                lambda session, scope, payload: campaigns.campaigns.begin(session, scope, payload["campaign_id"])[1],
                needs=("campaign_id",),
                permission="campaigns",
                check=lambda session, scope, payload: campaigns.campaigns.check_start(
                    session, scope, payload["campaign_id"]
                ),
            )
        )

        rooms = leaving.rooms(database, blobs, index, jobs, intake, ledger, limits, usage, settings.data / "imports")
        accounts = open_accounts(
            settings,
            database,
            loopback=is_loopback(settings.host),
            terminal_token=token,
            adopt=[room.adopt for room in rooms if room.adopt],
            erase_user=[room.erase_user for room in rooms if room.erase_user],
            erase_tenant=[room.erase_tenant for room in rooms if room.erase_tenant],
            tenants_changed=limits.admitted,
        )
        entered = await stack.enter_async_context(accounts)
        doorkeeper = Doorkeeper(entered.gatekeeper, settings.web.trusted_proxies)
        openai = OpenAIDoor(
            models,
            transport,
            settings=settings.models,
            web=settings.web,
            doorkeeper=doorkeeper,
            limits=limits,
            answerer=RAG(answering, collection_names(knowledge), Sources),
            embedder=embedder,
            resources=(FilesDoor(batch_files).routes, BatchesDoor(batches, settings.web.max_json_bytes).routes),
        )
        yield House(
            settings=settings,
            database=database,
            blobs=blobs,
            jobs=jobs,
            models=models,
            transport=transport,
            embedder=embedder,
            index=index,
            search=search,
            knowledge=knowledge,
            sources=sources,
            generations=generations,
            watcher=Watcher(database, settings.schedules.folders, sources.start),
            answering=answering,
            analyses=analyses,
            analysed=analysed,
            templates=campaigns.templates,
            campaigns=campaigns.campaigns,
            chat=chat,
            cache=cache,
            metrics=metrics,
            ledger=ledger,
            usage=usage,
            prices=prices,
            limits=limits,
            files=batch_files,
            batches=batches,
            schedules=schedules,
            health=health,
            library_doctor=library_doctor,
            outbound=outbound,
            webhooks=webhooks,
            contacts=contacts,
            contact_imports=contact_imports,
            databases=databases,
            endpoints=Endpoints(database, webhooks, outbound, sealer, entered.audit, settings.webhooks),
            exporters=tuple(room.export for room in rooms if room.export),
            accounts=entered,
            doorkeeper=doorkeeper,
            openai=openai,
            drained=asyncio.Event(),
        )


def check(settings: Settings) -> None:
    """Raises Invalid when the settings can't be used: a server must not start on them. Nothing is connected to."""
    own_folder(settings)
    load_secret(settings.accounts, settings.data)
    check_database_url(settings.database_url)
    bucket_of(settings.storage.blobs)
    open_carrier(settings.redis)
    Reach(settings.outbound.allow)
    for each in candidates(settings.models, os.environ):
        if each.settings.base_url:
            Address.of(each.name, each.settings.base_url)
    if settings.jobs.engine == "celery":
        from terrace.jobs.engines.celery import broker

        broker.require()
        broker.url_of(settings)


def own_folder(settings: Settings) -> None:
    """Make the data folder, closed to other people of this machine, and see that it can be written."""
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=settings.data):
            pass
    except OSError as error:
        raise Invalid(
            f"TERRACE_DATA: nothing can be kept in {settings.data}: {error.strerror}. Name a folder you may write to.",
            code="bad_settings",
        ) from error
