"""The calls of the usage ledger in pages, a thousand to a row, as the journal writes them."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy import RowMapping

revision = "0008"
down_revision: str | None = "0007"

TOGETHER = 1000
OPERATIONS = ("chat", "embed")
OUTCOMES = ("ok", "cancelled", "error", "lost")
BEGIN, END = struct.Struct("<BBH4xQdQQq10s"), struct.Struct("<QBB6xQQQqdd10s40s")
END_AT, NAMES_AT = 64, 192
READ = sa.text("SELECT * FROM usage WHERE (tenant_id, id) > (:tenant, :id) ORDER BY tenant_id, id LIMIT 1000")
WRITE = sa.text(
    "INSERT INTO usage_pages (id, tenant_id, journal, batch, calls, about, body) "
    "VALUES (:id, :tenant, :journal, :batch, :calls, :about, :body)"
)
COLUMNS = (
    "id", "tenant_id", "user_id", "key_id", "job_id", "provider", "model", "operation", "outcome", "code",
    "input_tokens", "cached_tokens", "output_tokens", "estimated", "cost", "price_dated", "started_at", "duration",
    "first_token",
)  # fmt: skip
NEXT = sa.text("SELECT id, journal, body FROM usage_pages WHERE id > :id ORDER BY id LIMIT 1")
BACK = sa.text(
    f"INSERT INTO usage ({', '.join(COLUMNS)}) VALUES ({', '.join(f':{name}' for name in COLUMNS)}) "
    "ON CONFLICT (id) DO NOTHING"
)


def upgrade() -> None:
    op.create_table(
        "usage_pages",
        sa.Column("id", sa.String(), primary_key=True),  # begins with the time of the booking
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("journal", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("about", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_usage_pages_tenant", "usage_pages", ["tenant_id", "id"])
    op.create_index("ix_usage_pages_journal", "usage_pages", ["journal", "batch"])
    connection = op.get_bind()
    place = {"tenant": "", "id": ""}
    number = 0
    while rows := connection.execute(READ, place).mappings().all():
        for (tenant, journal), calls in groupby(rows, key=lambda row: (row["tenant_id"], row["id"][16:26])):
            connection.execute(WRITE, _page(tenant, journal, list(calls), number))
            number += 1
        place = {"tenant": rows[-1]["tenant_id"], "id": rows[-1]["id"]}
    op.drop_table("usage")


def _page(tenant: str, journal: str, calls: Sequence[RowMapping], number: int) -> dict[str, Any]:
    about = {(row["user_id"] or "", row["key_id"] or "", f"{row['provider']}/{row['model']}") for row in calls}
    booked = max(row["started_at"] + row["duration"] for row in calls)
    return {
        "id": f"use_{int(booked * 1000):012x}{journal}{0:08x}{number:06x}",
        "tenant": tenant,
        "journal": int(journal, 16),
        "batch": 0,
        "calls": len(calls),
        "about": "".join(f"\x1f{user}\x1f{key}\x1f{model}\x1f" for user, key, model in sorted(about)),
        "body": zlib.compress(b"".join(map(_record, calls)), 1),
    }


def _record(row: RowMapping) -> bytes:
    who = (row["tenant_id"], row["user_id"], row["key_id"], row["job_id"], row["provider"], row["model"])
    names = "\0".join(each or "" for each in who).encode()
    sequence, cost = int(row["id"][26:], 16), -1 if row["cost"] is None else row["cost"]
    dated, used = (row["price_dated"] or "").encode(), (row["input_tokens"], row["output_tokens"], cost)
    begin = BEGIN.pack(2, OPERATIONS.index(row["operation"]), len(names), sequence, row["started_at"], *used, dated)
    end = END.pack(
        sequence, OUTCOMES.index(row["outcome"]), row["estimated"],
        row["input_tokens"], row["cached_tokens"], row["output_tokens"], cost,
        row["duration"], -1.0 if row["first_token"] is None else row["first_token"], dated, row["code"].encode(),
    )  # fmt: skip
    return begin.ljust(END_AT, b"\0") + end.ljust(NAMES_AT - END_AT, b"\0") + names


def downgrade() -> None:
    op.create_table(
        "usage",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("tenant_id", sa.String(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=True) for name in ("user_id", "key_id", "job_id")),
        *(
            sa.Column(name, sa.String(), nullable=False)
            for name in ("provider", "model", "operation", "outcome", "code")
        ),
        *(sa.Column(f"{name}_tokens", sa.BigInteger(), nullable=False) for name in ("input", "cached", "output")),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=True),
        sa.Column("price_dated", sa.String(), nullable=True),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("duration", sa.Float(), nullable=False),
        sa.Column("first_token", sa.Float(), nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usage_tenant", "usage", ["tenant_id", "id"])
    connection = op.get_bind()
    place = ""
    while page := connection.execute(NEXT, {"id": place}).first():
        connection.execute(BACK, list(_rows(page.body, page.journal)))
        place = page.id
    op.drop_index("ix_usage_pages_journal", "usage_pages")
    op.drop_index("ix_usage_pages_tenant", "usage_pages")
    op.drop_table("usage_pages")


def _rows(body: bytes, journal: int) -> Iterator[dict[str, Any]]:
    calls, at = zlib.decompress(body), 0
    while at < len(calls):
        state, operation, length, sequence, started, read, written, cost, dated = BEGIN.unpack_from(calls, at)
        outcome, estimated, cached, duration, first, code = 3, True, 0, 0.0, -1.0, b""
        ended = END.unpack_from(calls, at + END_AT)
        if state == 2 and ended[0] == sequence:
            _, outcome, estimated, read, cached, written, cost, duration, first, dated, code = ended
        names = calls[at + NAMES_AT : at + NAMES_AT + length].decode(errors="replace").split("\0", 5)
        who = [names[0], *(name or None for name in names[1:4]), *names[4:]]
        yield dict(zip(COLUMNS, (
            f"use_{int(started * 1000):012x}{journal:010x}{sequence:010x}", *who,
            OPERATIONS[operation], OUTCOMES[outcome], _text(code), read, min(cached, read), written, bool(estimated),
            None if cost == -1 else cost, _text(dated) or None, started, duration, None if first == -1.0 else first,
        ), strict=True))  # fmt: skip
        at += NAMES_AT + length


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace")
