"""The job that analyses a file. Every step is stored when it is done, so an attempt that dies is gone on with.

survey -> draw (and read, where no model looks) -> ask -> put together -> result
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from sqlmodel import Session

from terrace.analysis import store
from terrace.analysis.answering import Answering, Outcome, quoted
from terrace.analysis.base import Books, Models, Notifier, PageNote, Result, Way
from terrace.analysis.choosing import Route, again, choose
from terrace.analysis.converting import Converting
from terrace.analysis.plain import kept
from terrace.analysis.prompt import Sheet, Task
from terrace.analysis.reading import Reader
from terrace.analysis.steps import StepFailed, Steps, walled
from terrace.analysis.tables import AnalysisRow, PageRow
from terrace.analysis.types import find_type
from terrace.errors import Invalid, TerraceError
from terrace.jobs.base import Context, Done, LostLease
from terrace.settings import Analysis as Settings
from terrace.storage import Blobs
from terrace.types import Scope, now

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Tools:
    """What the job works with."""

    blobs: Blobs
    reader: Reader
    models: Models
    options: Settings
    books: Books | None
    notifier: Notifier


class Running:
    """One attempt at one analysis."""

    def __init__(self, context: Context, tools: Tools) -> None:
        self._context = context
        self._tools = tools
        self._scope = walled(context.scope, context.payload)

    async def run(self) -> Done:
        row = await self._begin()
        steps: Steps | None = None
        try:
            converting = Converting(self._context, self._tools.blobs, self._tools.reader, row, self._tools.options.ocr)
            pages = await converting.survey()
            route = await self._route(row, pages)
            self._tell(state="processing", pages=len(pages), way=route.way, model=route.model)
            await converting.convert(pages, with_text=route.way != "vision")
            pages, route = await self._converted(route)
            known = await self._context.write(lambda session: store.steps(session, row.id))
            steps = Steps(self._context, self._tools.models, self._scope, row.id, route, known)
            outcome = await self._answer(row, route, pages, steps)
            return await self._done(row, route, outcome, steps)
        except StepFailed as failed:
            await self._book(row, steps)
            raise failed.reason() from failed
        except LostLease:
            raise
        except TerraceError:
            await self._book(row, steps)
            raise

    async def _begin(self) -> AnalysisRow:
        def begin(session: Session) -> AnalysisRow:
            row = self._fenced(session)
            row.state, row.error = "processing", None
            return row

        row: AnalysisRow = await self._context.write(begin)
        return row

    async def _route(self, row: AnalysisRow, pages: Sequence[PageRow]) -> Route:
        """The way it goes; chosen once."""
        models = self._tools.models
        if row.way is not None and row.model is not None:
            return await again(models, self._scope, cast(Way, row.way), row.model, row.why)
        wanted = row.wanted_model or (self._tools.options.model if self._tools.options.model != AUTO else None)
        route = await choose(models, self._scope, wanted, pictures=any(page.kind != "text" for page in pages))
        await self._change(way=route.way, model=route.model, why=route.why)
        return route

    async def _converted(self, route: Route) -> tuple[list[PageRow], Route]:
        """The pages as they are now, and the way, which is called by what really read them."""

        def converted(session: Session) -> tuple[list[PageRow], str]:
            row = self._fenced(session)
            pages = store.pages(session, row.id)
            if row.way == "text" and any(page.read_by for page in pages):
                row.way = "ocr"
                row.why += f" The pictures were read by {next(page.read_by for page in pages if page.read_by)}."
            row.state = "converted"
            return pages, row.way or route.way

        pages, way = await self._context.write(converted)
        self._tell(state="converted", pages=len(pages), way=way)
        return pages, replace(route, way=way)

    # -- asking

    async def _answer(self, row: AnalysisRow, route: Route, pages: Sequence[PageRow], steps: Steps) -> Outcome:
        seen = route.way == "vision"
        sheets = [
            Sheet(page.number, page.label, page.text, page.blob if seen else None)
            for page in pages
            if page.error is None and (page.text.strip() or (seen and page.blob))
        ]
        if not sheets:
            raise _nothing(pages)
        task = _task(row)
        if route.way == "quote":
            outcome = Outcome(await quoted(steps, sheets, row.prompt))
            if task.schema is not None:
                outcome.warnings.append("The fields are left out: filling them needs a model.")
            await self._on_pages(sheets, {}, None)
            return outcome
        answering = Answering(
            steps,
            self._tools.reader,
            task,
            repairs=self._tools.options.repairs,
            load=self._load,
            on_pages=self._on_pages,
        )
        context = await self._tools.models.context_tokens(route.model, self._scope)
        return await answering.answer(sheets, at_once=self._tools.options.pages_at_once, context=context)

    async def _load(self, sheet: Sheet) -> Sheet:
        """With its picture."""
        if sheet.picture is None:
            return sheet
        kind = "image/jpeg" if sheet.picture.endswith(".jpg") else "image/png"
        return replace(sheet, image=await self._tools.blobs.read(sheet.picture), media_type=kind)

    async def _on_pages(self, sheets: Sequence[Sheet], notes: dict[int, str], error: str | None) -> None:
        """Keep what there is to say about these pages, and tell it."""
        numbers = {sheet.number for sheet in sheets}

        def keep(session: Session) -> tuple[list[PageNote], int, int]:
            row = self._fenced(session)
            pages = store.pages(session, row.id)
            told = []
            for page in pages:
                if page.number in numbers:
                    said = kept(notes.get(page.number, ""))
                    page.note = " ".join(dict.fromkeys(filter(None, (page.note, said))))
                    page.error, page.state = error, "failed" if error else "answered"
                    told.append(noted(page))
            row.pages_done = sum(page.state in ("answered", "failed") for page in pages)
            return told, row.pages_done, len(pages)

        told, done, total = await self._context.write(keep)
        for note in told:
            self._context.emit("page", asdict(note))
        self._context.progress(done, total, f"{done} of {total} pages answered")

    # -- ending

    async def _done(self, row: AnalysisRow, route: Route, outcome: Outcome, steps: Steps) -> Done:
        await self._change(state="answered")
        self._tell(state="answered")
        usage, cost = await self._spent(row, steps)

        def commit(session: Session) -> None:
            mine = self._fenced(session)
            pages = [noted(page) for page in store.pages(session, row.id)]
            failed = [page for page in pages if page.error]
            warnings = [*mine.warnings, *outcome.warnings, *_about_failed(failed, len(pages))]
            result = Result(outcome.markdown, outcome.fields, tuple(pages), tuple(warnings), outcome.rejected)
            mine.result, mine.usage, mine.cost = asdict(result), usage, cost
            mine.state, mine.error, mine.finished_at, mine.pages_done = "succeeded", None, now(), len(pages)
            tell(session, self._tools.notifier, mine)

        told = {"analysis_id": row.id, "way": route.way, "model": route.model, "pages": row.pages, "cost": cost}
        return Done(told, commit)

    async def _book(self, row: AnalysisRow, steps: Steps | None) -> None:
        """What it has cost so far, though it failed."""
        usage, cost = await self._spent(row, steps)
        await self._change(usage=usage, cost=cost)

    async def _spent(self, row: AnalysisRow, steps: Steps | None) -> tuple[dict[str, int], float | None]:
        if self._tools.books is None:
            return (steps.usage() if steps else {}), None
        line = await self._tools.books.of_job(self._scope, self._context.job_id, row.created_at)
        usage = {"calls": line.calls, "input_tokens": line.input_tokens, "output_tokens": line.output_tokens}
        return usage, None if line.unpriced else line.cost

    def _fenced(self, session: Session) -> AnalysisRow:
        analysis_id = self._context.payload.get("analysis_id")
        if not isinstance(analysis_id, str):
            raise Invalid("The payload needs an analysis_id.", code="bad_payload")
        return store.fenced(session, self._scope, analysis_id, self._context.job_id)

    async def _change(self, **fields: Any) -> None:
        def change(session: Session) -> None:
            row = self._fenced(session)
            for name, value in fields.items():
                setattr(row, name, value)

        await self._context.write(change)

    def _tell(self, **told: Any) -> None:
        self._context.emit("analysis", told)


def noted(page: PageRow) -> PageNote:
    return PageNote(page.number, page.label, page.note, page.error, page.blob is not None)


def tell(session: Session, notifier: Notifier, row: AnalysisRow) -> None:
    """Whoever wants to know that it is over, in the transaction that ends it."""
    type = f"analysis.{row.state}"
    data: dict[str, Any] = {
        "id": row.id, "name": row.name, "type": row.type, "state": row.state, "pages": row.pages, "way": row.way,
        "model": row.model, "cost": row.cost, "error": row.error, "job_id": row.job_id,
    }  # fmt: skip
    scope = Scope(row.tenant_id, row.user_id, row.key_id)
    notifier.emit(session, scope, type, data)
    if row.webhook is not None:
        notifier.send_to(session, scope, row.webhook, type, data)


def _task(row: AnalysisRow) -> Task:
    """A caller's own words and schema go before the type's; own words without a schema fill no fields of another's."""
    known = find_type(row.type)
    schema = row.fields_schema or (None if row.prompt and row.type == "free" else known.schema)
    return Task(row.prompt or known.prompt, schema)


def _nothing(pages: Sequence[PageRow]) -> Invalid:
    why = next((page.error for page in pages if page.error), "No text was found in it.")
    return Invalid(f"Nothing of this file could be read. {why}", code="nothing_readable")


def _about_failed(failed: Sequence[PageNote], total: int) -> list[str]:
    if not failed:
        return []
    labels = ", ".join(page.label for page in failed[:10]) + (" and more" if len(failed) > 10 else "")
    return [f"{len(failed)} of {total} pages could not be looked at ({labels}): {failed[0].error}"]
