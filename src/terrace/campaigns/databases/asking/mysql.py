"""MySQL and MariaDB through PyMySQL: rows as they come, in a READ ONLY transaction with a bound on time."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from terrace.campaigns.databases.asking import base
from terrace.campaigns.databases.asking.base import Answer
from terrace.campaigns.databases.base import Target
from terrace.errors import TerraceError

ACCESS_DENIED, NO_DATABASE, DENIED_DATABASE = 1045, 1049, 1044
STOPPED = frozenset((3024, 1969, 1205, 1317, 2013))  # took too long, waited too long for a lock, was interrupted
NO_TLS = 2026
UNKNOWN_VARIABLE = 1193
PATIENCE = 5.0  # seconds more than the server has, before we hang up ourselves


@contextmanager
def ask(target: Target, query: str) -> Iterator[Answer]:
    try:
        import pymysql
    except ImportError as error:
        raise base.no_driver("mysql") from error
    try:
        connection = _connected(target)
        cursor = connection.cursor()
        try:
            _bind(connection, target)
            cursor.execute(query)  # without arguments nothing in it is replaced
            yield [column[0] for column in cursor.description or ()], _rows(cursor)
        finally:
            cursor.connection = None  # or closing it would read what nobody wants to its end
            connection._force_close()
    except ssl.SSLCertVerificationError:
        raise base.bad_certificate(target) from None
    except (OSError, ssl.SSLError) as error:
        raise base.unreachable(target, type(error).__name__) from None
    except pymysql.Error as error:
        raise _told(target, error) from None


def _rows(cursor: Any) -> Iterator[Any]:
    while (row := cursor.fetchone()) is not None:
        yield row


def _connected(target: Target) -> Any:
    import pymysql
    from pymysql.cursors import SSCursor

    connection = pymysql.connect(
        host=target.host,  # what the certificate must be for
        user=target.user,
        password=target.password,
        database=target.database or None,
        port=target.port,
        charset="utf8mb4",
        cursorclass=SSCursor,
        read_timeout=target.seconds + PATIENCE,
        write_timeout=base.CONNECT_SECONDS,
        local_infile=False,
        autocommit=False,
        defer_connect=True,
        **_tls(target),
    )
    connection.connect(socket.create_connection((target.address, target.port), base.CONNECT_SECONDS))
    return connection


def _tls(target: Target) -> dict[str, Any]:
    if target.tls == "off":
        return {"ssl_disabled": True}
    context = ssl.create_default_context(cadata=target.ca or None)
    if target.tls == "require":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return {"ssl": context}


def _bind(connection: Any, target: Target) -> None:
    """`sql_mode` is set so that quotes and backslashes mean what our own look at the query took them for."""
    import pymysql

    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = ''")
        try:
            cursor.execute(f"SET SESSION max_execution_time = {int(target.seconds * 1000)}")  # MySQL
        except pymysql.OperationalError as error:
            if error.args[0] != UNKNOWN_VARIABLE:
                raise
            cursor.execute(f"SET SESSION max_statement_time = {target.seconds:g}")  # MariaDB
        cursor.execute(f"SET SESSION lock_wait_timeout = {base.LOCK_SECONDS}")
        cursor.execute("SET SESSION TRANSACTION READ ONLY")
        cursor.execute("START TRANSACTION READ ONLY")


def _told(target: Target, error: Any) -> TerraceError:
    number, said = (*error.args, 0, "")[:2]
    if number in STOPPED or "timed out" in str(said):
        return base.too_slow(target)
    if number == ACCESS_DENIED:
        return base.bad_login(target)
    if number in (NO_DATABASE, DENIED_DATABASE):
        return base.no_database(target)
    if number == NO_TLS:
        return base.no_tls(target)
    if isinstance(number, int) and 2000 <= number < 3000:  # the client's own
        return base.unreachable(target)
    return base.refused(target, str(said))
