"""Vectors on SQLite: stored exactly (float16) beside the chunks, found through their sign bits in memory."""

import json
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlmodel import Session

from terrace.errors import Invalid
from terrace.types import Scope, now

CANDIDATES = 400  # nearest by sign bits, judged by their exact cosines
ROWS_PER_CANDIDATE = 800  # a large space has more that are near
MOST_CANDIDATES = 2000
PIECE = 4_000  # rows read into memory at a time; more hold the interpreter for tens of milliseconds
REMOVALS_KEPT_SECONDS = 86_400.0
TRUST_SECONDS = REMOVALS_KEPT_SECONDS / 2  # a copy not brought up to date for longer is read anew

Space = tuple[str, str]  # tenant, model


def add(session: Session, scope: Scope, model: str, chunk_ids: Sequence[str], vectors: Any) -> None:
    """Replaces what these chunks had under `model`; chunks deleted meanwhile are passed over.

    Raises Invalid when the width differs from what is stored under the same name.
    """
    import numpy as np

    vectors = np.asarray(vectors, "<f2")
    if vectors.ndim != 2 or len(vectors) != len(chunk_ids):
        raise Invalid(f"{len(chunk_ids)} chunks need as many vectors, not an array of shape {vectors.shape}.")
    _check_width(session, scope, model, vectors.shape[1])
    connection = session.connection()
    found = connection.exec_driver_sql(
        "SELECT id, number, document_id FROM chunks "
        "WHERE +tenant_id = ? AND id IN (SELECT value FROM json_each(?))",
        (scope.tenant, json.dumps(list(chunk_ids))),
    )  # fmt: skip
    places = {chunk_id: place for place, chunk_id in enumerate(chunk_ids)}
    rows = [
        (scope.tenant, model, number, document_id, vectors[places[chunk_id]].tobytes())
        for chunk_id, number, document_id in found
    ]
    _remove(session, scope, "model = ? AND number IN (SELECT value FROM json_each(?))",
            (model, json.dumps([row[2] for row in rows])))  # fmt: skip
    if rows:
        connection.exec_driver_sql(
            "INSERT INTO chunk_vectors (tenant_id, model, number, document_id, vector) VALUES (?, ?, ?, ?, ?)", rows
        )


def remove(session: Session, scope: Scope, document_id: str) -> None:
    _remove(session, scope, "document_id = ?", (document_id,))


def remove_ids(session: Session, scope: Scope, ids: Sequence[int]) -> None:
    """By their own ids."""
    _remove(session, scope, "id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),))


def known(session: Session, scope: Scope, model: str, hashes: Sequence[str]) -> dict[str, Any]:
    """float32 vectors by `text_sha256`."""
    import numpy as np

    rows = session.connection().exec_driver_sql(
        "SELECT c.text_sha256, v.vector FROM chunks c "
        "JOIN chunk_vectors v ON v.tenant_id = c.tenant_id AND v.model = ? AND v.number = c.number "
        "WHERE c.tenant_id = ? AND c.text_sha256 IN (SELECT value FROM json_each(?))",
        (model, scope.tenant, json.dumps(list(hashes))),
    )
    return {key: np.frombuffer(vector, "<f2").astype(np.float32) for key, vector in rows}


def cosines(session: Session, scope: Scope, model: str, query: Any, column: str, values: list[int]) -> dict[int, float]:
    """Exact cosines by chunk number, of the rows whose `column` (id or number) is among `values`.

    Rows of another width than the query's are passed over: a provider may have changed what a name means.
    """
    from terrace.knowledge.index.bits import dots

    # By an id the row itself is found; with the tenant and model SQLite would look for it in an index of all three.
    of = "+tenant_id = ? AND +model = ?" if column == "id" else "tenant_id = ? AND model = ?"
    rows = session.connection().exec_driver_sql(
        "SELECT number, vector FROM chunk_vectors "
        f"WHERE {of} AND {column} IN (SELECT value FROM json_each(?)) AND length(vector) = ?",
        (scope.tenant, model, json.dumps(values), 2 * len(query)),
    ).all()  # fmt: skip
    if not rows:
        return {}
    numbers, matrix = _matrix(rows)
    return dict(zip(numbers.tolist(), dots(matrix, query).tolist(), strict=True))


def nearest_of_all(session: Session, scope: Scope, model: str, queries: Any, count: int) -> list[dict[int, float]]:
    """Exact cosines by chunk number of the `count` nearest to each of `queries`: every vector is read, once."""
    import numpy as np

    from terrace.knowledge.index.bits import dots

    rows = session.connection().exec_driver_sql(
        "SELECT number, vector FROM chunk_vectors WHERE tenant_id = ? AND model = ? AND length(vector) = ?",
        (scope.tenant, model, 2 * len(queries[0])),
    )
    numbers, cosines = np.zeros(0, np.int64), np.zeros((len(queries), 0), np.float32)
    best = [(numbers, each) for each in cosines]
    while piece := rows.fetchmany(PIECE):
        numbers, matrix = _matrix(piece)
        for place, query in enumerate(queries):
            among = np.concatenate((best[place][0], numbers)), np.concatenate((best[place][1], dots(matrix, query)))
            first = np.lexsort((among[0], -among[1]))[:count]
            best[place] = among[0][first], among[1][first]
    return [dict(zip(numbers.tolist(), cosines.tolist(), strict=True)) for numbers, cosines in best]


def _matrix(rows: Sequence[Any]) -> tuple[Any, Any]:
    """(numbers, float32 vectors) of rows of both."""
    import numpy as np

    matrix = np.frombuffer(b"".join([row[1] for row in rows]), "<f2").reshape(len(rows), -1)
    return np.array([row[0] for row in rows]), matrix.astype(np.float32)


def count(session: Session, scope: Scope) -> int:
    found = session.connection().exec_driver_sql(
        "SELECT count(*) FROM chunk_vectors WHERE tenant_id = ?", (scope.tenant,)
    )
    return int(found.scalar_one())


def _check_width(session: Session, scope: Scope, model: str, width: int) -> None:
    stored = session.connection().exec_driver_sql(
        "SELECT length(vector) / 2 FROM chunk_vectors WHERE tenant_id = ? AND model = ? LIMIT 1", (scope.tenant, model)
    ).scalar()  # fmt: skip
    if stored not in (None, width):
        raise Invalid(f"Vectors of {model} have {stored} dimensions here, not {width}.", code="vector_dimensions")


def _remove(session: Session, scope: Scope, condition: str, parameters: tuple[Any, ...]) -> None:
    connection = session.connection()
    gone = connection.exec_driver_sql(
        f"DELETE FROM chunk_vectors WHERE tenant_id = ? AND {condition} RETURNING model, id",
        (scope.tenant, *parameters),
    ).all()
    if not gone:
        return
    at = now()
    connection.exec_driver_sql(
        "INSERT INTO chunk_vector_removals (tenant_id, model, vector_id, removed_at) VALUES (?, ?, ?, ?)",
        [(scope.tenant, model, number, at) for model, number in gone],
    )
    connection.exec_driver_sql("DELETE FROM chunk_vector_removals WHERE removed_at < ?", (at - REMOVALS_KEPT_SECONDS,))


class Resident:
    """The sign bits of one (tenant, model), brought up to date before each search by what others committed."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._bits: Any = None  # SignBits, made with the first vector
        self._last = 0  # greatest id seen
        self._removed = 0  # greatest removal seen
        self._updating = threading.Lock()
        self.synced = -TRUST_SECONDS  # on the monotonic clock
        self.used = time.monotonic()

    @property
    def nbytes(self) -> int:
        return 0 if self._bits is None else int(self._bits.nbytes)

    def read_piece(self, session: Session) -> bool:
        """Takes in up to PIECE new rows; True when there may be more.

        One thread at a time; another waits, as one whose caller was cancelled may still be in the middle.
        """
        with self._updating:
            if time.monotonic() - self.synced > TRUST_SECONDS and self._bits is not None:
                self._bits, self._last = None, 0
            if self._bits is None:
                self._removed = self._greatest_removal(session)
            more = self._take(session)
            self._drop(session)
            self.synced = time.monotonic()
            return more

    def nearest(self, query: Any, count: int, documents: Collection[str] | None) -> list[int]:
        """Ids of vectors worth an exact look: at least `count` where there are so many."""
        bits = self._bits
        self.used = time.monotonic()
        if bits is None or bits.dimensions != len(query):
            return []
        many = min(len(bits) // ROWS_PER_CANDIDATE, MOST_CANDIDATES)
        ids: list[int] = bits.nearest(query, max(count, many, CANDIDATES), documents).tolist()
        return ids

    def _take(self, session: Session) -> bool:
        import numpy as np

        from terrace.knowledge.index.bits import SignBits

        rows = session.connection().exec_driver_sql(
            "SELECT id, document_id, vector FROM chunk_vectors "
            "WHERE tenant_id = ? AND model = ? AND id > ? ORDER BY id LIMIT ?",
            (*self._space, self._last, PIECE),
        ).all()  # fmt: skip
        if not rows:
            return False
        vectors = np.frombuffer(b"".join(row[2] for row in rows), "<f2").reshape(len(rows), -1)
        if self._bits is None:
            self._bits = SignBits(vectors.shape[1])
        self._bits.extend([row[0] for row in rows], [row[1] for row in rows], vectors)
        self._last = rows[-1][0]
        return len(rows) == PIECE

    def _drop(self, session: Session) -> None:
        rows = session.connection().exec_driver_sql(
            "SELECT id, vector_id FROM chunk_vector_removals WHERE tenant_id = ? AND model = ? AND id > ? ORDER BY id",
            (*self._space, self._removed),
        ).all()  # fmt: skip
        if rows and self._bits is not None:
            self._bits.discard({row[1] for row in rows})
            self._removed = rows[-1][0]

    def _greatest_removal(self, session: Session) -> int:
        found = session.connection().exec_driver_sql(
            "SELECT max(id) FROM chunk_vector_removals WHERE tenant_id = ? AND model = ?", self._space
        )
        return int(found.scalar() or 0)


class Residents:
    """Those in memory: idle ones leave, and the least lately used when they grow too many bytes together."""

    def __init__(self, *, idle_seconds: float, max_bytes: int) -> None:
        self._idle_seconds = idle_seconds
        self._max_bytes = max_bytes
        self._all: dict[Space, Resident] = {}

    def __len__(self) -> int:
        return len(self._all)

    def of(self, space: Space) -> Resident:
        """Moves `space` to the end of the line of those to leave."""
        resident = self._all.pop(space, None) or Resident(space)
        for each in list(self._leaving(resident.nbytes)):
            del self._all[each]
        self._all[space] = resident
        return resident

    def _leaving(self, needed: int) -> Iterator[Space]:
        held = needed + sum(resident.nbytes for resident in self._all.values())
        oldest = time.monotonic() - self._idle_seconds
        for space, resident in self._all.items():
            if resident.used < oldest or held > self._max_bytes:
                held -= resident.nbytes
                yield space
