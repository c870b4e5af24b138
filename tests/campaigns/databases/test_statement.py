"""What passes for one statement that reads."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from terrace.campaigns.databases.base import Kind
from terrace.campaigns.databases.statement import checked
from terrace.errors import Invalid

KINDS: list[Kind] = ["postgresql", "mysql", "sqlite"]
GOOD = [
    "SELECT 1",
    "select email from customers;",
    "SELECT replace(name, 'a', 'b'), max(close), updated_at FROM prices WHERE note = 'DELETE; DROP' -- ; DELETE\n",
    "WITH recent AS (SELECT * FROM orders) SELECT * FROM recent;;",
    "(SELECT 1) UNION (SELECT 2)",
    "SELECT * FROM t WHERE a = 'it''s; fine' /* ; DROP TABLE t */ AND deleted = 0",
    'SELECT insert_date, "update" FROM t',
    "SELECT substring(name, 1, 2) FROM t",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("query", GOOD)
def test_what_reads_passes(kind: Kind, query: str) -> None:
    assert checked(kind, query).lower().startswith(("select", "with", "("))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "query", ["SELECT 'a", "SELECT /* a", 'SELECT "a', "SELECT 1; SELECT 2", "-- only\n", ";", "("]
)
def test_what_is_none_is_refused(kind: Kind, query: str) -> None:
    with pytest.raises(Invalid):
        checked(kind, query)


def test_each_database_has_its_own_quotes() -> None:
    assert checked("postgresql", r"SELECT 'a\' AS b")
    with pytest.raises(Invalid):
        checked("mysql", r"SELECT 'a\' AS b")
    assert checked("mysql", r"SELECT 'a\'; DELETE FROM t'")
    assert checked("postgresql", "SELECT $a$;$b$;$a$")
    assert checked("sqlite", "SELECT [a;b] FROM t")
    with pytest.raises(Invalid):
        checked("postgresql", "SELECT a[1; DELETE FROM t]")


@pytest.mark.parametrize(
    ("kind", "query"),
    [
        ("mysql", "SELECT 1.INTO OUTFILE '/srv/x'"),
        ("mysql", "SELECT 1 -- \r ' \n INTO OUTFILE \"/srv/x\" -- '"),
        ("mysql", "SELECT 1 --\x01 ' \n INTO OUTFILE \"/srv/x\" -- '"),
        ("mysql", "SELECT 1 --\u00a0 INTO OUTFILE '/srv/x' FROM (SELECT 2 AS \u00a0) t"),
        ("postgresql", "SELECT E'a'\n'\\'' , pg_read_file('/etc/passwd') --'"),
        ("postgresql", "SELECT word FROM ts_stat('SELECT to_tsvector(pg_read_file(''/etc/passwd''))')"),
    ],
)
def test_a_query_is_cut_as_its_database_cuts_it(kind: Kind, query: str) -> None:
    """Where the two differ, what is code there could be a comment or a text here."""
    with pytest.raises(Invalid):
        checked(kind, query)


def test_numbers_and_escapes_pass() -> None:
    assert checked("mysql", "SELECT 1.5, 1e-3, 0x1F, 2. FROM t -- fine\r\nWHERE a > 1")
    assert checked("postgresql", "SELECT E'a\\'b', 'c' FROM t")


PIECES = st.sampled_from(
    [*"'\"`;()[]$-/*#\\ \n", "--", "/*", "*/", "$$", "E'", "SELECT", "1", "DELETE FROM t", "x", "INTO", "''", "AS"]
)


@given(st.sampled_from(KINDS), st.lists(PIECES, max_size=30))
@example("postgresql", ["''", ";", "DELETE FROM t"])
def test_whatever_comes_is_taken_or_refused_with_a_sentence(kind: Kind, pieces: list[str]) -> None:
    query = "SELECT " + "".join(pieces)
    try:
        passed = checked(kind, query)
    except Invalid as error:
        passed = ""
        sentence = error.message
        assert sentence.endswith(".")
    assert passed in query
