"""Calls of the model, each made once: its answer is stored before it is used, and a later attempt finds it there."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlmodel import Session

from terrace.analysis import store
from terrace.analysis.base import Models
from terrace.analysis.choosing import Route
from terrace.analysis.plain import kept
from terrace.analysis.tables import StepRow
from terrace.errors import BY_KIND, Internal, Invalid, TerraceError, Unavailable
from terrace.jobs.base import Context, LostLease
from terrace.models.base import ChatRequest, Finish, Passage, TextDelta, Usage
from terrace.types import Scope

Message = dict[str, Any]
Build = Callable[[], Awaitable[list[Message]]]  # messages, put together when they are needed

TRIES = 3  # of one call, over all attempts of the job
MAX_ANSWER = 400_000  # characters
ANSWER_TOKENS = 8192  # asked of Anthropic, which wants to be told and would give half of it


class StepFailed(Exception):
    """A call that gave no answer. When it is `final`, it is not made again by itself."""

    def __init__(self, error: TerraceError, *, final: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.final = final

    def reason(self) -> TerraceError:
        """What the job shall end with: its error, which is not tried again once that is of no use."""
        if self.final and self.error.retryable:
            return GivenUp(self.error.message, code=self.error.code)
        return self.error


class GivenUp(Unavailable):
    """Something we need was away as often as we asked; the job is not tried again for it."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Said:
    text: str
    finish: str
    model: str


class Steps:
    """The calls of one analysis, under the names of its steps."""

    def __init__(
        self,
        context: Context,
        models: Models,
        scope: Scope,
        analysis_id: str,
        route: Route,
        known: dict[str, StepRow],
    ) -> None:
        self._context = context
        self._models = models
        self._scope = scope
        self._analysis_id = analysis_id
        self._route = route
        self._known = known
        self._takes_format = True

    async def ask(self, key: str, build: Build, passages: Sequence[Passage] = (), **options: Any) -> Said:
        """The answer of this step: the one that is stored, or the model's. Raises StepFailed."""
        step = self._known.get(key)
        if step is not None and step.answer is not None:
            return Said(step.answer, step.finish or "stop", step.model or self._route.model)
        if step is not None and step.failures >= TRIES and step.error:
            kind = BY_KIND.get(step.error["kind"], Internal)
            raise StepFailed(kind(step.error["message"], code=step.error["code"]), final=True)
        try:
            said, usage = await self._called(await build(), passages, options)
        except LostLease:
            raise
        except TerraceError as error:
            failures = (step.failures if step else 0) + 1 if error.retryable else TRIES
            told = {"kind": error.kind, "code": error.code, "message": error.message}
            await self._keep(key, failures=failures, error=told)
            raise StepFailed(error, final=failures >= TRIES) from error
        await self._keep(key, answer=said.text, finish=said.finish, model=said.model, usage=asdict(usage), error=None)
        return said

    def usage(self) -> dict[str, int]:
        """By what the answers said themselves; whoever keeps the books knows of those that broke off, too."""
        used = [step.usage for step in self._known.values() if step.usage]
        sums = {name: sum(each.get(name, 0) for each in used) for name in ("input_tokens", "output_tokens")}
        return {"calls": len(used), **sums}

    async def _called(
        self, messages: list[Message], passages: Sequence[Passage], options: dict[str, Any]
    ) -> tuple[Said, Usage]:
        """Once more without `response_format` where a server refuses that."""
        plain = {name: value for name, value in options.items() if name != "response_format"}
        if not self._takes_format or plain == options:
            return await self._answer(messages, passages, plain)
        try:
            return await self._answer(messages, passages, options)
        except Invalid:
            answered = await self._answer(messages, passages, plain)
        self._takes_format = False
        return answered

    async def _answer(
        self, messages: list[Message], passages: Sequence[Passage], options: dict[str, Any]
    ) -> tuple[Said, Usage]:
        if self._route.kind == "anthropic":
            options = {"max_tokens": ANSWER_TOKENS, **options}
        running = self._models.stream(ChatRequest(self._route.model, messages, options, passages, self._scope))
        pieces: list[str] = []
        size, finish, usage = 0, "stop", Usage(0, 0)
        async with aclosing(running) as deltas:
            async for delta in deltas:
                match delta:
                    case TextDelta(text):
                        size += len(text)
                        pieces.append(text)
                        if size > MAX_ANSWER:
                            finish = "length"
                            break
                    case Usage():
                        usage = delta
                    case Finish(reason):
                        finish = reason
        text = kept("".join(pieces)[:MAX_ANSWER])
        if not text.strip():
            raise Unavailable("The model gave an empty answer.", code="empty_answer")
        return Said(text, finish, running.model), usage

    async def _keep(self, key: str, **fields: Any) -> None:
        def keep(session: Session) -> StepRow:
            row = store.fenced(session, self._scope, self._analysis_id, self._context.job_id)
            return store.keep_step(session, row, key, **fields)

        self._known[key] = await self._context.write(keep)


def walled(scope: Scope, payload: dict[str, Any]) -> Scope:
    """Whose call it is, held to the models that whoever asked may use."""
    return replace(scope, models=tuple(frozenset(wall) for wall in payload.get("models", ())))
