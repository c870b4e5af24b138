"""What went wrong in PostgreSQL, in a sentence; mistakes in our own SQL stay what they are."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from terrace.errors import Invalid, Unavailable

LOST = {"40001", "40P01"}  # serialization failure, deadlock: run it again
# A row that the work had looked for in vain is there now, or one that it had found is gone: looking again may help.
CHANGED = {"23505", "23503"}
AWAY = {"08", "57P01", "57P02", "57P03", "57P05", "53300", "25P03"}
SENTENCES = {
    "53100": ("The disk is full. Free some space; nothing half-done was kept.", "disk_full"),
    "53200": ("PostgreSQL has no memory left. Try again in a moment.", "database_busy"),
    "55P03": ("The database is busy. Try again in a moment.", "database_busy"),
    "57014": ("The database is busy. Try again in a moment.", "database_busy"),
    "25006": ("The database takes no writes: it is a standby, or was asked to read only.", "database_unusable"),
    "28000": ("PostgreSQL refuses the user of storage.url.", "database_unusable"),
    "28P01": ("PostgreSQL refuses the user or password of storage.url.", "database_unusable"),
    "3D000": ("The database of storage.url is not there: create it first.", "database_unusable"),
}


def unreachable() -> Unavailable:
    return Unavailable(
        "The database cannot be reached. Nothing half-done was kept; try again in a moment.",
        code="database_unreachable",
        retry_after=1,
    )


def busy() -> Unavailable:
    return Unavailable("The database is busy. Try again in a moment.", code="database_busy", retry_after=1)


def state_of(error: BaseException) -> str | None:
    """The five characters that say what PostgreSQL complains about; None when it said nothing."""
    found: str | None = getattr(original(error), "sqlstate", None)
    return found


def original(error: BaseException) -> BaseException:
    inner = error.orig if isinstance(error, DBAPIError) else None
    return error if inner is None else inner


def lost_race(error: BaseException) -> bool:
    return state_of(error) in LOST


def may_have_changed(error: BaseException) -> bool:
    return state_of(error) in CHANGED


def is_away(error: BaseException) -> bool:
    """Whether the connection is gone, or could not be made."""
    import psycopg

    state = state_of(error)
    if state is not None:
        return state in AWAY or state[:2] in AWAY
    return isinstance(original(error), (psycopg.OperationalError, psycopg.InterfaceError))


@contextmanager
def unless_away() -> Iterator[None]:
    """To end what ends by itself when the connection is gone."""
    try:
        yield
    except Exception as error:
        if not is_away(error):
            raise


def reason(error: BaseException) -> str:
    """What the driver said when it could not connect, for whoever starts us: never a password."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(original(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).removeprefix("connection failed: ")


def told(error: BaseException) -> BaseException:
    import psycopg

    inner = original(error)
    if not isinstance(inner, psycopg.Error):
        return error
    state = state_of(error)
    if state is None and isinstance(inner, psycopg.ProgrammingError) and "connection option" in str(inner):
        return Invalid(f"storage.url is not understood: {reason(inner)}.", code="bad_setting")
    if state in SENTENCES:
        sentence, code = SENTENCES[state]
        return Unavailable(sentence, code=code, retry_after=1 if code == "database_busy" else None)
    if is_away(error):
        return unreachable()
    if lost_race(error):
        return busy()
    if state == "22003":
        return Invalid("A number is too large: at most 9223372036854775807 is taken.", code="number_too_large")
    if state == "22021" or (state is None and "NUL" in str(inner)):
        return Invalid("A text has the character U+0000 in it, which the database does not take.", code="bad_text")
    return error
