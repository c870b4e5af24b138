"""Whose jobs a caller sees."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, TextClause, bindparam, text


@dataclass(frozen=True, slots=True)
class Sight:
    """One's own, and those of kinds that are shared in the tenant; all of the tenant with `everyone`."""

    user: str | None
    shared: Sequence[str] = ()
    everyone: bool = False

    def sees(self, row: Mapping[Any, Any]) -> bool:
        return self.everyone or row["user_id"] == self.user or row["kind"] in self.shared

    def within(self, statement: str) -> tuple[TextClause, dict[str, Any]]:
        """A SELECT with `{sight}` among its conditions, and the values it takes."""
        if self.everyone:
            return text(statement.format(sight="1 = 1")), {}
        whose = "user_id IS NULL" if self.user is None else "user_id = :viewer"
        found = text(statement.format(sight=f"({whose} OR kind IN :shared)"))
        values = {"shared": list(self.shared)} | ({} if self.user is None else {"viewer": self.user})
        return found.bindparams(bindparam("shared", expanding=True, type_=String)), values


EVERYTHING = Sight(None, everyone=True)
