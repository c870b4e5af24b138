"""Templates of a tenant: made, changed by new versions, read, deleted."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col, select

from terrace.campaigns.templates.drafts import Compiled, Draft, Mode, compile, template_name
from terrace.campaigns.templates.tables import TemplateRow, TemplateVersionRow
from terrace.errors import Conflict, Invalid, Missing
from terrace.storage import Database
from terrace.types import Scope, moment, new_id, now

MAX_TEMPLATES = 5_000
MAX_VERSIONS = 1_000
MAX_LIMIT = 200


@dataclass(frozen=True, slots=True)
class StoredTemplate:
    """A template at one of its versions."""

    id: str
    name: str
    version: int
    mode: Mode
    body: str
    system: str
    knowledge_query: str
    placeholders: list[str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    version: int
    mode: Mode
    body: str
    system: str
    knowledge_query: str
    created_by: str | None
    created_at: datetime


class Templates:
    """`pinned` tells the templates that campaigns have pinned a version of: those are hidden when they are deleted."""

    def __init__(
        self, database: Database, pinned: Callable[[Session, Scope], Collection[str]] = lambda session, scope: ()
    ) -> None:
        self._database = database
        self._pinned = pinned

    async def create(self, scope: Scope, name: str, draft: Draft) -> StoredTemplate:
        """Raises Invalid (BadTemplate), Conflict for a name that is taken."""
        compile(draft)
        return await self._database.write(create, scope, template_name(name), draft)

    async def change(self, scope: Scope, template_id: str, name: str | None, changes: dict[str, Any]) -> StoredTemplate:
        """A new name, and a new version where its text changes. Raises Missing, Invalid, Conflict."""
        called = None if name is None else template_name(name)
        return await self._database.write(_change, scope, template_id, called, changes)

    async def get(self, scope: Scope, template_id: str, version: int | None = None) -> StoredTemplate:
        """The newest version unless one is named. Raises Missing."""

        def work(session: Session) -> StoredTemplate:
            row = find(session, scope, template_id)
            return _told(row, version_of(session, scope, row.id, version or row.version))

        return await self._database.read(work)

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[StoredTemplate], str | None]:
        """Newest first, and the cursor of the next page."""
        if not 1 <= limit <= MAX_LIMIT:
            raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
        return await self._database.read(_page, scope, limit, cursor)

    async def versions(
        self, scope: Scope, template_id: str, *, limit: int = 50, cursor: str | None = None
    ) -> tuple["list_[TemplateVersion]", str | None]:
        """Newest first. Raises Missing."""
        before = int(cursor) if cursor and cursor.isascii() and cursor.isdecimal() else None
        return await self._database.read(_versions, scope, template_id, limit, before)

    async def delete(self, scope: Scope, template_id: str) -> None:
        """Campaigns that have pinned a version keep it. Raises Missing."""

        def work(session: Session) -> None:
            row = find(session, scope, template_id)
            row.deleted_at = now()
            session.add(row)
            session.flush()
            _sweep(session, scope, self._pinned(session, scope))

        await self._database.write(work)


list_ = list


def create(session: Session, scope: Scope, name: str, draft: Draft) -> StoredTemplate:
    """In a transaction; the draft was compiled."""
    mine = select(TemplateRow.id).where(TemplateRow.tenant_id == scope.tenant, col(TemplateRow.deleted_at).is_(None))
    if len(session.exec(mine.limit(MAX_TEMPLATES)).all()) >= MAX_TEMPLATES:
        raise Invalid(f"There may be at most {MAX_TEMPLATES:,} templates.", code="too_many_templates")
    _check_free(session, scope, name)
    moment_ = now()
    row = TemplateRow(
        id=new_id("tpl"), tenant_id=scope.tenant, name=name, name_key=name.casefold(), version=1,
        created_at=moment_, updated_at=moment_,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return _told(row, _add_version(session, scope, row, draft, moment_))


def find(session: Session, scope: Scope, id_or_name: str) -> TemplateRow:
    """By id, else by name. Raises Missing."""
    mine = select(TemplateRow).where(TemplateRow.tenant_id == scope.tenant, col(TemplateRow.deleted_at).is_(None))
    row = session.exec(mine.where(TemplateRow.id == id_or_name)).one_or_none()
    row = row or session.exec(mine.where(TemplateRow.name_key == id_or_name.casefold())).one_or_none()
    if row is None:
        raise Missing("There is no such template.", code="template_missing")
    return row


def version_of(session: Session, scope: Scope, template_id: str, version: int) -> TemplateVersionRow:
    """Of a deleted template too. Raises Missing."""
    row = session.get(TemplateVersionRow, (template_id, version))
    if row is None or row.tenant_id != scope.tenant:
        raise Missing("The template has no such version.", code="template_missing")
    return row


def draft_of(row: TemplateVersionRow) -> Draft:
    return Draft(row.body, row.mode, row.system, row.knowledge_query)  # type: ignore[arg-type]


def compiled(session: Session, scope: Scope, template_id: str, version: int) -> Compiled:
    """Raises Missing."""
    return compile(draft_of(version_of(session, scope, template_id, version)))


def _sweep(session: Session, scope: Scope, pinned: Collection[str]) -> None:
    """Remove for good what was deleted and no campaign has pinned."""
    gone = select(TemplateRow.id).where(
        TemplateRow.tenant_id == scope.tenant,
        col(TemplateRow.deleted_at).is_not(None),
        col(TemplateRow.id).not_in(pinned),
    )
    ids = session.exec(gone).all()
    session.execute(delete(TemplateVersionRow).where(col(TemplateVersionRow.template_id).in_(ids)))
    session.execute(delete(TemplateRow).where(col(TemplateRow.id).in_(ids)))


def _change(
    session: Session, scope: Scope, template_id: str, name: str | None, changes: dict[str, Any]
) -> StoredTemplate:
    row = find(session, scope, template_id)
    current = version_of(session, scope, row.id, row.version)
    before = draft_of(current)
    draft = Draft(**{each: changes.get(each, getattr(before, each)) for each in Draft.__slots__})
    moment_ = now()
    if name is not None and name != row.name:
        if name.casefold() != row.name_key:
            _check_free(session, scope, name)
        row.name, row.name_key, row.updated_at = name, name.casefold(), moment_
    if draft != before:
        compile(draft)
        if row.version >= MAX_VERSIONS:
            raise Invalid(
                f"A template has at most {MAX_VERSIONS:,} versions. Make a new one.", code="too_many_versions"
            )
        row.version, row.updated_at = row.version + 1, moment_
        current = _add_version(session, scope, row, draft, moment_)
    session.add(row)
    session.flush()
    return _told(row, current)


def _add_version(session: Session, scope: Scope, row: TemplateRow, draft: Draft, at: float) -> TemplateVersionRow:
    version = TemplateVersionRow(
        template_id=row.id, version=row.version, tenant_id=scope.tenant, mode=draft.mode, body=draft.body,
        system=draft.system, knowledge_query=draft.knowledge_query, created_by=scope.user, created_at=at,
    )  # fmt: skip
    session.add(version)
    session.flush()
    return version


def _check_free(session: Session, scope: Scope, name: str) -> None:
    try:
        find(session, scope, name)
    except Missing:
        return
    raise Conflict(f"There is a template called {name!r} already. Change it, or take another name.", code="name_taken")


def _page(session: Session, scope: Scope, limit: int, cursor: str | None) -> tuple[list[StoredTemplate], str | None]:
    query = select(TemplateRow).where(TemplateRow.tenant_id == scope.tenant, col(TemplateRow.deleted_at).is_(None))
    if cursor is not None:
        query = query.where(col(TemplateRow.id) < cursor)
    rows = session.exec(query.order_by(col(TemplateRow.id).desc()).limit(limit + 1)).all()
    told = [_told(row, version_of(session, scope, row.id, row.version)) for row in rows[:limit]]
    return told, (told[-1].id if len(rows) > limit else None)


def _versions(
    session: Session, scope: Scope, template_id: str, limit: int, before: int | None
) -> tuple[list_[TemplateVersion], str | None]:
    row = find(session, scope, template_id)
    query = select(TemplateVersionRow).where(TemplateVersionRow.template_id == row.id)
    if before is not None:
        query = query.where(col(TemplateVersionRow.version) < before)
    rows = session.exec(query.order_by(col(TemplateVersionRow.version).desc()).limit(limit + 1)).all()
    told = [
        TemplateVersion(
            each.version, each.mode, each.body, each.system, each.knowledge_query,  # type: ignore[arg-type]
            each.created_by, moment(each.created_at),
        )
        for each in rows[:limit]
    ]  # fmt: skip
    return told, (str(told[-1].version) if len(rows) > limit else None)


def _told(row: TemplateRow, version: TemplateVersionRow) -> StoredTemplate:
    read = compile(draft_of(version))
    return StoredTemplate(
        id=row.id,
        name=row.name,
        version=version.version,
        mode=version.mode,  # type: ignore[arg-type]
        body=version.body,
        system=version.system,
        knowledge_query=version.knowledge_query,
        placeholders=sorted(read.names),
        created_at=moment(row.created_at),
        updated_at=moment(row.updated_at),
    )
