"""How we connect: psycopg 3, no prepared statements and no session state, so that a pooler may stand in between."""

from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from terrace.errors import Invalid, Unavailable, bring
from terrace.storage.statements import SHARED

AT_ONCE = 100  # rows in one message
SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")

# A peer that went away without a word (a cut cable) is noticed within about fifteen seconds.
CONNECT: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "terrace",
}


def parsed(url: str) -> URL:
    """Raises Invalid, without showing it, for what is no URL of a PostgreSQL database."""
    try:
        made = make_url(url)
        if made.drivername not in SCHEMES or "@" in (made.host or ""):  # an @ that belongs to the password
            raise ArgumentError("another scheme, or a password that is not written as URLs want it")
    except (ArgumentError, ValueError) as error:
        raise Invalid(
            "storage.url is no address of a PostgreSQL database: write postgresql://user:password@host:5432/database. "
            "In the password write %40 for @, %3A for :, %2F for / and %25 for %.",
            code="bad_setting",
        ) from error
    return made.set(drivername="postgresql+terrace")


def engine_for(url: str) -> Engine:
    """An engine whose transactions we begin ourselves: one statement sets all that one needs."""
    address = parsed(url)
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise Unavailable(
            f"PostgreSQL needs a package that is not installed: {bring('postgres')}.",
            code="extra_missing",
        ) from error
    given = {name: value for name, value in CONNECT.items() if name not in address.query}
    return create_engine(
        address,
        poolclass=NullPool,
        connect_args={**given, "autocommit": True, "prepare_threshold": None, "cursor_factory": _cursor()},
        use_native_hstore=False,
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
        **SHARED,
    )


@cache
def _cursor() -> Any:
    from psycopg import ClientCursor, Cursor, NotSupportedError

    class OneMessage(Cursor[Any]):
        """Several statements are one message, and no pipeline: that ends with a Flush behind its Sync, at which the
        server forgets `idle_in_transaction_session_timeout` (it is armed when the server says that it is ready, and
        disarmed by whatever comes next), and who is stopped or cut off then keeps their locks."""

        _changed: int | None = None  # rows, by all of them

        def together(self, *statements: tuple[str, Any]) -> "OneMessage":
            """Each with its parameters; what the last of them finds is there to be fetched."""
            inline = ClientCursor(self.connection)
            self.execute("; ".join(inline.mogrify(*each) for each in statements))
            changed = self.rowcount
            while self.nextset():
                changed += self.rowcount
            self._changed = changed
            return self

        def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
            if returning:
                raise NotSupportedError("ask for rows with one statement")
            changed, rows = 0, iter(params_seq)
            while part := [(query, row) for row in islice(rows, AT_ONCE)]:
                changed += self.together(*part).rowcount
            self._changed = changed

        def execute(self, *args: Any, **kwargs: Any) -> Any:
            self._changed = None
            return super().execute(*args, **kwargs)

        @property
        def rowcount(self) -> int:
            return super().rowcount if self._changed is None else self._changed

    return OneMessage
