"""The language of templates: text with `{{contact.name}}`, `{{knowledge}}`, `{{last_conversation}}`, and nothing else.

    {{contact.first_name}}                          a field of the contact
    {{contact.first_name | default: "friend"}}      and what stands there when they have none
    \\{{   \\}}                                       these signs themselves

There are no conditions, loops, calls or nesting: a template is read once, from front to back, and what is put in its
places is never read again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from terrace.campaigns.base import field_name
from terrace.errors import Invalid

MAX_CHARS = 50_000
MAX_PLACES = 500
MAX_DEFAULT_CHARS = 2_000
MAX_PROBLEMS = 20  # told at a time

CONTACT = "contact."
KNOWLEDGE = "knowledge"
LAST_CONVERSATION = "last_conversation"
NAMES = ("contact.name", "contact.email", "contact.key", KNOWLEDGE, LAST_CONVERSATION)

_SIGN = re.compile(r"\\\{\{|\\\}\}|\{\{|\}\}|\{%")
_INSIDE = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\{\{|\}\}|[\"']", re.DOTALL)
_FILTER = re.compile(r"default\s*:\s*(\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')", re.DOTALL)
_FIELD = re.compile(r"contact\.([\w -]+)")
_CODE = re.compile(r"[()\[\]%=<>+*/#&!?;]|^(?:for|if|each|end\w*|else|set|include|import|unless|while)\b")


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for a value. `name` is `contact.<field>`, `knowledge` or `last_conversation`; lines and columns count
    from 1."""

    name: str
    default: str | None
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a place of a template, in a sentence."""

    line: int
    column: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Template:
    """A text that was read: `parts` in their order, literal text and slots."""

    parts: tuple[str | Slot, ...]

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(part for part in self.parts if isinstance(part, Slot))

    @property
    def names(self) -> frozenset[str]:
        return frozenset(slot.name for slot in self.slots)


class BadTemplate(Invalid):
    """`extra["problems"]` has them all: {line, column, code, message} each."""

    def __init__(self, problems: list[Problem], what: str = "template") -> None:
        first = problems[0]
        more = f" ({len(problems)} problems in all.)" if len(problems) > 1 else ""
        super().__init__(
            f"In line {first.line}, column {first.column} of the {what}: {first.message}{more}",
            code="bad_template",
            problems=[_told(each) for each in problems],
        )


def parse(source: str, what: str = "template") -> Template:
    """Raises BadTemplate."""
    template, problems = read(source)
    if problems:
        raise BadTemplate(problems, what)
    return template


def read(source: str) -> tuple[Template, list[Problem]]:
    """The template as far as it can be read, and everything that is wrong with it."""
    if len(source) > MAX_CHARS:
        return Template(()), [
            Problem(1, 1, "too_long", f"A template has at most {MAX_CHARS:,} characters; this one has {len(source):,}.")
        ]
    reader = _Reader(source)
    parts = tuple(_joined(reader.parts()))
    problems = reader.problems[:MAX_PROBLEMS]
    return Template(parts), problems


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._places = 0
        self.problems: list[Problem] = []

    def parts(self) -> Iterator[str | Slot]:
        at = 0
        while (sign := _SIGN.search(self._source, at)) is not None:
            yield self._source[at : sign.start()]
            at = sign.end()
            match sign.group():
                case "\\{{" | "\\}}":
                    yield sign.group()[1:]
                case "}}":
                    self._problem(sign.start(), "unbalanced", "`}}` ends nothing. Write `\\}}` if you mean the signs.")
                case "{%":
                    self._problem(
                        sign.start(), "code", "`{%` begins code in other languages. Templates have no loops, "
                        "conditions or code: only places for values, such as `{{contact.name}}`.",
                    )  # fmt: skip
                case _:
                    end = self._end(at)
                    if end is None:
                        return
                    slot = self._slot(sign.start(), self._source[at:end])
                    at = end + 2
                    if slot is not None:
                        yield slot
        yield self._source[at:]

    def _end(self, start: int) -> int | None:
        """Where the `}}` stands that closes what was opened before `start`; None when there is none to be found."""
        for found in _INSIDE.finditer(self._source, start):
            match found.group():
                case "}}":
                    return found.start()
                case "{{":
                    self._problem(
                        found.start(), "nested", "`{{` within `{{ ... }}`: placeholders cannot stand in each other. "
                        "Close the first one with `}}` before.",
                    )  # fmt: skip
                    return None
                case '"' | "'":
                    self._problem(found.start(), "unbalanced", "This quotation mark is never closed.")
                    return None
        self._problem(start - 2, "unbalanced", "`{{` is never closed by `}}`. Write `\\{{` if you mean the signs.")
        return None

    def _slot(self, at: int, inside: str) -> Slot | None:
        self._places += 1
        if self._places > MAX_PLACES:
            if self._places == MAX_PLACES + 1:
                self._problem(at, "too_many", f"A template has at most {MAX_PLACES} placeholders.")
            return None
        before, pipe, after = inside.partition("|")
        name, filter = before.strip(), after.strip() if pipe else None
        known = self._name(at, name)
        default = None if filter is None else self._default(at, filter)
        if known is None or (filter is not None and default is None):
            return None
        line, column = self._place(at)
        return Slot(known, default, line, column)

    def _name(self, at: int, name: str) -> str | None:
        if name in (KNOWLEDGE, LAST_CONVERSATION):
            return name
        if (found := _FIELD.fullmatch(name)) and (field := field_name(found[1])):
            return CONTACT + field
        if not name:
            self._problem(at, "empty", "Nothing stands between `{{` and `}}`. Name a value, such as `contact.name`.")
        elif _CODE.search(name):
            self._problem(
                at, "code", f"`{_short(name)}` is no name. A placeholder names one value, and perhaps a default: "
                "there is no code in templates.",
            )  # fmt: skip
        else:
            near = get_close_matches(name, NAMES, 1, 0.7) or [CONTACT + name] * bool(field_name(name) == name)
            hint = f" Did you mean `{near[0]}`?" if near and name != "contact" else ""
            self._problem(
                at, "unknown", f"Nothing is called `{_short(name)}`.{hint} There are `contact.` with a field's name, "
                "`knowledge` and `last_conversation`.",
            )  # fmt: skip
        return None

    def _default(self, at: int, filter: str) -> str | None:
        found = _FILTER.fullmatch(filter)
        if found is None:
            self._problem(
                at, "filter", f"`{_short(filter)}` cannot stand here. What may follow `|` is a default, such as "
                '`| default: "friend"`.',
            )  # fmt: skip
            return None
        text = re.sub(r"\\(.)", lambda escaped: {"n": "\n", "t": "\t"}.get(escaped[1], escaped[1]), found[1][1:-1])
        if len(text) > MAX_DEFAULT_CHARS:
            self._problem(at, "too_long", f"A default has at most {MAX_DEFAULT_CHARS:,} characters.")
            return None
        return text

    def _problem(self, at: int, code: str, message: str) -> None:
        if len(self.problems) <= MAX_PROBLEMS:
            self.problems.append(Problem(*self._place(at), code, message))

    def _place(self, at: int) -> tuple[int, int]:
        before = self._source[:at]
        return before.count("\n") + 1, at - before.rfind("\n")


def _joined(parts: Iterator[str | Slot]) -> Iterator[str | Slot]:
    """Literal text in one piece between two slots."""
    text: list[str] = []
    for part in parts:
        if isinstance(part, str):
            text.append(part)
            continue
        if whole := "".join(text):
            yield whole
        text = []
        yield part
    if whole := "".join(text):
        yield whole


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def _told(problem: Problem) -> dict[str, Any]:
    return {"line": problem.line, "column": problem.column, "code": problem.code, "message": problem.message}
