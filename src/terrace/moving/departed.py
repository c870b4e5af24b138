"""Documents that came and went while a backup was being made: its database knows them, and their files were gone before
they could be taken.
"""

from collections.abc import Container
from contextlib import closing

from sqlmodel import Session, col, select

from terrace.knowledge import store
from terrace.knowledge.base import Index
from terrace.knowledge.tables import DocumentRow
from terrace.moving.places import Place, open_side
from terrace.types import Scope

AT_ONCE = 500


def lacking(copy: Place, files: Container[str]) -> list[str]:
    """Documents whose file is not among `files`."""
    with closing(open_side(copy)) as side, side.reading() as session:
        return [id for id, key in session.exec(select(DocumentRow.id, DocumentRow.blob)) if key not in files]


def leave_out(copy: Place, running: Place, index: Index, documents: list[str]) -> None:
    """Those of them that the installation that goes on does not have any more. A file that it lacks as well is no
    reason: what was read of it is all there is."""
    with closing(open_side(copy)) as side, closing(open_side(running)) as live:
        for start in range(0, len(documents), AT_ONCE):
            some = documents[start : start + AT_ONCE]
            with live.reading() as now:
                there = set(now.exec(select(DocumentRow.id).where(col(DocumentRow.id).in_(some))))
            with side.writing() as session:
                for row in _rows(session, [id for id in some if id not in there]):
                    store.delete_documents(session, Scope(row.tenant_id), index, [row])


def _rows(session: Session, ids: list[str]) -> list[DocumentRow]:
    return list(session.exec(select(DocumentRow).where(col(DocumentRow.id).in_(ids))))
