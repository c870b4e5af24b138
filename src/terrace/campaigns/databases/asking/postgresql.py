"""PostgreSQL through psycopg: a cursor of the server's in a READ ONLY transaction with a bound on time."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from terrace.campaigns.databases.asking import base
from terrace.campaigns.databases.asking.base import Answer
from terrace.campaigns.databases.base import Target
from terrace.errors import TerraceError

MODES = {"off": "disable", "require": "require", "verify": "verify-full"}
READ_ONLY = "-c default_transaction_read_only=on -c standard_conforming_strings=on"


@contextmanager
def ask(target: Target, query: str) -> Iterator[Answer]:
    try:
        import psycopg
    except ImportError as error:
        raise base.no_driver("postgresql") from error
    try:
        with _connected(target) as connection:
            _bind(connection, target)
            with connection.cursor("terrace") as cursor:  # DECLARE takes one query and nothing else
                cursor.itersize = base.BATCH
                cursor.execute(query)  # without parameters nothing in it is replaced
                yield [column.name for column in cursor.description or ()], cursor
            connection.rollback()
    except psycopg.Error as error:
        raise _told(target, error) from None


@contextmanager
def _connected(target: Target) -> Iterator[Any]:
    import psycopg

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as roots:
        roots.write(target.ca)
        roots.flush()
        options: dict[str, Any] = {
            "host": target.host,
            "hostaddr": target.address,
            "port": target.port,
            "dbname": target.database,
            "user": target.user,
            "password": target.password,
            "passfile": os.devnull,  # no password but the one given
            "sslmode": MODES[target.tls],
            "gssencmode": "disable",
            "connect_timeout": base.CONNECT_SECONDS,
            "application_name": "terrace",
        }
        if target.tls == "verify":
            options["sslrootcert"] = roots.name if target.ca else "system"
        try:
            connection = psycopg.connect(**options, options=READ_ONLY)
        except psycopg.OperationalError as error:
            if "unsupported startup parameter" not in str(error):  # as poolers say
                raise
            connection = psycopg.connect(**options)
        with connection:
            yield connection


def _bind(connection: Any, target: Target) -> None:
    milliseconds = int(target.seconds * 1000)
    connection.execute("SET TRANSACTION READ ONLY")
    connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
    connection.execute(f"SET LOCAL lock_timeout = {base.LOCK_SECONDS * 1000}")
    connection.execute("SET LOCAL standard_conforming_strings = on")


def _told(target: Target, error: BaseException) -> TerraceError:
    import psycopg
    from psycopg import errors

    text = str(error)
    match error:
        case errors.QueryCanceled() | errors.LockNotAvailable():
            return base.too_slow(target)
        case psycopg.OperationalError() if getattr(error, "sqlstate", None) is None:
            return _unconnected(target, text)
        case psycopg.errors.InvalidAuthorizationSpecification():
            return base.bad_login(target)
    said = getattr(getattr(error, "diag", None), "message_primary", None)
    return base.refused(target, said or text)


def _unconnected(target: Target, text: str) -> TerraceError:
    if "authentication failed" in text or "no password" in text or ("role" in text and "does not exist" in text):
        return base.bad_login(target)
    if "database" in text and "does not exist" in text:
        return base.no_database(target)
    if "does not support SSL" in text:
        return base.no_tls(target)
    if "certificate" in text:
        return base.bad_certificate(target)
    if "no pg_hba.conf entry" in text:
        return base.unreachable(target, "it lets nobody in from here (pg_hba.conf)")
    for sign in ("Connection refused", "timeout expired", "No route to host", "Network is unreachable"):
        if sign in text:
            return base.unreachable(target, sign.lower())
    return base.unreachable(target)
