"""From received files to rows and the jobs that read them: functions of a transaction."""

from collections.abc import Callable, Sequence

from sqlmodel import Session

from terrace.accounts.limits.base import Limits
from terrace.errors import Limited, TerraceError
from terrace.jobs.base import Jobs
from terrace.knowledge import store, tasks
from terrace.knowledge.base import Document
from terrace.knowledge.receiving import Received, Refused
from terrace.knowledge.tables import DocumentRow
from terrace.knowledge.views import BatchItem
from terrace.types import Scope, now


class Admitting:
    def __init__(self, jobs: Jobs, limits: Limits) -> None:
        self._jobs = jobs
        self._limits = limits

    def batch(
        self, session: Session, scope: Scope, got: Sequence[Received | Refused], collection: str, tags: Sequence[str]
    ) -> tuple[str | None, list[BatchItem]]:
        """What became of each file, and the one job above those that are read; None when none is."""
        parent: list[str] = []

        def parent_id() -> str:
            if not parent:
                parent.append(self._jobs.enqueue(session, scope, tasks.BATCH, {"files": len(got)}))
            return parent[0]

        def item(each: Received | Refused) -> BatchItem:
            if isinstance(each, Refused):
                return _refused(each.name, each.error)
            try:
                return BatchItem(each.name, self.one(session, scope, each, collection, tags, parent_id))
            except Limited as error:
                if error.code != "limit_reached":
                    raise
                return _refused(each.name, error)  # a smaller one may still fit

        items = [item(each) for each in got]
        return (parent[0] if parent else None), items

    def one(
        self,
        session: Session,
        scope: Scope,
        received: Received,
        collection: str,
        tags: Sequence[str],
        parent: Callable[[], str] | None = None,
    ) -> Document:
        """The row of a received file and the job that reads it; or the document that is there already.

        Raises Limited before anything is written about a new one that there is no room for.
        """
        within = store.ensure_collection(session, scope, collection)
        row = store.with_content(session, scope, within.id, received.sha256)
        duplicate = row is not None
        if row is None:
            self._limits.admit(session, scope, documents=1, bytes=received.bytes)
            row = _row(scope, within.id, received)
            session.add(row)
            session.flush()
            store.set_tags(session, scope, row.id, tags)
        if not duplicate or row.state == "failed":
            parent_id = parent() if parent else None
            store.enqueue(session, scope, self._jobs, row, tasks.INGEST, parent_id=parent_id)
        session.flush()
        return store.shown(session, scope, [row], duplicate=duplicate)[0]


def _row(scope: Scope, collection_id: str, received: Received) -> DocumentRow:
    return DocumentRow(
        id=received.document_id,
        tenant_id=scope.tenant,
        collection_id=collection_id,
        name=received.name,
        name_key=store.name_key(received.name, ""),
        media_type=received.media_type,
        bytes=received.bytes,
        sha256=received.sha256,
        blob=received.blob,
        user_id=scope.user,
        key_id=scope.key,
        created_at=now(),
        updated_at=now(),
    )


def _refused(name: str, error: TerraceError) -> BatchItem:
    return BatchItem(name, error={"kind": error.kind, "code": error.code, "message": error.message})
