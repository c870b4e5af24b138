"""Tables of the jobs room. Times are seconds since the epoch; JSON is kept as text, alike on every database.

`jobs.run_at` is when a job may run; it is NULL while the job waits for its children.
"""

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel

OPEN_STATES = "('queued', 'waiting', 'running')"


def _json(*, nullable: bool = True) -> Column[str]:
    return Column(Text, nullable=nullable)


class JobRow(SQLModel, table=True):
    __tablename__ = "jobs"

    id: str = Field(primary_key=True)
    tenant_id: str
    kind: str
    lane: str
    state: str
    priority: int
    run_at: float | None
    attempt: int
    failures: int
    crashes: int
    dead: bool
    cancel_requested: bool
    payload: str = Field(sa_column=_json(nullable=False))
    result: str | None = Field(sa_column=_json())
    error: str | None = Field(sa_column=_json())
    progress: str | None = Field(sa_column=_json())
    user_id: str | None
    key_id: str | None  # the API key it was asked for with
    parent_id: str | None
    idempotency_key: str | None
    worker_id: str | None
    lease_until: float | None
    created_at: float
    updated_at: float
    started_at: float | None
    finished_at: float | None

    __table_args__ = (
        # One for each question that is asked often; partial ones stay as small as the answer.
        Index("ix_jobs_tenant", "tenant_id", "id"),
        Index("ix_jobs_updated", "tenant_id", "updated_at"),
        Index(
            "ix_jobs_queued", "lane", "tenant_id", text("priority DESC"), "run_at", "id",
            sqlite_where=text("state = 'queued'"), postgresql_where=text("state = 'queued'"),
        ),
        Index(
            "ix_jobs_waiting", "run_at", "tenant_id",
            sqlite_where=text("state = 'waiting'"), postgresql_where=text("state = 'waiting'"),
        ),
        Index(
            "ix_jobs_running", "tenant_id", "worker_id",
            sqlite_where=text("state = 'running'"), postgresql_where=text("state = 'running'"),
        ),
        Index(
            "ix_jobs_failed", "tenant_id", "id",
            sqlite_where=text("state = 'failed'"), postgresql_where=text("state = 'failed'"),
        ),
        Index(
            "ix_jobs_parent", "parent_id", "state",
            sqlite_where=text("parent_id IS NOT NULL"), postgresql_where=text("parent_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_idempotency", "tenant_id", "kind", "idempotency_key", unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"), postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
    )  # fmt: skip


class JobEventRow(SQLModel, table=True):
    """A job's append-only log. `attempt, seq` is what a client resumes from."""

    __tablename__ = "job_events"
    __table_args__ = {"sqlite_with_rowid": False}

    tenant_id: str = Field(primary_key=True)
    job_id: str = Field(primary_key=True)
    attempt: int = Field(primary_key=True)
    seq: int = Field(primary_key=True)
    type: str
    data: str = Field(sa_column=_json(nullable=False))


class WorkerRow(SQLModel, table=True):
    """A process that runs jobs. It serves every tenant and so belongs to none."""

    __tablename__ = "job_workers"

    id: str = Field(primary_key=True)
    host: str
    pid: int
    process: str  # what tells this process from a later one with the same pid
    started_at: float
    heartbeat_at: float
