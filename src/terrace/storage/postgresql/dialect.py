"""How SQLAlchemy's statements are written for PostgreSQL."""

from typing import Any

from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.types import String, TypeDecorator

from terrace.storage.statements import Alike


class _DDL(PGDDLCompiler):
    """Text is compared as bytes, as SQLite does it, whatever language the database was made with."""

    def get_column_specification(self, column: Any, **kwargs: Any) -> str:
        made: str = super().get_column_specification(column, **kwargs)  # type: ignore[no-untyped-call]
        plain = column.type.impl_instance if isinstance(column.type, TypeDecorator) else column.type
        if isinstance(plain, String) and plain.collation is None:
            name = self.preparer.format_column(column)
            kind = self.dialect.type_compiler_instance.process(column.type, type_expression=column)
            return made.replace(f"{name} {kind}", f'{name} {kind} COLLATE "C"', 1)
        return made


class Dialect(Alike, PGDialect_psycopg):
    supports_statement_cache = True
    ddl_compiler = _DDL
