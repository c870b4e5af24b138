"""Where a database may be: a server that the operator lets us reach, or a file in a folder that they named."""

import asyncio
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

from terrace.campaigns.databases.base import Resolve
from terrace.errors import Invalid, Unavailable
from terrace.knowledge.sources.folder import allowed_root
from terrace.outbound.addresses import Reach
from terrace.types import Scope

RESOLVE_SECONDS = 10.0
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\.?|[0-9A-Fa-f:.]{2,45}")


def resolver(allow: Iterable[str]) -> Resolve:
    """Public addresses, and those of `outbound.allow`: what is checked is what is connected to."""
    reach = Reach(allow)

    async def resolve(host: str, port: int) -> str:
        found = await _addresses(host, port)
        if not any(reach.allows(each) for each in found):
            raise Invalid(
                f"{host} is an address of a private network. The operator can allow it: outbound.allow, such as "
                f"TERRACE_OUTBOUND__ALLOW='[\"{found[0]}/{128 if ':' in found[0] else 32}\"]'",
                code="private_target",
            )
        return next(each for each in found if reach.allows(each))

    return resolve


async def _addresses(host: str, port: int) -> list[str]:
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise Unavailable(f"The host {host} is not known to any name server.", code="unreachable") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def checked_host(host: str) -> str:
    """Raises Invalid for what is no host: a path of a socket, several hosts, a URL."""
    host = host.strip().strip("[]")
    if not _HOST.fullmatch(host):
        raise Invalid("Give the host's name or address alone, such as db.example.org.", code="bad_host")
    return host


def checked_file(scope: Scope, file: str, folders: Sequence[Path], kept: Path) -> Path:
    """The file itself, whatever links lead to it. Raises Invalid for one outside the tenant's own of `folders` (as
    sources have them), or in our own data."""
    if not file or "\0" in file or not Path(file).is_absolute():
        raise Invalid("Give the whole path of the SQLite file, such as /srv/shop/customers.db.", code="bad_file")
    refusal = Invalid(
        "This file is in no folder that may be read. The operator names those in schedules.folders.",
        code="folder_not_allowed",
    )
    try:
        _, path = allowed_root(scope, folders, file)
    except Invalid as error:
        raise refusal from error
    if path.is_relative_to(kept.resolve()):
        raise refusal
    if not path.exists():
        raise Invalid("There is no such file.", code="no_such_file")
    if not path.is_file():
        raise Invalid("This is no file.", code="no_such_file")
    if any(path.samefile(each) for each in kept.glob("*.db")):  # a hard link to one
        raise refusal
    return path
