"""One look at a folder: what is new or changed comes in, what is gone goes out when there is no doubt about it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session, col, select

from terrace.errors import Invalid
from terrace.jobs.base import Context
from terrace.knowledge.sources import folder, store
from terrace.knowledge.sources.base import Notes
from terrace.knowledge.sources.folder import Found, Scan
from terrace.knowledge.sources.keeping import Content, Keeper
from terrace.knowledge.sources.tables import SourceItemRow, SourceRow
from terrace.knowledge.tables import DocumentRow
from terrace.storage import Database
from terrace.types import Scope, now

SETTLED = 2.0  # seconds a file must not have changed
ROUNDS = 3  # how often a run waits for files that are still being written


@dataclass(frozen=True, slots=True)
class Known:
    """As much of an item as a comparison needs."""

    size: int | None
    mtime_ns: int | None
    kept: bool  # its document is there
    run: str | None
    outcome: str


class FolderRun:
    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        context: Context,
        source: SourceRow,
        folders: tuple[Path, ...],
        settled: float = SETTLED,
    ) -> None:
        self._database = database
        self._keeper = keeper
        self._context = context
        self._source = source
        self._folders = folders
        self._settled = settled
        self.notes = Notes()
        self.unchanged = 0  # files nobody had to touch
        self.failed = 0  # those refused before that are as they were
        self.fingerprint: str | None = None

    async def run(self) -> None:
        """Raises Invalid when the folder may not be read any more. One that vanished is told in the notes."""
        root, place = folder.allowed_root(self._context.scope, self._folders, self._source.location)
        if str(place) != self._source.location:
            raise Invalid("The folder's path leads elsewhere now; make the source again.", code="folder_moved")
        options = store.options_of(self._source)
        try:
            seen = await asyncio.to_thread(folder.scan, root, place, options.include, options.exclude)
        except OSError as error:
            self.notes.say(
                f"The folder can't be read ({error.strerror}), so everything from it is kept.", incomplete=True
            )
            return
        scope, source, run = self._context.scope, self._source.id, self._context.job_id
        await self._context.write(lambda session: store.forget_gone(session, scope, source, run))
        known = await self._database.read(_known, scope, source)
        self._tell(seen)
        await self._bring(root, place, seen, known)
        await self._take_out(seen, known)
        if self.notes.complete:
            self.fingerprint = seen.fingerprint

    def _tell(self, seen: Scan) -> None:
        if seen.unreadable:
            shown = ", ".join(seen.unreadable[:3])
            self.notes.say(f"Folders in it can't be read ({shown}), so nothing is taken out.", incomplete=True)
        if seen.too_many:
            self.notes.say(f"There are more than {folder.MAX_FILES:,} files; the rest is left.", incomplete=True)
        if seen.unnamed:
            self.notes.say(f"{seen.unnamed:,} files were left out: their names are no UTF-8.")
        if seen.links:
            self.notes.say(f"{seen.links:,} links were left out: only what is really in the folder is taken.")

    async def _bring(self, root: Path, place: Path, seen: Scan, known: dict[str, Known]) -> None:
        fresh: dict[str, Found] = {}
        for done, (path, found) in enumerate(sorted(seen.files.items())):
            self._context.progress(done, len(seen.files), path[:200])
            if _same(known.get(path), found):
                self._count(known[path])
            elif self._moving(found) or not await self._take(root, place, path, found):
                fresh[path] = found
        for _ in range(ROUNDS):
            if not fresh:
                return
            self._context.progress(len(seen.files) - len(fresh), len(seen.files), "waiting for files being written")
            await asyncio.sleep(self._settled)
            rested, fresh = await asyncio.to_thread(_rested, root, place, fresh)
            for path, found in rested.items():
                if not await self._take(root, place, path, found):
                    fresh[path] = found
        if fresh:
            self.notes.say(
                f"{len(fresh):,} files are still being written; they are taken when they rest.", incomplete=True
            )

    def _moving(self, found: Found) -> bool:
        return abs(now() - found.mtime_ns / 1e9) < self._settled

    def _count(self, known: Known) -> None:
        if known.run != self._context.job_id:  # else its row counts
            self.unchanged += known.outcome != "failed"
            self.failed += known.outcome == "failed"

    async def _take(self, root: Path, place: Path, path: str, found: Found) -> bool:
        """False when it changed meanwhile and should be looked at again."""

        def seen(_session: Session, row: SourceItemRow) -> None:
            row.size, row.mtime_ns = found.size, found.mtime_ns

        name = path.rpartition("/")[2]
        content = Content(name, name, folder.pieces(root, place, path, found), also=seen)
        try:
            await self._keeper.keep(self._context, self._source, path, content)
        except folder.StillWritten:
            return False
        except Invalid as error:  # the file's own fault: not looked at again until it changes
            await self._keeper.settle(self._context, self._source, path, "failed", error.message, seen)
        return True

    async def _take_out(self, seen: Scan, known: dict[str, Known]) -> None:
        """Only what is surely gone: the listing is whole, the folder isn't suddenly empty, and it isn't most of it."""
        gone = [path for path in known if path not in seen.files and known[path].outcome != "removed"]
        kept = sum(each.kept for each in known.values())
        of_documents = sum(known[path].kept for path in gone)
        if not gone or not seen.whole:
            return
        if 2 * of_documents > kept and not self._context.payload.get("confirm"):
            self.notes.needs_confirm = of_documents
            what = "The folder is suddenly empty" if not seen.files else "More than half of its files are gone"
            self.notes.say(f"{what}, so all is kept. Run it with confirm to take out {of_documents:,} documents.")
            return
        for path in gone:
            if known[path].kept:
                await self._keeper.take_out(self._context, self._source, path, "The file is gone.")
            else:
                await self._forget(path)

    async def _forget(self, path: str) -> None:
        scope, source = self._context.scope, self._source.id
        await self._context.write(lambda session: store.forget_item(session, scope, source, path))


def _known(session: Session, scope: Scope, source_id: str) -> dict[str, Known]:
    query = (
        select(
            SourceItemRow.key, SourceItemRow.size, SourceItemRow.mtime_ns, DocumentRow.id, SourceItemRow.run,
            SourceItemRow.outcome,
        )  # type: ignore[call-overload]
        .join(DocumentRow, col(DocumentRow.id) == SourceItemRow.document_id, isouter=True)
        .where(SourceItemRow.tenant_id == scope.tenant, SourceItemRow.source_id == source_id)
    )  # fmt: skip
    return {
        key: Known(size, mtime_ns, document is not None, run, outcome)
        for key, size, mtime_ns, document, run, outcome in session.exec(query)
    }


def _same(known: Known | None, found: Found) -> bool:
    """Whether there is nothing to do: it is as it was, and its document is there or it was refused."""
    if known is None or (known.size, known.mtime_ns) != (found.size, found.mtime_ns):
        return False
    return known.kept or known.outcome == "failed"


def _rested(root: Path, place: Path, files: dict[str, Found]) -> tuple[dict[str, Found], dict[str, Found]]:
    """(those that are still what they were, those that changed again); what is gone is in neither."""
    now_there = {path: folder.looked_at(root, place, path) for path in files}
    rested = {path: found for path, found in files.items() if now_there[path] == found}
    return rested, {path: found for path, found in now_there.items() if found is not None and path not in rested}
