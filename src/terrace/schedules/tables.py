"""Schedules and their runs. Times are epoch seconds; `next_at` is NULL while a schedule is paused."""

from typing import Any

from sqlalchemy import JSON, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel


class ScheduleRow(SQLModel, table=True):
    __tablename__ = "schedules"
    __table_args__ = (
        UniqueConstraint("tenant_id", "name_key", name="uq_schedules_name"),
        Index(
            "ix_schedules_due", "next_at",
            sqlite_where=text("next_at IS NOT NULL"), postgresql_where=text("next_at IS NOT NULL"),
        ),
    )  # fmt: skip

    id: str = Field(primary_key=True)  # sch_...
    tenant_id: str
    name: str
    name_key: str  # case-folded
    action: str
    payload: dict[str, Any] = Field(default={}, sa_column=Column(JSON, nullable=False))
    cron: str | None = None
    every: int | None = None
    timezone: str
    enabled: bool = True
    problem: str | None = None
    built_in: bool = False
    next_at: float | None = None  # what a claim compares: only one process moves it on
    last_run: str | None = None
    user_id: str | None = None  # who made it: its jobs are theirs
    key_id: str | None = None
    created_at: float
    updated_at: float


class RunRow(SQLModel, table=True):
    __tablename__ = "schedule_runs"
    __table_args__ = (
        Index("ix_schedule_runs_schedule", "tenant_id", "schedule_id", "id"),
        Index(
            "ix_schedule_runs_open", "id",
            sqlite_where=text("state = 'running'"), postgresql_where=text("state = 'running'"),
        ),
    )  # fmt: skip

    id: str = Field(primary_key=True)  # run_...
    tenant_id: str
    schedule_id: str
    due_at: float
    started_at: float
    finished_at: float | None = None
    state: str
    job_id: str | None = None
    note: str = ""
    by_hand: bool = False
