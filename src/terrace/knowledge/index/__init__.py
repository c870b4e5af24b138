"""Full text and vectors beside the chunks. One contract suite holds every implementation to the same behaviour."""

from terrace.knowledge.index.memory import MemoryIndex
from terrace.knowledge.index.opening import open_index
from terrace.knowledge.index.sqlite import SQLiteIndex

__all__ = ["MemoryIndex", "SQLiteIndex", "open_index"]
