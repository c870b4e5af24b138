"""Migrations go up, down and up again, make exactly the tables the code declares, and fail without a trace."""

import importlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, inspect, text
from sqlmodel import SQLModel
from tests.postgres import Postgres

from terrace.errors import Conflict, Internal, Invalid
from terrace.settings import Settings
from terrace.storage import Database, SQLiteDatabase, migrate, open_database, snapshot
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.storage.postgresql.engine import engine_for
from terrace.storage.postgresql.migrating import migrate_once

ROOT = Path(migrate.__file__).parent.parent
BOOKKEEPING = {"alembic_version"}
VIRTUAL = "fts"  # full text tables are made outside the metadata


@pytest.fixture
async def empty(tmp_path: Path):
    database = SQLiteDatabase(tmp_path / "terrace.db", durability="normal")
    yield database
    await database.close()


def revisions() -> list[str]:
    return sorted(path.name[:4] for path in (migrate.MIGRATIONS / "versions").glob("[0-9]*.py"))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names()) - BOOKKEEPING


@pytest.fixture(params=["sqlite", "postgresql"])
async def bare(request: pytest.FixtureRequest, empty: SQLiteDatabase) -> AsyncIterator[Database]:
    """With nothing in it, of one kind and of the other."""
    if request.param == "sqlite":
        yield empty
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = server.create(empty=True)
    database = PostgreSQLDatabase(url, connections=2)
    yield database
    await database.close()
    server.drop(url)


async def test_up_down_and_up_again(bare: Database) -> None:
    await bare.write(migrate_once)
    whole = await bare.read(lambda session: tables(session.connection()))
    for revision in [*reversed(revisions()[:-1]), "base"]:
        await bare.write(migrate_once, revision)
    assert await bare.read(lambda session: tables(session.connection())) == set()
    await bare.write(migrate_once)
    assert await bare.read(lambda session: tables(session.connection())) == whole


async def test_the_schema_that_is_written_down_is_what_the_migrations_make(
    empty: SQLiteDatabase, tmp_path: Path
) -> None:
    copied = SQLiteDatabase(tmp_path / "copied.db", durability="normal")
    await empty.write(migrate_once, migrate.head())
    await copied.write(migrate_once)
    written = await empty.read(lambda session: snapshot.written(session.connection()))
    assert written == snapshot.FILE.read_text(), "`make schema` writes it anew"
    assert await copied.read(lambda session: snapshot.written(session.connection())) == written
    await copied.close()


COLUMNS = """SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns
WHERE table_schema = 'public'"""
INDEXES = """SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public'"""
KEYS = """SELECT conrelid::regclass::text, contype::text, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace"""


async def test_the_schema_is_what_the_rooms_declare_on_postgresql(postgres: Postgres, postgres_url: str) -> None:
    declare()
    names = set(SQLModel.metadata.tables) - {"chunk_vectors"}  # whose vectors are pgvector's
    made = postgres.create(empty=True)
    engine = engine_for(made)
    with engine.begin() as connection:
        SQLModel.metadata.create_all(connection)
    engine.dispose()
    found = []
    for url in (made, postgres_url):
        with postgres.connection(url) as connection:
            rows = [row for each in (COLUMNS, INDEXES, KEYS) for row in connection.execute(each).fetchall()]
        found.append({tuple(row) for row in rows if row[0] in names})
    postgres.drop(made)
    declared, migrated = found
    assert sorted(declared - migrated, key=str) == []
    assert sorted(migrated - declared, key=str) == []


def declare() -> None:
    """Load every room's tables."""
    for path in [*ROOT.rglob("tables.py"), ROOT / "storage" / "leading.py"]:
        importlib.import_module("terrace." + ".".join(path.relative_to(ROOT).with_suffix("").parts))


def shape(connection: Connection) -> dict[str, object]:
    """Columns and indexes of each table as SQLite itself describes them, order and partial conditions included."""

    def rows(statement: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute(text(statement))]

    shapes: dict[str, object] = {}
    for table in tables(connection):
        columns = sorted(tuple(row[1:]) for row in rows(f"PRAGMA table_info({table})"))
        indexes = {}
        for _, name, unique, _, partial in rows(f"PRAGMA index_list({table})"):
            where = rows(f"SELECT max(sql) FROM sqlite_master WHERE name = '{name}'")[0][0]
            condition = " ".join(str(where).partition(" WHERE ")[2].split())
            indexes[name] = (unique, partial, condition, [row[2:4] for row in rows(f"PRAGMA index_xinfo({name})")])
        shapes[table] = (columns, indexes)
    return shapes


async def test_the_schema_is_what_the_rooms_declare(empty: SQLiteDatabase, tmp_path: Path) -> None:
    declare()
    await empty.write(lambda session: migrate.migrate(session.connection()))
    made = SQLiteDatabase(tmp_path / "made.db", durability="normal")
    await made.write(lambda session: SQLModel.metadata.create_all(session.connection()))
    declared = await made.read(lambda session: shape(session.connection()))
    migrated = await empty.read(lambda session: shape(session.connection()))
    await made.close()
    assert {name: each for name, each in migrated.items() if name in declared or VIRTUAL not in name} == declared


NOBODYS = {
    "job_workers",  # processes serve every tenant
    "leaders",  # and one of them leads
    "prices",  # the installation's
    "generations",  # so are these: the embedding model is a setting
    "tenants",
    "users",  # a person may belong to several tenants
    "identities",
    "password_resets",
    "limit_members",  # those processes
    "limit_meeting",  # and where they meet
    "guesses",  # whoever makes them has not said who they are
}


async def test_every_table_says_whose_a_row_is() -> None:
    declare()
    for table in SQLModel.metadata.tables.values():
        if table.name not in NOBODYS:
            assert "tenant_id" in table.columns, table.name


def _add_revision(folder: Path, body: str) -> None:
    number = f"{int(migrate.head()) + 1:04d}"
    (folder / "versions" / f"{number}_broken.py").write_text(
        f'revision = "{number}"\ndown_revision = "{migrate.head()}"\n\n\n'
        f"def upgrade() -> None:\n    from alembic import op\n    {body}\n"
    )


async def test_a_failing_migration_leaves_everything_as_it_was(empty: SQLiteDatabase, tmp_path: Path) -> None:
    folder = tmp_path / "50% more"
    shutil.copytree(migrate.MIGRATIONS, folder)
    _add_revision(folder, 'op.execute("CREATE TABLE half (id INTEGER)"); op.execute("CREATE TABLE half (id INTEGER)")')
    with pytest.raises(Internal, match=r"rolled back.*half already exists") as told:
        await empty.write(lambda session: migrate.migrate(session.connection(), folder=folder))
    assert told.value.code == "migration_failed"
    assert await empty.read(lambda session: tables(session.connection())) == set()
    await empty.write(lambda session: migrate.migrate(session.connection()))


async def test_a_database_of_the_future_is_refused(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    database = await open_database(settings)
    await database.write(lambda session: session.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    await database.close()
    with pytest.raises(Conflict, match="9999"):
        await open_database(settings)


async def test_a_backup_is_made_before_a_migration_and_only_then(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    database = await open_database(settings)
    backups = tmp_path / "backups"
    assert not backups.exists()
    before = revisions()[0]
    await database.write(lambda session: migrate.migrate(session.connection(), before))
    await database.write(
        lambda session: session.execute(text("INSERT INTO job_workers VALUES ('wrk_1', 'here', 1, 'x', 0, 0)"))
    )
    await database.close()
    await (await open_database(settings)).close()
    copy = backups / f"terrace-{before}.db"
    assert [path.name for path in backups.iterdir()] == [copy.name]
    old = SQLiteDatabase(copy)
    assert await old.read(lambda session: session.execute(text("SELECT id FROM job_workers")).scalar()) == "wrk_1"
    assert await old.read(lambda session: migrate.current(session.connection())) == before
    await old.close()
    copy.unlink()
    await (await open_database(settings)).close()
    assert not copy.exists()


@pytest.mark.parametrize("url", ["mysql://x", "sqlite://", "nonsense"])
async def test_an_unknown_url_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(Invalid, match=r"storage\.url"):
        await open_database(Settings(data=tmp_path, storage={"url": url}))
