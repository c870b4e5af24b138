"""Other databases: added with their credentials sealed, asked read-only, and imported from."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import msgspec
from sqlmodel import Session

from terrace import settings
from terrace.campaigns.base import ContactList
from terrace.campaigns.contacts import store as contacts
from terrace.campaigns.contacts.intake import MEMORY, Examined, Intake
from terrace.campaigns.contacts.reading.base import Plan, Summary
from terrace.campaigns.contacts.values import list_name
from terrace.campaigns.databases import store
from terrace.campaigns.databases.asking.child import gather, show
from terrace.campaigns.databases.base import PORTS, Database, NewDatabase, Resolve, Sealer, Shown, Target
from terrace.campaigns.databases.reaching import checked_file, checked_host
from terrace.campaigns.databases.statement import checked
from terrace.campaigns.databases.tables import DatabaseRow
from terrace.errors import Invalid
from terrace.jobs.base import Context, Done, Jobs
from terrace.jobs.processes import OnProgress, Processes
from terrace.knowledge.naming import tidy
from terrace.storage import Database as Storage
from terrace.types import Scope, new_id

R = TypeVar("R")

IMPORT = "databases.import"
GRACE = 15.0  # seconds more than a query has, for connecting
READ_SECONDS = 900.0  # for gathering what a query gives
MAX_CREDENTIAL = 1_000
MAX_CA = 100_000
_NAME = re.compile(r"[^\x00-\x1f=]{0,200}")


class Databases:
    def __init__(
        self,
        storage: Storage,
        jobs: Jobs,
        processes: Processes,
        intake: Intake,
        *,
        sealer: Sealer,
        resolve: Resolve,
        options: settings.Campaigns,
        folders: Sequence[Path],
        kept: Path,
    ) -> None:
        """`folders` may hold SQLite files; `kept` is where our own are, which nobody may ask."""
        self._storage = storage
        self._jobs = jobs
        self._processes = processes
        self._intake = intake
        self._sealer = sealer
        self._resolve = resolve
        self._options = options
        self._folders = folders
        self._kept = kept
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of tenants that ask

    async def list(self, scope: Scope) -> list[Database]:
        """By name."""
        return await self._storage.read(store.page, scope)

    async def get(self, scope: Scope, database_id: str) -> Database:
        row = await self._storage.read(store.get, scope, tidy(database_id))
        return store.shown(row)

    async def add(self, scope: Scope, new: NewDatabase, *, test: bool = True) -> Database:
        """With `test` it is connected to first, and not kept when that fails."""
        name = list_name(new.name)
        place, login = self._placed(scope, new), {"user": new.user, "password": new.password}
        if test:
            await self._ask(scope, await self._target(scope, new.kind, place, login), "SELECT 1 AS one")
        database_id = new_id("dbs")
        sealed = self._sealer.seal(_purpose(scope, database_id), msgspec.json.encode(login).decode())
        return await self._storage.write(store.add, scope, database_id, name, new.kind, place, sealed)

    async def remove(self, scope: Scope, database_id: str) -> None:
        """What came from it stays."""
        await self._storage.write(store.remove, scope, tidy(database_id))

    # -- asking

    async def query(self, scope: Scope, database_id: str, query: str) -> Shown:
        """The first rows. Raises Invalid for a query that is not one that reads, or is refused, or takes too long."""
        row = await self._storage.read(store.get, scope, tidy(database_id))
        return await self._ask(scope, await self._opened(scope, row), query)

    async def examine(self, scope: Scope, database_id: str, query: str, mapping: Mapping[str, str]) -> Examined:
        """What an import would do; nothing is written."""
        row = await self._storage.read(store.get, scope, tidy(database_id))
        target, plan = await self._opened(scope, row), self._intake.plan(mapping)
        asked = checked(target.kind, query)
        async with self._turn(scope):
            return await self._intake.examine(scope, lambda file, told: self._gather(target, asked, plan, file, told))

    async def start(
        self, scope: Scope, database_id: str, query: str, list_name: str, mapping: Mapping[str, str]
    ) -> tuple[str, ContactList]:
        """(the job that brings them in, their list). A list that is not there yet is made."""
        row = await self._storage.read(store.get, scope, tidy(database_id))
        asked, plan = checked(store.shown(row).kind, query), self._intake.plan(mapping)

        def write(session: Session) -> tuple[str, ContactList]:
            kept = store.get(session, scope, row.id)
            begun = self._intake.begin(
                session, scope, tidy(list_name), name=kept.name, blob="", plan=plan, database_id=kept.id, query=asked
            )
            found = contacts.get_list(session, scope, begun.list_id)
            payload = {"import_id": begun.id, "name": kept.name, "list": found.name}
            job_id = self._jobs.enqueue(session, scope, IMPORT, payload)
            return job_id, contacts.shown_list(found, contacts.count(session, scope, found.id))

        return await self._storage.write(write)

    async def run(self, ctx: Context) -> Done:
        """The job. A query may give other rows the next time, so that a new attempt begins at its beginning."""
        begun = await self._intake.find(ctx, anew=True)
        row = await self._storage.read(store.get, ctx.scope, str(begun.options["database_id"]))
        target, plan = await self._opened(ctx.scope, row), self._intake.plan(begun.mapping)
        query = checked(target.kind, str(begun.options["query"]))
        return await self._intake.bring(ctx, begun, lambda file, told: self._gather(target, query, plan, file, told))

    async def _ask(self, scope: Scope, target: Target, query: str) -> Shown:
        asked = checked(target.kind, query)
        async with self._turn(scope):
            return await self._run(show, target, asked, self._options.max_fields, seconds=target.seconds)

    def _turn(self, scope: Scope) -> asyncio.Lock:
        """One question of a tenant at a time: slow ones hold up nobody else's."""
        return self._turns.setdefault(scope.tenant, asyncio.Lock())

    async def _gather(self, target: Target, query: str, plan: Plan, file: Path, progress: OnProgress | None) -> Summary:
        return await self._run(
            gather, target, query, plan, str(file), seconds=READ_SECONDS, progress=progress or _unheard
        )

    async def _run(
        self, function: Callable[..., R], *arguments: Any, seconds: float, progress: OnProgress | None = None
    ) -> R:
        try:
            return await self._processes.run(
                function, *arguments, timeout=seconds + GRACE, memory=MEMORY, progress=progress
            )
        except Invalid as error:
            told = {
                "parse_timeout": f"The query took longer than {seconds:g} seconds and was stopped. Ask for less.",
                "parse_memory": "The query gives more at once than fits into memory. Ask for less.",
                "parse_crashed": "Asking the database failed: its driver crashed. Ask for less, or cast odd columns.",
            }.get(error.code)
            if told is None:
                raise
            raise Invalid(told, code=error.code.replace("parse", "query")) from error

    # -- where it is, and who asks

    def _placed(self, scope: Scope, new: NewDatabase) -> dict[str, Any]:
        """What is kept in the clear. Raises Invalid for what no server could be at."""
        if max(len(new.user), len(new.password)) > MAX_CREDENTIAL or len(new.ca) > MAX_CA:
            raise Invalid("The user, the password or the certificate is too long.", code="too_long")
        if new.kind == "sqlite":
            file = checked_file(scope, new.file, self._folders, self._kept)
            return {"host": "", "port": 0, "database": str(file), "tls": "off", "ca": ""}
        if not _NAME.fullmatch(new.database) or "://" in new.database:
            raise Invalid("Give the database's name alone, such as shop.", code="bad_database")
        if new.kind == "postgresql" and not new.database:
            raise Invalid("Give the database's name, such as shop.", code="bad_database")
        if new.ca and "-----BEGIN CERTIFICATE-----" not in new.ca:
            raise Invalid("`ca` is a certificate in PEM form: -----BEGIN CERTIFICATE----- ...", code="bad_ca")
        port = new.port or PORTS[new.kind]
        return {
            "host": checked_host(new.host),
            "port": port,
            "database": new.database,
            "tls": new.tls,
            "ca": new.ca,
        }

    async def _opened(self, scope: Scope, row: DatabaseRow) -> Target:
        unsealed = self._sealer.unseal(_purpose(scope, row.id), row.sealed)
        login = msgspec.json.decode(unsealed, type=dict[str, str])
        return await self._target(scope, store.shown(row).kind, row.place, login)

    async def _target(self, scope: Scope, kind: Any, place: Mapping[str, Any], login: Mapping[str, str]) -> Target:
        """Checked again each time: names move to other addresses, folders and settings change."""
        seconds = self._options.query_timeout
        if kind == "sqlite":
            file = checked_file(scope, place["database"], self._folders, self._kept)
            return Target(kind, seconds, database=str(file))
        address = await self._resolve(place["host"], place["port"])
        return Target(
            kind,
            seconds,
            host=place["host"],
            address=address,
            port=place["port"],
            database=place["database"],
            user=login["user"],
            password=login["password"],
            tls=place["tls"],
            ca=place["ca"],
        )


def _purpose(scope: Scope, database_id: str) -> str:
    """Sealed credentials are good for this row alone."""
    return f"database {scope.tenant} {database_id}"


def _unheard(done: float, total: float, note: str = "") -> None:
    """Where nobody wants to hear of progress."""
