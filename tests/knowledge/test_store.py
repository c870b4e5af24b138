"""The schema: what the migration makes is what the tables say."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

from terrace.knowledge import tables
from terrace.knowledge.index import tables as index_tables  # it adds an index to ours
from terrace.storage import Database
from terrace.storage.migrate import migrate

assert index_tables
OURS = {
    table.__tablename__
    for table in vars(tables).values()
    if isinstance(table, type) and issubclass(table, SQLModel) and table is not SQLModel
}


async def test_the_migration_makes_the_tables(database: Database) -> None:
    def differences(connection: Connection) -> list[str]:
        context = MigrationContext.configure(
            connection, opts={"include_object": lambda _o, name, type, *_: type != "table" or name in OURS}
        )
        return [
            str(each)
            for each in compare_metadata(context, SQLModel.metadata)
            if any(name in str(each) for name in OURS)
        ]

    assert await database.read(lambda session: differences(session.connection())) == []
    assert {"collections", "documents", "chunks"} <= OURS


async def test_the_migration_goes_down_and_up(database: Database) -> None:
    await database.write(lambda session: migrate(session.connection(), "0001"))
    await database.write(lambda session: migrate(session.connection()))
