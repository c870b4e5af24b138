"""What a database says when it cannot go on, as a sentence."""

import sqlite3
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError

from terrace.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


def guarded(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Raises Unavailable where the database broke off (full disk, lost connection, a value it cannot take)."""
    try:
        return work(*args, **kwargs)
    except Exception as error:
        if not isinstance(error, sqlite3.Error | DBAPIError) and not type(error).__module__.startswith("psycopg"):
            raise
        said = str(getattr(error, "orig", None) or error).partition("\n")[0]  # the rest may hold what is in a row
        told = Unavailable(f"The database broke off: {said}. Mend that, and go on with --resume.", code="broke_off")
        raise told from error
