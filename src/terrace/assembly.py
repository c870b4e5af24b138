"""The only file that names implementations: it builds the house, opens it, and takes it down in order."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from tempfile import NamedTemporaryFile
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session

from terrace import __version__
from terrace.accounts import doctor as accounts_doctor
from terrace.accounts.limits.base import Subject
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.opening import Accounts, open_accounts
from terrace.accounts.secret import load_secret
from terrace.analysis import leaving as analysis_leaving
from terrace.analysis.reading import Reader
from terrace.analysis.running import Tools
from terrace.analysis.service import Analyses
from terrace.analysis.store import stored as stored_analyses
from terrace.analysis.tasks import kinds as analysis_kinds
from terrace.batches import leaving as batches_leaving
from terrace.batches import running as batches_running
from terrace.batches.base import Answer
from terrace.batches.files import Files
from terrace.batches.service import Batches
from terrace.batches.store import stored as stored_files
from terrace.campaigns.base import Turn
from terrace.campaigns.contacts import leaving as contacts_leaving
from terrace.campaigns.contacts.files import FileImports
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.contacts.service import Contacts, Conversations
from terrace.campaigns.contacts.tasks import job_kinds as contact_kinds
from terrace.campaigns.databases import leaving as databases_leaving
from terrace.campaigns.databases.reaching import resolver
from terrace.campaigns.databases.service import Databases
from terrace.campaigns.databases.tasks import job_kinds as database_kinds
from terrace.campaigns.runs import leaving as campaigns_leaving
from terrace.campaigns.runs.opening import open_campaigns
from terrace.campaigns.runs.purse import Purses
from terrace.campaigns.runs.service import Campaigns
from terrace.campaigns.templates.service import Templates
from terrace.chat import leaving as chat_leaving
from terrace.chat.answering import Answering
from terrace.chat.cache import leaving as cache_leaving
from terrace.chat.cache.service import AnswerCache
from terrace.chat.library import Library
from terrace.chat.questions import Questions
from terrace.chat.rag import RAG
from terrace.chat.service import Chat
from terrace.chat.tasks import kinds as chat_kinds
from terrace.errors import Invalid, TerraceError
from terrace.jobs import doctor as jobs_doctor
from terrace.jobs import leaving as jobs_leaving
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge import leaving as knowledge_leaving
from terrace.knowledge.doctor import Doctor
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.generations.base import REEMBED
from terrace.knowledge.generations.queries import RecentQueries
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.generations.serving import ServingEmbedder
from terrace.knowledge.generations.store import forget_tenant as forget_queries
from terrace.knowledge.health import leaving as health_leaving
from terrace.knowledge.health.retrievals import Retrievals
from terrace.knowledge.health.service import Health
from terrace.knowledge.health.store import CHECK
from terrace.knowledge.health.tasks import CHECK_ALL, TIDY
from terrace.knowledge.health.tasks import job_kinds as health_kinds
from terrace.knowledge.index import SQLiteIndex
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.quoting import QuotingRanker
from terrace.knowledge.receiving import Door
from terrace.knowledge.search import Search
from terrace.knowledge.service import Knowledge
from terrace.knowledge.sources import leaving as sources_leaving
from terrace.knowledge.sources.keeping import Keeper
from terrace.knowledge.sources.running import Runner
from terrace.knowledge.sources.scheduled import Scheduled
from terrace.knowledge.sources.scheduled import action as source_action
from terrace.knowledge.sources.service import Sources as DocumentSources
from terrace.knowledge.sources.visiting import Visitor
from terrace.knowledge.sources.watching import Watcher
from terrace.knowledge.store import stored
from terrace.knowledge.tasks import job_kinds as knowledge_kinds
from terrace.models.base import Embeddings
from terrace.models.service import Models, open_models
from terrace.models.tasks import pull_kind
from terrace.models.transport import Transport, open_transport
from terrace.outbound import Outbound, check_url, open_outbound
from terrace.schedules import leaving as schedules_leaving
from terrace.schedules.base import Action, BuiltIn
from terrace.schedules.service import Schedules
from terrace.settings import Settings
from terrace.storage import Database, open_database
from terrace.storage.blobs import FolderBlobs
from terrace.telemetry.calls import Usage
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.metrics import Metrics
from terrace.telemetry.prices import Prices, cost
from terrace.telemetry.usage import UsageReport
from terrace.types import Scope
from terrace.web import app, process, server
from terrace.web.access import Doorkeeper
from terrace.web.edge import ASGI
from terrace.web.openai import OpenAIDoor
from terrace.web.openai.base import Sources
from terrace.web.openai.batches import BatchesDoor
from terrace.web.openai.files import FilesDoor
from terrace.web.security import is_loopback
from terrace.web.services import Exporter, Services
from terrace.webhooks import leaving as webhooks_leaving
from terrace.webhooks.endpoints import Endpoints
from terrace.webhooks.service import Webhooks

log = logging.getLogger(__name__)

DAY = 86_400.0  # seconds
HOUR = 3600
DISCOVERED = ("openai", "anthropic", "ollama")  # providers that may be there without being configured


@dataclass(frozen=True, slots=True)
class House:
    settings: Settings
    database: Database
    blobs: FolderBlobs
    jobs: LocalJobs
    models: Models
    transport: Transport
    embedder: StatefulEmbedder
    index: SQLiteIndex
    search: Search
    knowledge: Knowledge
    sources: DocumentSources
    watcher: Watcher
    generations: Generations
    answering: Answering
    analyses: Analyses
    analysed: analysis_leaving.Leaving
    templates: Templates
    campaigns: Campaigns
    chat: Chat
    cache: AnswerCache
    metrics: Metrics
    ledger: Ledger
    usage: UsageReport
    prices: Prices
    limits: MemoryLimits
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


class _Upstream:
    """A provider's embeddings for the knowledge room; the model room, which needs the embedder, comes after it."""

    def __init__(self, name: str, models: Callable[[], Models]) -> None:
        self.name = name
        self._models = models

    async def embed(self, model: str, texts: Sequence[str], scope: Scope) -> Embeddings:
        return await self._models().embed(f"{self.name}/{model}", texts, scope)


@asynccontextmanager
async def assemble(settings: Settings, token: str | None = None) -> AsyncIterator[House]:
    """Everything built and connected, nothing working yet; closed in the reverse order."""
    async with AsyncExitStack() as stack:
        _own_folder(settings)
        metrics = Metrics()
        database = await open_database(settings)
        stack.push_async_callback(database.close)
        ledger = Ledger(database, settings.data / "usage")
        usage = UsageReport(database, ledger)
        prices = Prices(database)
        limits = MemoryLimits(database, ledger, prices, metrics.record, settings.limits, stored=_stored)
        blobs = FolderBlobs(settings.data / "blobs")
        processes = Processes(settings.jobs.cpu_slots + 1)  # one more, so that a page picture need not wait for files
        stack.push_async_callback(processes.close)
        transport = open_transport(settings.models)
        stack.push_async_callback(transport.close)
        upstreams = {name: _Upstream(name, lambda: models) for name in (*settings.models.providers, *DISCOVERED)}
        embedder = open_embedder(settings.knowledge.embedding, settings.data, upstreams)
        stack.push_async_callback(embedder.close)
        purses = Purses(limits, limits.largest, prices.of)
        models = open_models(settings.models, transport, QuotingRanker(embedder), purses, os.environ)
        stack.push_async_callback(models.close)
        index = SQLiteIndex(database)
        retrievals = Retrievals(database)
        stack.push_async_callback(retrievals.close)
        queries = RecentQueries(database)
        stack.push_async_callback(queries.close)
        serving = ServingEmbedder(embedder)
        search = Search(database, index, serving, retrievals.count, queries.asked)
        jobs = LocalJobs(database, settings.jobs)
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
        costs = partial(_cost, settings, prices)
        cache = AnswerCache(database, settings.cache, embedder, cost=costs, count=metrics.cached)
        chat = Chat(database, jobs, models, settings.chat, limits, cache)
        ingest = Ingest(database, blobs, files, index, serving, webhooks)
        for kind in (
            *knowledge_kinds(ingest),
            pull_kind(models),
            *chat_kinds(answering, limits, cache),
            *webhooks.kinds(),
        ):
            jobs.register(kind)

        reader = Reader(processes, settings.analysis, settings.knowledge)
        analyses = Analyses(database, blobs, jobs, models, reader, settings.analysis, knowledge, limits)
        for kind in analysis_kinds(Tools(blobs, reader, models, settings.analysis, usage, webhooks)):
            jobs.register(kind)
        analysed = analysis_leaving.Leaving(database, blobs)

        batch_files = Files(database, blobs, settings.batches, limits)

        async def run_line(scope: Scope, endpoint: str, body: bytes) -> Answer:
            return await openai.run_line(scope, endpoint, body)

        batches = Batches(batches_running.House(database, blobs, run_line, settings.batches, emitter=webhooks), jobs)
        jobs.register(batches.kind)

        contacts = Contacts(database, settings.campaigns, _turns(chat))
        intake = Intake(database, blobs, settings.campaigns)
        contact_imports = FileImports(database, blobs, jobs, processes, intake)
        databases = Databases(
            database,
            jobs,
            processes,
            intake,
            sealer=sealer,
            resolve=resolver(settings.outbound.allow),
            options=settings.campaigns,
            folders=settings.schedules.folders,
            kept=settings.data,
        )
        for kind in (*contact_kinds(contact_imports, intake), *database_kinds(databases, intake)):
            jobs.register(kind)
        contacted = contacts_leaving.Leaving(database, intake)

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
        schedules.register(Action(CHECK_ALL, "Look through everybody's corpus", _job(jobs, CHECK_ALL), operator=True))
        schedules.register(Action(TIDY, "Tidy the library", _job(jobs, TIDY), operator=True))
        schedules.build_in(BuiltIn("Corpus health", CHECK_ALL, HOUR))

        keeper = Keeper(database, blobs, jobs, index, Door(blobs, processes, settings.knowledge), limits)
        visitor = Visitor(database, processes, keeper, settings.outbound, settings.knowledge)
        jobs.register(Runner(database, processes, outbound, keeper, settings.schedules, visitor).kind())
        sources = DocumentSources(database, blobs, jobs, keeper, outbound, settings.schedules, Scheduled(schedules))
        schedules.register(source_action(sources))
        schedules.register(Action(REEMBED, "Make all vectors anew", generations.start_one, operator=True))

        campaigns = open_campaigns(
            database, jobs, models, library, prices, contacts, settings.campaigns, webhooks, check_url
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
            )
        )

        documents = knowledge_leaving.Leaving(database, blobs, index)

        def erase_jobs(session: Session, user_id: str) -> None:
            jobs_leaving.erase_user(session, user_id, [name for name, kind in jobs.kinds.items() if kind.shared])

        accounts = open_accounts(
            settings,
            database,
            loopback=is_loopback(settings.host),
            terminal_token=token,
            adopt=(
                cache_leaving.adopt,
                analysis_leaving.adopt,
                batches_leaving.adopt,
                contacts_leaving.adopt,
                databases_leaving.adopt,
                campaigns_leaving.adopt,
                chat_leaving.adopt,
                jobs_leaving.adopt,
                knowledge_leaving.adopt,
                sources_leaving.adopt,
                schedules_leaving.adopt,
            ),
            erase_user=(
                cache_leaving.erase_user,
                analysed.erase_user,
                batches_leaving.erase_user,
                contacts_leaving.erase_user,
                databases_leaving.erase_user,
                campaigns_leaving.erase_user,
                chat_leaving.erase_user,
                erase_jobs,
                knowledge_leaving.erase_user,
                sources_leaving.erase_user,
                schedules_leaving.erase_user,
                ledger.erase,
                limits.left,
            ),
            erase_tenant=(
                analysed.erase_tenant,
                batches_leaving.erase_tenant,
                contacted.erase_tenant,
                databases_leaving.erase_tenant,
                campaigns_leaving.erase_tenant,
                cache_leaving.erase_tenant,
                chat_leaving.erase_tenant,
                jobs_leaving.erase_tenant,
                documents.erase_tenant,
                health_leaving.erase_tenant,
                forget_queries,
                sources_leaving.erase_tenant,
                schedules_leaving.erase_tenant,
                webhooks_leaving.erase_tenant,
                ledger.erase_tenant,
                limits.left,
            ),
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
            answerer=RAG(answering, _collections(knowledge), Sources),
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
            exporters=(
                analysed.export,
                batches_leaving.Leaving(database, blobs).export,
                contacted.export,
                partial(databases_leaving.export, database),
                documents.export,
                partial(sources_leaving.export, database),
                partial(campaigns_leaving.export, database),
                partial(chat_leaving.export, database),
                partial(cache_leaving.export, database),
                partial(schedules_leaving.export, database),
                partial(health_leaving.export, database),
                partial(webhooks_leaving.export, database),
                usage.export,
            ),
            accounts=entered,
            doorkeeper=doorkeeper,
            openai=openai,
            drained=asyncio.Event(),
        )


async def serve(
    settings: Settings,
    *,
    started: Callable[[str], None],
    ownerless: Callable[[str], None] | None = None,
    stop: asyncio.Event | None = None,
    announced: bool = True,
    token: str | None = None,
) -> None:
    """The page, the API and, unless `jobs.workers` is off, the workers; until a signal or `stop`.

    `ownerless` is told the setup code when an account is needed and there is none. `announced` leaves the address in
    the data folder, where commands find it, with a `token` that proves whose folder it is (made up when None).

    Raises Invalid for settings that can't be used, Conflict when the port is taken.
    """
    listener = server.bind(settings)
    url = server.url_of(listener, settings.host)
    stop = stop or process.signalled()
    try:
        async with assemble(settings, token) as house, _working(house, stop, jobs=settings.jobs.workers):

            def ready() -> None:
                started(url)
                if ownerless is not None and needs_owner:
                    ownerless(house.accounts.people.setup_code)

            needs_owner = not house.accounts.gatekeeper.local and not await house.accounts.people.exists()
            token = house.accounts.gatekeeper.terminal_token
            with process.announced(settings.data, url, token) if announced else nullcontext():
                await server.serve(application(house), listener, settings, started=ready, stop=stop)
    finally:
        listener.close()


async def work(settings: Settings, *, stop: asyncio.Event | None = None) -> None:
    """The workers alone, on the same data as a server; until a signal or `stop`."""
    stop = stop or process.signalled()
    async with assemble(settings) as house, _working(house, stop, jobs=True):
        await stop.wait()


@asynccontextmanager
async def _working(house: House, stop: asyncio.Event, *, jobs: bool) -> AsyncIterator[None]:
    """With what goes on behind the doors. `stop` begins the drain, so that answers being written reach their readers
    while the server ends; leaving waits for its end."""
    await house.prices.load()
    await house.ledger.start()
    await house.limits.start()
    await house.accounts.gatekeeper.start()
    house.models.start()
    await house.generations.start(build=jobs)
    if jobs:
        await house.jobs.start()
        await house.schedules.start()
        house.watcher.start()
    tidying = asyncio.create_task(_keep_house(house)) if jobs else None
    draining = asyncio.create_task(_drain(house, stop))
    try:
        yield
    finally:
        stop.set()
        await house.watcher.close()
        await house.schedules.close()
        if tidying is not None:
            tidying.cancel()
            await asyncio.gather(tidying, return_exceptions=True)
        await draining
        await house.accounts.gatekeeper.close()
        await house.limits.close()
        await house.ledger.close()
        await house.prices.close()


async def _drain(house: House, stop: asyncio.Event) -> None:
    await stop.wait()
    house.webhooks.drain()
    await house.jobs.drain()
    house.drained.set()


async def _keep_house(house: House) -> None:
    """At the start and every day: embed what a model that was away has missed, remove what nobody refers to."""
    library = house.library_doctor
    while True:
        try:
            await house.blobs.sweep()
            await library.keep_house()
            await house.files.tidy()
            await house.analysed.tidy()
            await house.contact_imports.tidy()
            await house.usage.tidy(house.settings.limits.ledger_days)
            await house.webhooks.tidy()
        except (TerraceError, DBAPIError) as error:
            log.warning("the daily tidying stopped early and is tried again tomorrow: %s", error)
        await asyncio.sleep(DAY)


def application(house: House) -> ASGI:
    return app.build(_services(house), house.doorkeeper, house.openai)


def check(settings: Settings) -> None:
    """Raises Invalid when the settings can't be used: a server must not start on them."""
    _own_folder(settings)
    load_secret(settings.accounts, settings.data)


def _own_folder(settings: Settings) -> None:
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


def openapi() -> dict[str, Any]:
    """The API's description, without opening anything."""
    return app.describe()


async def doctor(settings: Settings, *, repair: bool) -> list[dict[str, Any]]:
    """What every room's doctor found: {room, code, message, subject, state: found | repaired}."""
    async with assemble(settings) as house:
        library = house.library_doctor
        found: list[Any] = [
            *accounts_doctor.examine(settings, accounts=await house.accounts.people.exists()),
            *await jobs_doctor.examine(house.jobs),
            *await library.examine(),
        ]
        repaired = [*await jobs_doctor.repair(house.jobs), *await library.repair()] if repair else []
    return [{**asdict(each), "state": "repaired" if each in repaired else "found"} for each in found]


def _services(house: House) -> Services:
    begun = time.monotonic()

    async def submit(scope: Scope, kind: str, payload: dict[str, Any], **options: Any) -> str:
        public = [name for name, each in house.jobs.kinds.items() if each.public]
        if kind not in public:
            raise Invalid(f"Jobs of this kind can be asked for: {', '.join(public)}.", code="unknown_kind")
        return await house.database.write(lambda session: house.jobs.enqueue(session, scope, kind, payload, **options))

    async def ready() -> dict[str, str]:
        state = house.generations.state()
        answering = await house.models.answering()
        return {
            "database": await _checked(house.database),
            "embedding": "ok: words alone, " + state.why if state.state == "absent" else f"ok: {state.model}",
            "model": f"ok: {answering.model}",
        }

    async def status(scope: Scope) -> dict[str, Any]:
        counts = await house.knowledge.counts(scope)
        return {
            "version": __version__,
            "uptime": round(time.monotonic() - begun, 1),
            "documents": counts["documents"],
            "document_states": counts["states"],
            "chunks": counts["chunks"],
            "vectors": counts["vectors"],
            "embedding": asdict(house.generations.state()),
            "jobs": await house.jobs.counts(scope),
            "answering": asdict(await house.models.answering()),
            "data": str(house.settings.data),
            "local": house.accounts.gatekeeper.local,
        }

    accounts = house.accounts
    return Services(
        settings=house.settings,
        gatekeeper=accounts.gatekeeper,
        people=accounts.people,
        tenants=accounts.tenants,
        sessions=accounts.sessions,
        keys=accounts.keys,
        oidc=accounts.oidc,
        mail=accounts.mail,
        audit=accounts.audit,
        limits=house.limits,
        prices=house.prices,
        usage=house.usage,
        questions=Questions(house.database, house.chat),
        exporters=house.exporters,
        jobs=house.jobs,
        schedules=house.schedules,
        health=house.health,
        webhooks=house.endpoints,
        contacts=house.contacts,
        contact_imports=house.contact_imports,
        databases=house.databases,
        knowledge=house.knowledge,
        sources=house.sources,
        generations=house.generations,
        search=house.search,
        analyses=house.analyses,
        templates=house.templates,
        campaigns=house.campaigns,
        chat=house.chat,
        cache=house.cache,
        models=house.models,
        metrics=house.metrics,
        submit=submit,
        ready=ready,
        status=status,
        drained=house.drained,
    )


def _turns(chat: Chat) -> Conversations:
    """What a conversation's owner sees of it: the visible branch."""

    async def turns(scope: Scope, conversation_id: str) -> list[Turn]:
        conversation, messages = await chat.get(scope, conversation_id)
        by_id = {message.id: message for message in messages}
        branch: list[Turn] = []
        at = conversation.head_id
        while at is not None and (message := by_id.get(at)) is not None:
            branch.append(Turn(message.role, message.content, message.created_at))
            at = message.parent_id
        return branch[::-1]

    return turns


async def _checked(database: Database) -> str:
    """`ok`, or why it can't be read."""
    try:
        async with asyncio.timeout(2):
            await database.read(lambda session: session.execute(text("SELECT 1")).scalar())
    except (TerraceError, TimeoutError) as error:
        return f"failing: {error or 'no answer within 2 seconds'}"
    return "ok"


def _collections(knowledge: Knowledge) -> Callable[[Scope], Awaitable[Sequence[str]]]:
    async def names(scope: Scope) -> Sequence[str]:
        return [each.name for each in await knowledge.collections(scope)]

    return names


def _job(jobs: LocalJobs, kind: str) -> Callable[[Session, Scope, dict[str, Any]], str]:
    """Puts in a job of this kind, with the payload it is given."""

    def start(session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        return jobs.enqueue(session, scope, kind, payload)

    return start


def _stored(session: Session, subject: Subject) -> tuple[int, int]:
    """How many documents a subject has, and the bytes of these and of its other files."""
    documents, size = stored(session, subject)
    return documents, size + stored_files(session, subject) + stored_analyses(session, subject)


def _cost(settings: Settings, prices: Prices, model: str, usage: Usage) -> int | None:
    """What a call of a model, by its public id, comes to; None when nobody knows its price."""
    provider, _, name = model.partition("/")
    configured = settings.models.providers.get(provider)
    price = prices.of(configured.kind if configured else provider, provider, name)
    return None if price is None else cost(price, usage)
