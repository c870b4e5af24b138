"""An installation whose ledger had a row for each call is moved to pages, and back, without losing a digit."""

from typing import Any

from sqlalchemy import text
from sqlmodel import Session
from tests.telemetry.calls import booked

from terrace.storage import Database, as_owner
from terrace.storage.migrate import migrate

ROWS: list[dict[str, Any]] = [
    {
        "id": f"use_{1_795_000_000_000 + number:012x}{journal:010x}{number:010x}", "tenant_id": f"tnt_{number % 3}",
        "user_id": None if number % 5 == 0 else f"usr_{number % 7}", "key_id": "key_1" if number % 2 else None,
        "job_id": f"job_{number}", "provider": "openai", "model": "gpt-é/4o", "operation": "chat",
        "outcome": ("ok", "cancelled", "error", "lost")[number % 4],
        "code": "upstream_away" if number % 4 == 2 else "",
        "input_tokens": number * 10, "cached_tokens": number, "output_tokens": number * 3,
        "estimated": bool(number % 2),
        "cost": None if number % 6 == 0 else number * 1_000_003, "price_dated": "2026-11-21" if number % 6 else None,
        "started_at": (1_795_000_000_000 + number) / 1000, "duration": number / 7,
        "first_token": None if number % 3 else number / 11,
    }
    for journal in (7, 2**40 - 1)
    for number in range(1, 1300)
]  # fmt: skip


@as_owner
def insert(session: Session) -> None:
    names = ", ".join(ROWS[0])
    session.execute(text(f"INSERT INTO usage ({names}) VALUES ({', '.join(f':{name}' for name in ROWS[0])})"), ROWS)


@as_owner
def rows(session: Session) -> list[dict[str, Any]]:
    found = session.execute(text("SELECT * FROM usage ORDER BY id")).mappings()
    return [{**row, "estimated": bool(row["estimated"])} for row in found]


@as_owner
def go_to(session: Session, revision: str) -> None:
    migrate(session.connection(), revision)


async def test_there_and_back(database: Database) -> None:
    before = sorted(ROWS, key=lambda row: str(row["id"]))
    await database.write(go_to, "0007")
    await database.write(insert)
    await database.write(go_to, "head")
    assert [call._asdict() for call in await database.read(booked)] == before
    await database.write(go_to, "0007")
    assert await database.read(rows) == before
