"""What goes after its time: finished jobs and their events, in small batches."""

from sqlalchemy import bindparam, text
from sqlmodel import Session

BATCH = 200  # jobs removed in one transaction

TENANTS = text(
    "WITH RECURSIVE known(tenant) AS (SELECT (SELECT tenant_id FROM jobs ORDER BY tenant_id LIMIT 1) "
    "UNION ALL SELECT (SELECT tenant_id FROM jobs WHERE tenant_id > known.tenant ORDER BY tenant_id LIMIT 1) "
    "FROM known WHERE known.tenant IS NOT NULL) SELECT tenant FROM known WHERE tenant IS NOT NULL"
)
OLD = text(
    "SELECT id FROM jobs WHERE tenant_id = :tenant AND updated_at < :before AND finished_at IS NOT NULL "
    f"ORDER BY updated_at LIMIT {BATCH}"
)
REMOVE_EVENTS = text("DELETE FROM job_events WHERE tenant_id = :tenant AND job_id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)
REMOVE_JOBS = text("DELETE FROM jobs WHERE tenant_id = :tenant AND id IN :ids").bindparams(
    bindparam("ids", expanding=True)
)


def remove_finished(session: Session, before: float) -> int:
    """One batch of jobs that ended before then, with their events; returns how many, BATCH when there may be more."""
    removed = 0
    for tenant in session.execute(TENANTS).scalars().all():
        ids = session.execute(OLD, {"tenant": tenant, "before": before}).scalars().all()
        if ids:
            session.execute(REMOVE_EVENTS, {"tenant": tenant, "ids": ids})
            session.execute(REMOVE_JOBS, {"tenant": tenant, "ids": ids})
            removed += len(ids)
        if removed >= BATCH:
            return BATCH
    return removed
