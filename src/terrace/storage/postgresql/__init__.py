"""PostgreSQL as the database: see docs/postgresql.md and decisions 0012 and 0013."""

from terrace.storage.postgresql.database import PostgreSQLDatabase

__all__ = ["PostgreSQLDatabase"]
