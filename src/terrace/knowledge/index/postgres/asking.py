"""How a search asks PostgreSQL: past SQLAlchemy, whose share would be a third of the time that the server takes, and
in few messages."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlmodel import Session

from terrace.storage.database import driver_of

# Of the whole transaction of a search.
SETTINGS = (
    "SET LOCAL jit = off; SET LOCAL enable_seqscan = off; SET LOCAL max_parallel_workers_per_gather = 0; "
    "SET LOCAL work_mem = '64MB'"  # for the documents of a filter
)


def ask(session: Session, statement: str, parameters: Sequence[Any], settings: str = "") -> list[tuple[Any, ...]]:
    """The rows. `settings` hold until the end of the transaction, and go with it."""
    if settings:
        found = driver_of(session).cursor().together((settings, None), (statement, parameters))
    else:
        # As text, hundreds of numbers would be written and read digit by digit.
        found = driver_of(session).execute(statement, parameters, binary=True)
    rows: list[tuple[Any, ...]] = found.fetchall()
    return rows


def ask_together(session: Session, *asked: tuple[str, Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
    """The rows of each, in one message."""
    found = driver_of(session).cursor().together(*asked)
    return [found.set_result(place).fetchall() for place in range(len(asked))]


def array(numbers: Iterable[int]) -> str:
    """As PostgreSQL writes one, for a parameter `%s::bigint[]`: the driver takes twenty times as long over a list."""
    return f"{{{','.join(map(str, numbers))}}}"
