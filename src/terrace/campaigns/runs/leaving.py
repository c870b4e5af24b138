"""When a person is erased, or a tenant is exported or deleted. Contacts have their own."""

from collections.abc import AsyncIterator

import msgspec
from sqlalchemy import text
from sqlmodel import Session, col, select

from terrace.campaigns.runs import store
from terrace.campaigns.runs.export import export as exported
from terrace.campaigns.templates.tables import TemplateRow, TemplateVersionRow
from terrace.storage import Database
from terrace.types import DEFAULT_TENANT, Scope

READ = 100

ADOPT = (
    text("UPDATE campaigns SET user_id = :user WHERE tenant_id = :tenant AND user_id IS NULL"),
    text("UPDATE template_versions SET created_by = :user WHERE tenant_id = :tenant AND created_by IS NULL"),
)
RELEASE = (
    text("UPDATE campaigns SET user_id = NULL, key_id = NULL, request_key = NULL WHERE user_id = :user"),
    text("UPDATE template_versions SET created_by = NULL WHERE created_by = :user"),
)
DROP = tuple(
    text(f"DELETE FROM {table} WHERE tenant_id = :tenant")
    for table in ("campaign_messages", "campaigns", "template_versions", "templates")
)


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had made on this machine becomes the first person's."""
    for statement in ADOPT:
        session.execute(statement, {"tenant": DEFAULT_TENANT, "user": user_id})


def erase_user(session: Session, user_id: str) -> None:
    """Campaigns and templates are the tenant's; they lose the name."""
    for statement in RELEASE:
        session.execute(statement, {"user": user_id})


def erase_tenant(session: Session, scope: Scope) -> None:
    for statement in DROP:
        session.execute(statement, {"tenant": scope.tenant})


async def export(database: Database, scope: Scope) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """Templates with their versions, campaigns, and the messages of each: the path in an archive, and the bytes."""
    yield "campaigns/templates.jsonl", _templates(database, scope)
    yield "campaigns/campaigns.jsonl", _campaigns(database, scope)
    cursor: str | None = None
    while True:
        found, cursor = await database.read(store.page, scope, READ, cursor)
        for each in found:
            yield f"campaigns/{each.id}.jsonl", exported(database, scope, each.id, "jsonl")
        if cursor is None:
            return


async def _campaigns(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    cursor: str | None = None
    while True:
        found, cursor = await database.read(store.page, scope, READ, cursor)
        yield b"".join(msgspec.json.encode(each) + b"\n" for each in found)
        if cursor is None:
            return


async def _templates(database: Database, scope: Scope) -> AsyncIterator[bytes]:
    after = ""
    while lines := await database.read(_versions, scope, after):
        after = lines[-1][0]
        yield b"".join(line for _, line in lines)


def _versions(session: Session, scope: Scope, after: str) -> list[tuple[str, bytes]]:
    rows = session.exec(
        select(TemplateRow)
        .where(TemplateRow.tenant_id == scope.tenant, col(TemplateRow.id) > after)
        .order_by(col(TemplateRow.id))
        .limit(READ)
    ).all()
    return [(row.id, _line(session, row)) for row in rows]


def _line(session: Session, row: TemplateRow) -> bytes:
    query = select(TemplateVersionRow).where(TemplateVersionRow.template_id == row.id)
    versions = session.exec(query.order_by(col(TemplateVersionRow.version))).all()
    told = row.model_dump() | {"versions": [each.model_dump() for each in versions]}
    return msgspec.json.encode(told) + b"\n"
