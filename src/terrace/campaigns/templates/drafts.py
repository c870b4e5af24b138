"""A template as somebody writes it, and what is wrong with it before it is kept."""

from dataclasses import dataclass
from typing import Literal

from terrace.campaigns.templates.language import (
    CONTACT,
    KNOWLEDGE,
    BadTemplate,
    Problem,
    Slot,
    Template,
    read,
)
from terrace.errors import Invalid

Mode = Literal["write", "fill"]

MAX_NAME_CHARS = 200
MAX_SYSTEM_CHARS = 20_000
MAX_QUERY_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Draft:
    """`mode` write: the body is a prompt and a model writes the message; fill: the body is the message."""

    body: str
    mode: Mode = "write"
    system: str = ""  # further instructions for the model
    knowledge_query: str = ""  # what `{{knowledge}}` looks for, a small template of `contact.` alone


@dataclass(frozen=True, slots=True)
class Compiled:
    """A draft that was read without a problem."""

    draft: Draft
    body: Template
    query: Template

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Of the body, and of what is looked for."""
        return self.body.slots + self.query.slots

    @property
    def names(self) -> frozenset[str]:
        return self.body.names | self.query.names


def compile(draft: Draft) -> Compiled:
    """Raises Invalid, BadTemplate."""
    body, query, problems, query_problems = _read(draft)
    if problems:
        raise BadTemplate(problems)
    if query_problems:
        raise BadTemplate(query_problems, "knowledge query")
    if len(draft.system) > MAX_SYSTEM_CHARS:
        raise Invalid(f"The system text has at most {MAX_SYSTEM_CHARS:,} characters.", code="system_too_long")
    return Compiled(draft, body, query)


def problems(draft: Draft) -> list[Problem]:
    """All that `compile` would refuse in body and query, for a check while somebody types."""
    _, _, found, in_query = _read(draft)
    return found + in_query


def _read(draft: Draft) -> tuple[Template, Template, list[Problem], list[Problem]]:
    body, found = read(draft.body)
    query, in_query = read(draft.knowledge_query)
    if not draft.body.strip():
        found.append(Problem(1, 1, "empty", "The template is empty. Write what is to be said."))
    for slot in body.slots:
        if slot.name == KNOWLEDGE and not draft.knowledge_query.strip():
            message = (
                "`{{knowledge}}` needs a `knowledge_query`: what to look for, such as `{{contact.product}} warranty`."
            )
            found.append(Problem(slot.line, slot.column, "no_query", message))
            break
    for slot in query.slots:
        if not slot.name.startswith(CONTACT):
            message = f"A knowledge query may hold the contact's fields, not `{slot.name}`."
            in_query.append(Problem(slot.line, slot.column, "not_here", message))
    if len(draft.knowledge_query) > MAX_QUERY_CHARS:
        message = f"A knowledge query has at most {MAX_QUERY_CHARS:,} characters."
        in_query.append(Problem(1, 1, "too_long", message))
    return body, query, found, in_query


def template_name(name: str) -> str:
    """Raises Invalid."""
    clean = " ".join(name.split())
    if not 0 < len(clean) <= MAX_NAME_CHARS or not clean.isprintable():
        raise Invalid(f"A template needs a name of at most {MAX_NAME_CHARS} characters.", code="bad_template_name")
    return clean
