"""CSV and Excel files at the door: streamed to a blob, looked at or imported, and gone afterwards."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, select

from terrace.campaigns.base import ContactList
from terrace.campaigns.contacts import store
from terrace.campaigns.contacts.intake import MEMORY, Examined, Intake
from terrace.campaigns.contacts.reading.base import Plan, Summary
from terrace.campaigns.contacts.reading.file import read_file
from terrace.campaigns.contacts.tables import ImportRow
from terrace.errors import Invalid
from terrace.jobs.base import Context, Done, Jobs
from terrace.jobs.processes import OnProgress, Processes
from terrace.knowledge.naming import file_name, tidy
from terrace.storage import Blobs, Database
from terrace.types import Scope, new_id, now

IMPORT = "contacts.import"
MAX_BYTES = 500 * 1024**2  # of one file
READ_SECONDS = 900.0
STALE_SECONDS = 86_400.0  # a younger file may still be arriving


@dataclass(frozen=True, slots=True)
class How:
    """How a file shall be read: what is empty is found out. `mapping`: column -> field, empty to leave it out."""

    mapping: Mapping[str, str]
    encoding: str = ""
    delimiter: str = ""
    sheet: str = ""


class FileImports:
    def __init__(self, database: Database, blobs: Blobs, jobs: Jobs, processes: Processes, intake: Intake) -> None:
        self._database = database
        self._blobs = blobs
        self._jobs = jobs
        self._processes = processes
        self._intake = intake

    @asynccontextmanager
    async def receive(self, scope: Scope, name: str, pieces: AsyncIterator[bytes]) -> AsyncGenerator["Upload", None]:
        """The file as it arrives. It is gone after the block, unless an import of it began there."""
        upload = Upload(f"{scope.tenant}/imports/{new_id('imp')}", file_name(name))
        await self._blobs.put(upload.blob, pieces, limit=MAX_BYTES)
        try:
            yield upload
        finally:
            if not upload.taken:
                await self._blobs.delete(upload.blob)

    async def examine(self, scope: Scope, upload: "Upload", how: How) -> Examined:
        """What importing it would do; nothing is written. Raises Invalid when it cannot be read."""
        plan = self._plan(how)
        return await self._intake.examine(scope, lambda file, told: self._read(upload.blob, plan, file, told))

    async def start(self, scope: Scope, upload: "Upload", list_name: str, how: How) -> tuple[str, ContactList]:
        """(the job that brings them in, their list). A list that is not there yet is made."""
        plan = self._plan(how)

        def write(session: Session) -> tuple[str, ContactList]:
            row = self._intake.begin(session, scope, tidy(list_name), name=upload.name, blob=upload.blob, plan=plan)
            found = store.get_list(session, scope, row.list_id)
            payload = {"import_id": row.id, "name": row.name, "list": found.name}
            job_id = self._jobs.enqueue(session, scope, IMPORT, payload)
            return job_id, store.shown_list(found, store.count(session, scope, found.id))

        upload.taken = True
        try:
            return await self._database.write(write)
        except BaseException:
            upload.taken = False
            raise

    async def run(self, ctx: Context) -> Done:
        """The job."""
        row = await self._intake.find(ctx)
        options = {name: str(row.options.get(name, "")) for name in ("encoding", "delimiter", "sheet")}
        plan = self._intake.plan(row.mapping, **options)
        return await self._intake.bring(ctx, row, lambda file, told: self._read(row.blob, plan, file, told))

    async def tidy(self, stale: float = STALE_SECONDS) -> int:
        """Remove what uploads that a crash broke off have left; how many."""
        before = now() - stale
        old = [each.key async for each in self._blobs.list() if _is_ours(each.key) and each.modified_at < before]
        for key in (known := await self._database.read(_unknown, old)):
            await self._blobs.delete(key)
        return len(known)

    def _plan(self, how: How) -> Plan:
        return self._intake.plan(how.mapping, encoding=how.encoding, delimiter=how.delimiter, sheet=how.sheet)

    async def _read(self, blob: str, plan: Plan, target: Path, progress: OnProgress | None) -> Summary:
        async with self._blobs.local(blob) as path:
            try:
                return await self._processes.run(
                    read_file,
                    *(str(path), plan, str(target)),
                    timeout=READ_SECONDS,
                    memory=MEMORY,
                    progress=progress or _unheard,
                )
            except Invalid as error:
                if error.code in ("parse_timeout", "parse_memory"):
                    raise Invalid("This table is too large to be read at once. Split it.", code=error.code) from error
                raise


def _is_ours(key: str) -> bool:
    return key.split("/")[1:2] == ["imports"]


def _unknown(session: Session, keys: list[str]) -> list[str]:
    """Those that no import reads. Keys are unique over all tenants, and imports under way are few."""
    known = set(session.exec(select(ImportRow.blob)))
    return [key for key in keys if key not in known]


@dataclass(slots=True)
class Upload:
    """A file in the blob store that no row knows yet."""

    blob: str
    name: str
    taken: bool = False


def _unheard(done: float, total: float, note: str = "") -> None:
    """Where nobody wants to hear of progress."""
