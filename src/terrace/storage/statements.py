"""What a statement was compiled to serves every engine of its kind: a process may open many, one after the other.

To SQLAlchemy each engine's dialect is another one, and so each compiled anew what the one before had compiled.
"""

from typing import Any

from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache

MOST = 1_000

# What each engine is made with, beside its address.
SHARED: dict[str, Any] = {"execution_options": {"compiled_cache": LRUCache[Any, Any](MOST)}}


class Alike(DefaultDialect):
    """A dialect that equals every other of its class, for servers of the same version."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Alike)
            and type(self) is type(other)
            and self.server_version_info == other.server_version_info
        )

    def __hash__(self) -> int:
        return hash(type(self))


# Names of ours, so that what only one database needs is imported when an engine for it is made.
registry.register("sqlite.terrace", "terrace.storage.sqlite", "Dialect")
registry.register("postgresql.terrace", "terrace.storage.postgresql.dialect", "Dialect")
