"""One database into another: nothing lost, nothing changed at the source, nothing open before it is whole."""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.moving.conftest import WORDS, Installation, quiet, settings_of, sums
from tests.postgres import Postgres

from terrace import assembly
from terrace.errors import Conflict, Internal, Invalid, Unavailable
from terrace.knowledge.base import Filter
from terrace.moving.databases import DatabaseMove
from terrace.moving.places import Place, open_side, place
from terrace.storage import open_database
from terrace.types import Scope

pytestmark = pytest.mark.faults


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Place]:
    """A PostgreSQL database with nothing in it."""
    url = postgres.create(empty=True)
    yield place(url)
    postgres.drop(url)


def lines(path: Path) -> str:
    """The whole file's content, as SQL."""
    with closing(sqlite3.connect(path)) as connection:
        return hashlib.sha256("\n".join(connection.iterdump()).encode()).hexdigest()


async def search(settings: object, scope: Scope) -> list[list[int]]:
    async with assembly.assemble(settings) as house:  # type: ignore[arg-type]
        return [
            [each.number for each in await house.index.search(scope, word, None, model=None, k=5, filter=Filter())]
            for word in WORDS[:6]
        ]


async def test_there_and_back_again(installation: Installation, empty: Place, tmp_path: Path) -> None:
    before, there = lines(installation.place.path), sums(installation.place)
    moved = await DatabaseMove(installation.place, empty, quiet).run()
    assert moved.tables == there == sums(empty)
    assert {name for name, each in there.items() if each.rows} >= {"chunks", "documents", "chunk_vectors", "jobs"}
    assert moved.searched.queries > 10
    assert moved.searched.equal == moved.searched.queries
    assert lines(installation.place.path) == before
    found = await search(installation.settings, Scope("globex"))
    assert await search(settings_of(tmp_path / "other", url=empty.address), Scope("globex")) == found
    assert any(found)

    back = place(f"sqlite:///{tmp_path / 'back.db'}")
    house_has_run = sums(empty)
    await DatabaseMove(empty, back, quiet).run()
    assert sums(back) == house_has_run


async def test_indexes_and_numbers_are_as_in_a_database_that_was_filled_by_hand(
    installation: Installation, empty: Place, postgres: Postgres
) -> None:
    await DatabaseMove(installation.place, empty, quiet).run()
    fresh = postgres.create()
    with postgres.connection(fresh) as one, postgres.connection(empty.address) as two:
        query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        assert two.execute(query).fetchall() == one.execute(query).fetchall()
    with closing(open_side(installation.place)) as source, closing(open_side(empty)) as destination:
        assert destination.numbers() == source.numbers()
        assert source.numbers()["chunks"] > 0


async def test_a_role_that_is_no_superuser_moves_every_tenants_rows(
    installation: Installation, empty: Place, postgres: Postgres, tmp_path: Path
) -> None:
    name = empty.address.rpartition("/")[2]
    with postgres.connection() as connection:
        connection.execute(f"CREATE ROLE keeper_{name} LOGIN")
        connection.execute(f"ALTER DATABASE {name} OWNER TO keeper_{name}")
    with postgres.connection(empty.address) as connection:
        connection.execute("CREATE EXTENSION vector")  # which only a superuser may
    there = place(postgres.url(name, user=f"keeper_{name}"))
    await DatabaseMove(installation.place, there, quiet).run()
    back = place(f"sqlite:///{tmp_path / 'back.db'}")
    await DatabaseMove(there, back, quiet).run()
    assert sums(back) == sums(installation.place)


async def test_a_dry_run_counts_and_writes_nothing(
    installation: Installation, empty: Place, postgres: Postgres, tmp_path: Path
) -> None:
    plan = await DatabaseMove(installation.place, empty, quiet).plan()
    assert plan.tables == {name: each.rows for name, each in sums(installation.place).items()}
    assert plan.state == "empty"
    with postgres.connection(empty.address) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    await DatabaseMove(installation.place, place(f"sqlite:///{tmp_path}/new/other.db"), quiet).plan()
    assert not (tmp_path / "new").exists()


async def test_what_is_not_empty_is_left_alone(installation: Installation, lived_in: Path) -> None:
    other = place(f"sqlite:///{lived_in / 'terrace.db'}")
    before = lines(other.path)
    with pytest.raises(Conflict, match="is not empty"):
        await DatabaseMove(installation.place, other, quiet).run()
    with pytest.raises(Conflict, match="is not empty"):
        await DatabaseMove(installation.place, other, quiet).roll_back()
    assert lines(other.path) == before


async def test_what_broke_off_is_opened_by_nobody_and_goes_on(installation: Installation, empty: Place) -> None:
    class Cut(Exception):
        pass

    def cut(doing: str, done: int, total: int) -> None:
        if doing == "moved chunk_vectors":
            raise Cut

    with pytest.raises(Cut):
        await DatabaseMove(installation.place, empty, cut).run()
    with pytest.raises(Conflict, match="still being moved"):
        await open_database(settings_of(installation.data, url=empty.address))
    move = DatabaseMove(installation.place, empty, quiet)
    assert (await move.plan()).state == "begun"
    with pytest.raises(Conflict, match="--resume"):
        await move.run()
    with pytest.raises(Conflict, match="moved from"):
        await DatabaseMove(place(f"sqlite:///{installation.data}/x.db"), empty, quiet).roll_back()
    await move.run(resume=True)
    assert sums(empty) == sums(installation.place)
    database = await open_database(settings_of(installation.data, url=empty.address))
    await database.close()


async def test_later_writes_are_caught_up_with(installation: Installation, empty: Place) -> None:
    move = DatabaseMove(installation.place, empty, quiet)
    await move.run()
    async with assembly.assemble(installation.settings) as house:
        documents, _ = await house.knowledge.list(Scope())
        await house.knowledge.delete(Scope(), documents[0].id)
        await house.chat.create(Scope(), "Another conversation")
        await house.database.write(
            lambda session: session.connection().exec_driver_sql(
                "UPDATE chunks SET page = 7 WHERE document_id = ?", (documents[1].id,)
            )
        )
    assert sums(empty) != sums(installation.place)
    moved = await move.run(resume=True)
    assert sums(empty) == sums(installation.place)
    assert moved.searched.equal == moved.searched.queries


SPOILT = {
    "words that are gone": "DELETE FROM chunk_words WHERE number = (SELECT min(number) FROM chunk_words)",
    "words that are others": "UPDATE chunk_words SET times = overlay(times PLACING '\\x28' FROM 1)",
    "words that are not counted": "DELETE FROM word_changes; DELETE FROM word_counts",
    "vectors that are others": "UPDATE chunk_vectors v SET vector = w.vector FROM chunk_vectors w "
    "WHERE w.number = (SELECT min(number) FROM chunk_vectors x WHERE x.tenant_id = v.tenant_id)",
}


@pytest.mark.parametrize("statement", SPOILT.values(), ids=SPOILT)
async def test_searches_that_find_others_fail_the_move(
    statement: str, installation: Installation, empty: Place
) -> None:
    """Spoilt after all rows were proved equal: what is made of them again is proved by searching."""

    def spoil(doing: str, done: int, total: int) -> None:
        if doing == "searches compared" and not done:
            with closing(open_side(empty)) as side, side.writing():
                side.run(statement)

    with pytest.raises(Internal, match="The source is as it was") as told:
        await DatabaseMove(installation.place, empty, spoil).run()
    assert told.value.code == "searches_differ"
    with pytest.raises(Conflict, match="still being moved"):
        await open_database(settings_of(installation.data, url=empty.address))


async def test_searches_ask_the_source_as_it_was_when_it_was_copied(installation: Installation, empty: Place) -> None:
    """A server that goes on writing there meanwhile makes no difference."""

    def write(doing: str, done: int, total: int) -> None:
        if doing == "searches compared" and not done:
            with closing(open_side(installation.place)) as side, side.writing():
                side.run("DELETE FROM chunk_vectors")
                side.run("UPDATE chunks SET title = 'another'")

    moved = await DatabaseMove(installation.place, empty, write).run()
    assert moved.searched.equal == moved.searched.queries > 10


async def test_a_destination_in_use_is_neither_overwritten_nor_emptied(
    installation: Installation, empty: Place
) -> None:
    move = DatabaseMove(installation.place, empty, quiet)
    await move.run()
    database = await open_database(settings_of(installation.data, url=empty.address))
    await database.write(
        lambda session: session.connection().exec_driver_sql("UPDATE documents SET name = 'mine' WHERE name = '0.txt'")
    )
    await database.close()
    for attempt in (move.run(resume=True), move.roll_back()):
        with pytest.raises(Conflict, match="was written to since"):
            await attempt


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_rollback_empties_the_destination(
    kind: str, installation: Installation, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    there = request.getfixturevalue("empty") if kind == "postgresql" else place(f"sqlite:///{tmp_path}/there.db")
    before = sums(installation.place)
    move = DatabaseMove(installation.place, there, quiet)
    await move.run()
    await move.roll_back()
    assert sums(installation.place) == before
    if kind == "sqlite":
        assert not there.path.exists()
    else:
        with closing(open_side(there)) as side:
            assert side.tables() == []
    await move.run()  # as into a new one
    assert sums(there) == before


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_reads_go_on_and_writes_wait_while_the_source_is_held(
    kind: str, installation: Installation, request: pytest.FixtureRequest
) -> None:
    where = installation.place
    if kind == "postgresql":
        where = request.getfixturevalue("empty")
        await DatabaseMove(installation.place, where, quiet).run()
    database = await open_database(settings_of(installation.data, **({"url": where.address})))

    def change(session: object) -> None:
        session.connection().exec_driver_sql("UPDATE documents SET name = 'x'")  # type: ignore[attr-defined]

    with closing(open_side(where)) as side:
        with side.held():
            writing = asyncio.create_task(database.write(change))
            names = await database.read(
                lambda session: session.connection().exec_driver_sql("SELECT name FROM documents").scalars().all()
            )
            assert "0.txt" in names
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(writing), 0.2)
            assert not writing.done()
        await writing
    await database.close()


async def test_what_a_database_cannot_take_is_told_and_the_move_can_go_on(
    installation: Installation, empty: Place
) -> None:
    with closing(sqlite3.connect(installation.place.path)) as connection:
        connection.execute("UPDATE documents SET pages = 3000000000 WHERE name = '0.txt'")
        connection.commit()
    move = DatabaseMove(installation.place, empty, quiet)
    with pytest.raises(Unavailable, match="out of range"):
        await move.run()
    with closing(sqlite3.connect(installation.place.path)) as connection:
        connection.execute("UPDATE documents SET pages = 3 WHERE name = '0.txt'")
        connection.commit()
    await move.run(resume=True)
    assert sums(empty) == sums(installation.place)


async def test_an_older_schema_and_an_unreachable_server_are_told(installation: Installation, tmp_path: Path) -> None:
    with closing(sqlite3.connect(installation.place.path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0016'")
        connection.commit()
    other = place(f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(Conflict, match="Start Terrace on it once"):
        await DatabaseMove(installation.place, other, quiet).plan()
    away = place("postgresql://ada:lovelace@127.0.0.1:1/terrace")
    with pytest.raises(Unavailable) as told:
        await DatabaseMove(installation.place, away, quiet).run()
    assert "lovelace" not in f"{told.value} {away!r} {away}"
    with pytest.raises(Invalid, match="same database"):
        DatabaseMove(other, other, quiet)


WILD = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            WILD,
            st.floats(allow_nan=False),
            st.none() | WILD,
            st.sampled_from(["null", "{}", '{"a":[1.50,"\\u0000",null]}', '["\u00e9"]']),
        ),
        max_size=8,
        unique_by=lambda row: row[0].replace("\0", "\ufffd"),
    )
)
async def test_rows_of_any_content_come_back_as_they_were(
    rows: list[tuple[str, float, str | None, str]], postgres_url: str, tmp_path: Path
) -> None:
    """But for the zero character, which PostgreSQL has not."""
    with closing(open_side(place(postgres_url))) as side:
        table = next(each for each in side.tables() if each.name == "audit")
        names = [each.name for each in table.columns]
        given = {
            "action": "a", "actor": "b", "address": "", "subject": "s", "tenant_id": "t",
        }  # fmt: skip
        put = [
            tuple({**given, "id": id.replace("\0", "\ufffd"), "at": at, "key_id": key and key.replace("\0", "\ufffd"),
                   "detail": detail}[name] for name in names)
            for id, at, key, detail in rows
        ]  # fmt: skip
        with side.writing():
            side.run("SET LOCAL session_replication_role = replica; DELETE FROM audit")
            side.put(table, put)
        with side.snapshot():
            assert sorted(map(repr, side.page(table, None, 100))) == sorted(map(repr, put))
            keys = [table.key_of(row) for row in side.page(table, None, 100)]
        assert keys == sorted(keys, key=lambda key: key[0].encode())


def test_a_database_of_sqlite_is_named_as_its_file_says(tmp_path: Path) -> None:
    (tmp_path / "terrace.db").touch()
    with pytest.raises(Invalid, match="sqlite:///"):
        place(str(tmp_path / "terrace.db"))
    with pytest.raises(Invalid):
        place("mysql://root@localhost/terrace")
    assert str(place("postgresql://a:b@h/d?password=c")) == "postgresql://a:...@h/d?password=..."
