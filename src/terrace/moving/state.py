"""How far a destination is: kept in itself, and committed with the rows."""

from dataclasses import asdict, dataclass

import msgspec

from terrace.errors import Conflict
from terrace.moving.sides import Side
from terrace.moving.sides.base import STATE
from terrace.moving.sums import Sum


@dataclass(frozen=True, slots=True)
class State:
    id: str
    source: str
    begun_at: float
    sums: dict[str, Sum] | None = None  # of what arrived; None while it is arriving


def read_state(side: Side) -> State | None:
    there = (
        side.run("SELECT 1 FROM sqlite_master WHERE name = ?", (STATE,))
        if side.dialect == "sqlite"
        else side.run("SELECT 1 WHERE to_regclass(?) IS NOT NULL", (STATE,))
    )
    if not there:
        return None
    found = side.run(f"SELECT content FROM {STATE}")
    return msgspec.json.decode(found[0][0], type=State) if found else None


def write_state(side: Side, state: State, *, version: str) -> None:
    """Within `writing`. `version` is what the schema calls itself from then on."""
    side.run(f"CREATE TABLE IF NOT EXISTS {STATE} (content TEXT NOT NULL)")
    side.run(f"DELETE FROM {STATE}")
    side.run(f"INSERT INTO {STATE} (content) VALUES (?)", (msgspec.json.encode(asdict(state)).decode(),))
    side.run("UPDATE alembic_version SET version_num = ?", (version,))


def forget_state(side: Side, *, version: str) -> None:
    side.run(f"DROP TABLE {STATE}")
    side.run("UPDATE alembic_version SET version_num = ?", (version,))


def empty_of_rows(side: Side, named: str) -> None:
    """Raises Conflict when there are rows."""
    if side.version() is None:
        return
    filled = {each.name: count for each in side.tables() if (count := side.count(each))}
    if filled:
        some = ", ".join(f"{name} ({count:,})" for name, count in list(filled.items())[:5])
        raise Conflict(f"{named} is not empty: {some}. Name one that is.", code="not_empty")
