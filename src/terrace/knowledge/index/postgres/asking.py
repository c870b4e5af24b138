"""How a search asks PostgreSQL: past SQLAlchemy, whose share would be a third of the time that the server takes, and
with its settings in the same message."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlmodel import Session

from terrace.storage.database import driver_of

SETTINGS = (
    "SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; "
    "SET LOCAL work_mem = '64MB'"  # for the documents of a filter
)


def ask(session: Session, statement: str, parameters: Sequence[Any], settings: str = "") -> list[tuple[Any, ...]]:
    """The rows. `settings` hold until the end of the transaction."""
    if settings:
        found = driver_of(session).cursor().together((settings, None), (statement, parameters))
    else:
        found = driver_of(session).execute(statement, parameters)
    rows: list[tuple[Any, ...]] = found.fetchall()
    return rows


def array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes one, for a parameter `%s::bigint[]`: the driver takes twenty times as long over a list."""
    return f"{{{','.join(map(str, numbers))}}}"
