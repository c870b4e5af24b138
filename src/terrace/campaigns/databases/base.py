"""The words of other databases: where one is, who asks, what it showed."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

Kind = Literal["postgresql", "mysql", "sqlite"]
TLS = Literal["require", "verify", "off"]
"""require: encrypted, whoever the server is; verify: and its certificate is one for its name; off: in the clear."""

PORTS: dict[str, int] = {"postgresql": 5432, "mysql": 3306}
SHOWN_ROWS = 20
SHOWN_CHARS = 200  # of a value

Resolve = Callable[[str, int], Awaitable[str]]
"""The address of a host that may be connected to. Raises Invalid (private_target), Unavailable (unreachable)."""


class Sealer(Protocol):
    """`terrace.accounts.secret.Secret` is one."""

    def seal(self, purpose: str, text: str) -> str: ...

    def unseal(self, purpose: str, sealed: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Database:
    """As it is shown: never with its user or password."""

    id: str  # dbs_...
    name: str
    kind: Kind
    host: str
    port: int | None
    database: str  # its name there; of SQLite the file
    tls: TLS | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewDatabase:
    """`file` is for SQLite, the rest for a server. `ca`: certificates (PEM) that `verify` trusts."""

    name: str
    kind: Kind
    host: str = ""
    port: int | None = None
    database: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: TLS = "require"
    ca: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """All that a subprocess needs to ask. Shows no credentials."""

    kind: Kind
    seconds: float  # a query may take
    host: str = ""
    address: str = ""  # of the host, checked: it is connected to this one
    port: int = 0
    database: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: TLS = "require"
    ca: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a query gives: the first rows, as text."""

    columns: Sequence[str]
    rows: Sequence[dict[str, str]]
    more: bool
    mapping: dict[str, str]  # column -> field, as guessed for an import; empty when no column says who is who
    notes: Sequence[str]
