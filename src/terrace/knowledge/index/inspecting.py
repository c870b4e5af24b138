"""The index's own tables looked through and mended: what is there for no passage, and what is not like the rest."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func
from sqlmodel import Session, col, select

from terrace.errors import Invalid
from terrace.knowledge.health.base import Strays
from terrace.knowledge.index import vectors
from terrace.knowledge.index.tables import VectorRow
from terrace.knowledge.tables import ChunkRow
from terrace.types import Scope


def strays(session: Session, scope: Scope, serving: Sequence[str] | None, texts: tuple[int, int]) -> Strays:
    """`texts`: those without a passage, and the passages without one."""
    widths = _widths(session, scope)
    usual = _usual(widths)
    left = sum(n for (model, _), n in widths.items() if not _serves(serving, model))
    odd = sum(n for (model, width), n in widths.items() if _serves(serving, model) and width != usual[model])
    orphaned = session.exec(select(func.count()).select_from(VectorRow).where(_mine(scope), _no_chunk())).one()
    return Strays(odd, left, orphaned, *texts)


def remove(session: Session, scope: Scope, serving: Sequence[str] | None, kind: str, limit: int) -> list[str]:
    """The documents whose strays went, one for each vector."""
    documents: list[str] = []
    for condition in _wanted(session, scope, serving, kind):
        query = select(col(VectorRow.id), VectorRow.document_id).where(_mine(scope), *condition)
        rows = session.exec(query.limit(limit - len(documents))).all()
        remove_ids(session, scope, [row[0] for row in rows if row[0] is not None])
        documents += [row[1] for row in rows]
    return documents


def remove_ids(session: Session, scope: Scope, ids: Sequence[int]) -> None:
    """Vectors by their own ids, whichever database it is."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(delete(VectorRow).where(_mine(scope), col(VectorRow.id).in_(ids)))
    else:
        vectors.remove_ids(session, scope, ids)


def _wanted(
    session: Session, scope: Scope, serving: Sequence[str] | None, kind: str
) -> list[tuple[ColumnElement[bool], ...]]:
    if kind == "orphaned":
        return [(_no_chunk(),)]
    widths = _widths(session, scope)
    if kind == "left":
        models = dict.fromkeys(model for model, _ in widths if not _serves(serving, model))
        return [(col(VectorRow.model) == model,) for model in models]
    if kind == "odd":
        usual = _usual(widths)
        return [
            (col(VectorRow.model) == model, _width(session) == width)
            for model, width in widths
            if _serves(serving, model) and width != usual[model]
        ]
    raise Invalid(f"There are no strays of the kind {kind!r}.")


def after(session: Session, scope: Scope, model: str, place: int, limit: int) -> tuple[int, list[str], Any]:
    """Of the width of the first one: what is odd is told elsewhere."""
    import numpy as np

    rows = session.connection().exec_driver_sql(
        "SELECT id, document_id, vector FROM chunk_vectors WHERE tenant_id = ? AND model = ? AND id > ? "
        "ORDER BY id LIMIT ?",
        (scope.tenant, model, place, limit),
    ).all()  # fmt: skip
    if not rows:
        return place, [], np.zeros((0, 0), np.float16)
    alike = [row for row in rows if len(row[2]) == len(rows[0][2])]
    matrix = np.frombuffer(b"".join(row[2] for row in alike), "<f2").reshape(len(alike), -1)
    return rows[-1][0], [row[1] for row in alike], matrix


def _mine(scope: Scope) -> ColumnElement[bool]:
    return col(VectorRow.tenant_id) == scope.tenant


def _no_chunk() -> ColumnElement[bool]:
    return ~select(ChunkRow.number).where(ChunkRow.number == VectorRow.number).exists()


def _width(session: Session) -> ColumnElement[int]:
    """Of a vector: in bytes, or in dimensions."""
    measure = func.vector_dims if session.get_bind().dialect.name == "postgresql" else func.length
    width: ColumnElement[int] = measure(VectorRow.vector)
    return width


def _widths(session: Session, scope: Scope) -> dict[tuple[str, int], int]:
    """(model, width) -> how many there are."""
    width = _width(session)
    rows = session.exec(
        select(VectorRow.model, width, func.count()).where(_mine(scope)).group_by(VectorRow.model, width)
    )
    return {(model, width): count for model, width, count in rows}


def _usual(widths: dict[tuple[str, int], int]) -> dict[str, int]:
    """The width that most vectors of a model have."""
    return dict(sorted(widths, key=lambda each: widths[each]))


def _serves(serving: Sequence[str] | None, model: str) -> bool:
    return serving is None or model in serving
