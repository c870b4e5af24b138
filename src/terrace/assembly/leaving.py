"""What becomes of what a room keeps when a first account is made, a person is erased, a tenant goes or is exported."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlmodel import Session

from terrace.accounts.erasing import EraseTenant, EraseUser
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.members import Adopt
from terrace.analysis import leaving as analysis_leaving
from terrace.batches import leaving as batches_leaving
from terrace.campaigns.contacts import leaving as contacts_leaving
from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.databases import leaving as databases_leaving
from terrace.campaigns.runs import leaving as campaigns_leaving
from terrace.chat import leaving as chat_leaving
from terrace.chat.cache import leaving as cache_leaving
from terrace.jobs import leaving as jobs_leaving
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge import leaving as knowledge_leaving
from terrace.knowledge.base import Index
from terrace.knowledge.generations.store import forget_tenant as forget_queries
from terrace.knowledge.health import leaving as health_leaving
from terrace.knowledge.sources import leaving as sources_leaving
from terrace.moving.mongo_qdrant import leaving as imports_leaving
from terrace.schedules import leaving as schedules_leaving
from terrace.storage import Blobs, Database
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.usage import UsageReport
from terrace.web.services import Exporter
from terrace.webhooks import leaving as webhooks_leaving


@dataclass(frozen=True, slots=True)
class Room:
    """None: it keeps nothing that this is about."""

    adopt: Adopt | None = None
    erase_user: EraseUser | None = None
    erase_tenant: EraseTenant | None = None
    export: Exporter | None = None


def rooms(
    database: Database,
    blobs: Blobs,
    index: Index,
    jobs: LocalJobs,
    intake: Intake,
    ledger: Ledger,
    limits: MemoryLimits,
    usage: UsageReport,
    imports: Path,
) -> list[Room]:
    """Every room that keeps something. The ledger is erased after those whose calls it holds."""

    def erase_jobs(session: Session, user_id: str) -> None:
        jobs_leaving.erase_user(session, user_id, [name for name, kind in jobs.kinds.items() if kind.shared])

    analyses = analysis_leaving.Leaving(database, blobs)
    documents = knowledge_leaving.Leaving(database, blobs, index)
    batches = batches_leaving.Leaving(database, blobs)
    contacts = contacts_leaving.Leaving(database, intake)
    imported = imports_leaving.Leaving(database, imports)
    return [
        *(
            Room(room.adopt, room.erase_user, room.erase_tenant, partial(room.export, database))
            for room in (
                chat_leaving,
                cache_leaving,
                campaigns_leaving,
                databases_leaving,
                sources_leaving,
                schedules_leaving,
            )
        ),
        Room(analysis_leaving.adopt, analyses.erase_user, analyses.erase_tenant, analyses.export),
        Room(batches_leaving.adopt, batches_leaving.erase_user, batches_leaving.erase_tenant, batches.export),
        Room(contacts_leaving.adopt, contacts_leaving.erase_user, contacts.erase_tenant, contacts.export),
        Room(jobs_leaving.adopt, erase_jobs, jobs_leaving.erase_tenant),
        Room(None, None, imported.erase_tenant, imported.export),
        Room(knowledge_leaving.adopt, knowledge_leaving.erase_user, documents.erase_tenant, documents.export),
        Room(None, None, health_leaving.erase_tenant, partial(health_leaving.export, database)),
        Room(None, None, webhooks_leaving.erase_tenant, partial(webhooks_leaving.export, database)),
        Room(erase_tenant=forget_queries),
        Room(None, ledger.erase, ledger.erase_tenant, usage.export),
        Room(None, limits.left, limits.left),
    ]
