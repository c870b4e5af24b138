"""The same promises as SQLite's, on PostgreSQL."""

import asyncio

import pytest
from sqlalchemy import text
from sqlmodel import Session

from terrace.storage import Database


def put(session: Session, id: str) -> None:
    session.execute(text("INSERT INTO job_workers VALUES (:id, 'here', 1, 'x', 0, 0)"), {"id": id})


def ids(session: Session) -> list[str]:
    return list(session.execute(text("SELECT id FROM job_workers ORDER BY id")).scalars())


async def test_written_is_read(any_database: Database) -> None:
    await asyncio.gather(*(any_database.write(put, f"w{n:03}") for n in range(50)))
    assert await any_database.read(ids) == [f"w{n:03}" for n in range(50)]
