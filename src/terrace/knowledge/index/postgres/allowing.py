"""The documents that a filter lets through. Their ids stay as PostgreSQL wrote them: to unpack thousands, and to pack
them again for each statement, takes milliseconds."""

from typing import NamedTuple

from sqlalchemy import Text, cast, func, select
from sqlmodel import Session, col

from terrace.knowledge.base import Filter
from terrace.knowledge.index.filters import passing
from terrace.knowledge.tables import DocumentRow
from terrace.types import Scope


class Allowed(NamedTuple):
    documents: str  # their ids, as an array is written
    passages: int  # that they have together


NOTHING = Allowed("{}", 0)


def allowed(session: Session, scope: Scope, filter: Filter) -> Allowed | None:
    """None when everything is."""
    if filter == Filter():
        return None
    ids = cast(func.array_agg(col(DocumentRow.id)), Text)
    passages = func.coalesce(func.sum(col(DocumentRow.chunk_count)), 0)
    found = session.execute(select(ids, passages).where(*passing(scope, filter))).one()
    return Allowed(found[0], int(found[1])) if found[0] else NOTHING
