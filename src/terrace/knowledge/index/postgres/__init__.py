"""The index on PostgreSQL: words in a GIN index, vectors in pgvector."""

from terrace.knowledge.index.postgres.index import PostgresIndex

__all__ = ["PostgresIndex"]
