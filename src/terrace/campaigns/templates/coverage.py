"""Whether every contact of a list has what a template asks for: by counting first, then by looking for examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy import text
from sqlmodel import Session

from terrace.campaigns.base import BUILT_IN, Contact
from terrace.campaigns.templates.drafts import Compiled
from terrace.campaigns.templates.language import CONTACT, KNOWLEDGE, LAST_CONVERSATION, Slot
from terrace.types import Scope

EXAMPLES = 5  # contacts shown that lack a value
SEARCHED = 50_000  # contacts looked through for them
PAGE = 1000

TOLD = text(
    "SELECT COUNT(*) FROM contact_memberships AS m WHERE m.tenant_id = :tenant AND m.list_id = :list "
    "AND EXISTS (SELECT 1 FROM contact_turns AS t WHERE t.contact_id = m.contact_id)"
)


class People(Protocol):
    """Contacts, as templates need them: `campaigns.contacts.service.Contacts` is one."""

    def page(
        self, session: Session, scope: Scope, list_id: str | None, after: str | None, limit: int
    ) -> list[Contact]: ...
    def count(self, session: Session, scope: Scope, list_id: str | None) -> int: ...
    def fields(self, session: Session, scope: Scope, list_id: str | None) -> dict[str, int]: ...
    def last_conversation(self, session: Session, scope: Scope, contact_id: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Example:
    id: str
    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A value that a template asks for. `covered`: there is a default wherever it stands, or no contact lacks it."""

    name: str
    places: list[dict[str, int]]  # {line, column} of each
    default: bool
    lacking: int | None  # contacts without it; None: only known when it is looked for
    covered: bool
    examples: list[Example] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Coverage:
    contacts: int
    placeholders: list[Placeholder]

    @property
    def missing(self) -> list[Placeholder]:
        return [each for each in self.placeholders if not each.covered]


def examine(session: Session, scope: Scope, people: People, list_id: str, compiled: Compiled) -> Coverage:
    """In a transaction that reads."""
    total = people.count(session, scope, list_id)
    counted = any(name.startswith(CONTACT) for name in compiled.names)
    filled = {CONTACT + name: n for name, n in people.fields(session, scope, list_id).items()} if counted else {}
    if LAST_CONVERSATION in compiled.names:
        filled[LAST_CONVERSATION] = session.execute(TOLD, {"tenant": scope.tenant, "list": list_id}).scalar_one()
    lacking = {name: total - filled.get(name, 0) for name in compiled.names if name != KNOWLEDGE}
    examples = _examples(session, scope, people, list_id, [name for name, n in lacking.items() if n])
    return Coverage(total, [_told(name, compiled.slots, lacking, examples) for name in sorted(compiled.names)])


def values_of(contact: Contact) -> dict[str, str]:
    """All that is known of a contact, by field; nothing empty."""
    built_in = {name: getattr(contact, name) for name in BUILT_IN}
    return {name: value for name, value in {**contact.fields, **built_in}.items() if value}


def required(compiled: Compiled) -> frozenset[str]:
    """What a contact must have: names that stand somewhere without a default."""
    return frozenset(slot.name for slot in compiled.slots if slot.default is None) - {KNOWLEDGE}


def _told(
    name: str, slots: Sequence[Slot], lacking: Mapping[str, int], examples: Mapping[str, list[Example]]
) -> Placeholder:
    here = [slot for slot in slots if slot.name == name]
    default = all(slot.default is not None for slot in here)
    places = [{"line": slot.line, "column": slot.column} for slot in here]
    covered = default or not lacking.get(name)
    return Placeholder(name, places, default, lacking.get(name), covered, examples.get(name, []))


def _examples(
    session: Session, scope: Scope, people: People, list_id: str, names: Sequence[str]
) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {name: [] for name in names}
    after: str | None = None
    for _ in range(0, SEARCHED, PAGE):
        if all(len(each) == EXAMPLES for each in found.values()):
            break
        page = people.page(session, scope, list_id, after, PAGE)
        for contact in page:
            known = {CONTACT + name for name in values_of(contact)}
            for name, examples in found.items():
                if len(examples) < EXAMPLES and not _has(session, scope, people, contact, name, known):
                    examples.append(Example(contact.id, contact.key, contact.name))
        if len(page) < PAGE:
            break
        after = page[-1].id
    return found


def _has(session: Session, scope: Scope, people: People, contact: Contact, name: str, known: set[str]) -> bool:
    if name == LAST_CONVERSATION:
        return bool(people.last_conversation(session, scope, contact.id))
    return name in known
