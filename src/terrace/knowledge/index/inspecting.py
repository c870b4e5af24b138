"""The index's own tables looked through and mended: what is there for no passage, and what is not like the rest."""

from collections.abc import Sequence
from typing import Any

from sqlmodel import Session

from terrace.errors import Invalid
from terrace.knowledge.health.base import Strays
from terrace.knowledge.index import fulltext, vectors
from terrace.types import Scope

_NO_CHUNK = "NOT EXISTS (SELECT 1 FROM chunks c WHERE c.number = chunk_vectors.number)"


def strays(session: Session, scope: Scope, serving: Sequence[str] | None) -> Strays:
    connection = session.connection()
    widths = _widths(session, scope)
    usual = _usual(widths)
    left = sum(n for (model, _), n in widths.items() if not _serves(serving, model))
    odd = sum(n for (model, width), n in widths.items() if _serves(serving, model) and width != usual[model])
    orphaned = connection.exec_driver_sql(
        f"SELECT count(*) FROM chunk_vectors WHERE tenant_id = ? AND {_NO_CHUNK}", (scope.tenant,)
    ).scalar_one()
    return Strays(odd, left, orphaned, *fulltext.strays(session, scope))


def remove(session: Session, scope: Scope, serving: Sequence[str] | None, kind: str, limit: int) -> list[str]:
    """The documents whose strays went, one for each vector."""
    connection = session.connection()
    wanted: list[tuple[str, tuple[str | int, ...]]] = []
    if kind == "orphaned":
        wanted = [(_NO_CHUNK, ())]
    elif kind == "left":
        wanted = [("model = ?", (model,)) for model, _ in _widths(session, scope) if not _serves(serving, model)]
    elif kind == "odd":
        widths = _widths(session, scope)
        usual = _usual(widths)
        wanted = [
            ("model = ? AND length(vector) = ?", (model, width))
            for model, width in widths
            if _serves(serving, model) and width != usual[model]
        ]
    else:
        raise Invalid(f"There are no strays of the kind {kind!r}.")
    documents: list[str] = []
    for condition, parameters in dict.fromkeys(wanted):
        rows = connection.exec_driver_sql(
            f"SELECT id, document_id FROM chunk_vectors WHERE tenant_id = ? AND {condition} LIMIT ?",
            (scope.tenant, *parameters, limit - len(documents)),
        ).all()
        vectors.remove_ids(session, scope, [row[0] for row in rows])
        documents += [row[1] for row in rows]
    return documents


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


def _widths(session: Session, scope: Scope) -> dict[tuple[str, int], int]:
    """(model, bytes of a vector) -> how many there are."""
    rows = session.connection().exec_driver_sql(
        "SELECT model, length(vector), count(*) FROM chunk_vectors WHERE tenant_id = ? GROUP BY 1, 2", (scope.tenant,)
    )
    return {(model, width): count for model, width, count in rows}


def _usual(widths: dict[tuple[str, int], int]) -> dict[str, int]:
    """The width that most vectors of a model have."""
    return dict(sorted(widths, key=lambda each: widths[each]))


def _serves(serving: Sequence[str] | None, model: str) -> bool:
    return serving is None or model in serving
