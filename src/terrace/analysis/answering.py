"""From pages to a result: asked in groups, put together, checked against the schema, and mended by the model."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from terrace.analysis import groups, prompt
from terrace.analysis.parsing import Found, parsed
from terrace.analysis.prompt import Sheet, Task
from terrace.analysis.reading import Reader
from terrace.analysis.steps import Build, Message, Said, StepFailed, Steps
from terrace.errors import Invalid
from terrace.models.base import Passage
from terrace.models.tokens import estimate

AT_ONCE = 4  # calls under way for one file
ROOM = 0.6  # of a model's context that pages may fill
ASSUMED_CONTEXT = 32_000  # tokens, where a model tells none
LEAST_ROOM = 2_500
ROUNDS = 6  # of putting together
MAX_MARKDOWN = 2_000_000  # characters
PASSAGE = 1_500  # characters of a passage for the quote model
PASSAGES = 200
CUT = "The answer was cut off at the model's longest: it is incomplete."

Load = Callable[[Sheet], Awaitable[Sheet]]
OnPages = Callable[[Sequence[Sheet], dict[int, str], str | None], Awaitable[None]]
Answered = list[tuple[Sequence[Sheet], Said | StepFailed]]


@dataclass(slots=True)
class Outcome:
    """A result in the making; what there is to say about single pages is told as it comes (`OnPages`)."""

    markdown: str = ""
    fields: Any = None
    rejected: Any = None
    warnings: list[str] = field(default_factory=list)


class Answering:
    """`load` brings a sheet's picture when its turn comes; `on_pages(sheets, notes, error)` is told of each group as
    it is answered, or given up."""

    def __init__(
        self, steps: Steps, reader: Reader, task: Task, *, repairs: int, load: Load, on_pages: OnPages
    ) -> None:
        self._steps = steps
        self._reader = reader
        self._task = task
        self._repairs = repairs
        self._load = load
        self._on_pages = on_pages
        self._whole = prompt.response_format(task)
        self._partial = prompt.response_format(task, fields=False)

    async def answer(self, sheets: Sequence[Sheet], *, at_once: int, context: int | None) -> Outcome:
        """`context` is the model's, in tokens. Raises StepFailed when no page could be answered, or some may yet be."""
        taken = estimate(json.dumps(self._task.schema)) if self._task.schema else 0
        room = max(LEAST_ROOM, int((context or ASSUMED_CONTEXT) * ROOM) - taken)
        parts = groups.of_sheets(sheets, at_once, room)
        if len(parts) == 1:
            try:
                return await self._at_once(sheets)
            except StepFailed as failed:
                if not failed.final or len(sheets) == 1:
                    raise
            parts = [[sheet] for sheet in sheets]  # one of them may spoil the call for all
        return await self._together(await self._each(parts, len(sheets)), room)

    async def _at_once(self, sheets: Sequence[Sheet]) -> Outcome:
        build = self._about(sheets, len(sheets))
        said = await self._steps.ask("whole", build, response_format=self._whole)
        found = parsed(said, self._task)
        await self._on_pages(sheets, found.notes, None)
        return await self._settled(Outcome(), build, said, found)

    def _about(self, sheets: Sequence[Sheet], total: int) -> Build:
        async def build() -> list[Message]:
            return prompt.about_pages(self._task, [await self._load(sheet) for sheet in sheets], total)

        return build

    # -- in several calls

    async def _each(self, parts: Sequence[Sequence[Sheet]], total: int) -> list[tuple[Sequence[Sheet], Said]]:
        """The groups that were answered. Those that were given up are told with their pages."""
        answers = [
            each
            for several in await groups.in_order([self._group(part, total) for part in parts], AT_ONCE)
            for each in several
        ]
        failures = [said for _, said in answers if isinstance(said, StepFailed)]
        for failed in failures:
            if not failed.final or len(failures) == len(answers):
                raise failed
        return [(part, said) for part, said in answers if isinstance(said, Said)]

    async def _group(self, part: Sequence[Sheet], total: int) -> Answered:
        try:
            said = await self._steps.ask(groups.key(part), self._about(part, total), response_format=self._partial)
        except StepFailed as failed:
            if not failed.final:
                return [(part, failed)]
            if len(part) > 1:
                return [each for sheet in part for each in await self._group([sheet], total)]
            await self._on_pages(part, {}, failed.error.message)
            return [(part, failed)]
        await self._on_pages(part, parsed(said, self._task).notes, None)
        return [(part, said)]

    async def _together(self, answers: Sequence[tuple[Sequence[Sheet], Said]], room: int) -> Outcome:
        """Answers about parts become one, in several rounds when they are too many for the model's context."""
        found = [parsed(said, self._task) for _, said in answers]
        told = [
            (groups.where([sheet.label for sheet in part]), each.retold())
            for (part, _), each in zip(answers, found, strict=True)
        ]
        joined = "\n\n".join(each.markdown for each in found)[:MAX_MARKDOWN]
        outcome = Outcome(warnings=[CUT] if any(each.cut for each in found) else [])
        try:
            for level in range(ROUNDS):
                rounds = groups.of_answers(told, room)
                if len(rounds) in (1, len(told)):
                    break
                said = await groups.in_order(
                    [self._round(f"together-{level}-{place}", some) for place, some in enumerate(rounds)], AT_ONCE
                )
                told = [
                    (groups.where([label for label, _ in some]), each.text)
                    for some, each in zip(rounds, said, strict=True)
                ]
            build = self._put_together(told)
            last = await self._steps.ask("together", build, response_format=self._whole)
        except StepFailed as failed:
            if not failed.final:
                raise
            outcome.markdown = joined
            why = f"The answers about its parts could not be put together, and stand one after the other: {failed}"
            outcome.warnings.append(why)
            return outcome
        outcome.markdown = joined
        return await self._settled(outcome, build, last, parsed(last, self._task))

    async def _round(self, key: str, some: Sequence[tuple[str, str]]) -> Said:
        return await self._steps.ask(key, self._put_together(some), response_format=self._partial)

    def _put_together(self, told: Sequence[tuple[str, str]]) -> Build:
        async def build() -> list[Message]:
            return prompt.together(self._task, told)

        return build

    # -- the form of an answer

    async def _settled(self, outcome: Outcome, build: Build, said: Said, found: Found) -> Outcome:
        """Check the answer, have it mended as often as that is allowed, and say what is still wrong with it then."""
        outcome.markdown = found.markdown or outcome.markdown
        wrong = await self._wrong(found)
        for number in range(1, self._repairs + 1):
            if not wrong:
                break
            build = _mending(build, said, wrong)
            try:
                said = await self._steps.ask(f"repair-{number}", build, response_format=self._whole)
            except StepFailed as failed:
                if not failed.final:
                    raise
                outcome.warnings.append(f"The model could not be asked to mend its answer: {failed}")
                break
            found = parsed(said, self._task)
            if found.is_object and found.markdown:
                outcome.markdown = found.markdown
            wrong = await self._wrong(found)
        outcome.markdown = outcome.markdown[:MAX_MARKDOWN]
        if found.cut and CUT not in outcome.warnings:
            outcome.warnings.append(CUT)
        if wrong:
            outcome.rejected = found.fields
            outcome.warnings.append(f"The fields are left out: what the model gave is not right. {'; '.join(wrong)}")
        elif self._task.schema is not None:
            outcome.fields = found.fields
        return outcome

    async def _wrong(self, found: Found) -> list[str]:
        """What is wrong with an answer, a sentence each. Without a schema any answer will do."""
        if self._task.schema is None:
            return []
        if not found.is_object:
            return ["It is not JSON: one JSON object is wanted, without any text around it."]
        if not found.has_fields:
            return ["`fields` is missing."]
        try:
            told = await self._reader.violations(found.fields, dict(self._task.schema))
        except Invalid as error:
            return [f"It could not be checked against the schema. {error.message}"]
        return [f"In `fields`, {each}" for each in told]


def _mending(build: Build, said: Said, wrong: Sequence[str]) -> Build:
    async def again() -> list[Message]:
        return prompt.again(await build(), said.text, wrong)

    return again


async def quoted(steps: Steps, sheets: Sequence[Sheet], question: str) -> str:
    """Without a model: what was read, and where something is asked, before it the sentences that answer best.

    Raises StepFailed.
    """
    text = "\n\n".join(f"## {sheet.label}\n\n{sheet.text.strip()}" for sheet in sheets)
    if len(sheets) == 1:
        text = sheets[0].text.strip()
    if not question:
        return text[:MAX_MARKDOWN]
    pieces = ((sheet, sheet.text[at : at + PASSAGE]) for sheet in sheets for at in range(0, len(sheet.text), PASSAGE))
    passages = [Passage(number, sheet.label, piece) for number, (sheet, piece) in enumerate(pieces, 1)][:PASSAGES]

    async def build() -> list[Message]:
        return [{"role": "user", "content": question}]

    said = await steps.ask("quotes", build, passages)
    return f"{said.text.strip()}\n\n---\n\n{text}"[:MAX_MARKDOWN]
