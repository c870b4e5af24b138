"""Which column is which field."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from terrace.campaigns.base import BUILT_IN, field_name, is_field
from terrace.campaigns.contacts.reading.base import MAX_COLUMNS
from terrace.campaigns.contacts.values import clean, short
from terrace.errors import Invalid

# As `field_name` makes them of headings, in the languages people export in.
EMAIL = frozenset({
    "email", "e_mail", "mail", "email_address", "e_mail_address", "mail_address", "emailaddress", "contact_email",
    "customer_email", "email_adresse", "e_mail_adresse", "adresse_e_mail", "adresse_mail", "courriel", "correo",
    "correo_electronico",
})  # fmt: skip
NAME = frozenset({
    "name", "full_name", "fullname", "contact_name", "customer_name", "client_name", "display_name", "contact",
    "customer", "nom", "nom_complet", "nombre", "nombre_completo", "nome", "nome_completo",
})  # fmt: skip
KEY = (
    "key", "contact_key", "contact_id", "customer_id", "client_id", "customer_number", "external_id", "id", "uuid",
)  # fmt: skip
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def headings(cells: Sequence[str]) -> list[str]:
    """The first row as columns' names. Raises Invalid when it is none, or names two columns alike, or one not at all.

    What is empty at its end is no column.
    """
    names = [" ".join(clean(cell).split()) for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise Invalid("The first row is empty. Put the columns' names there.", code="no_header")
    if len(names) > MAX_COLUMNS:
        raise Invalid(
            f"The table has {len(names):,} columns; at most {MAX_COLUMNS:,} are read.", code="too_many_columns"
        )
    if any(_ADDRESS.fullmatch(name) for name in names):
        raise Invalid(
            "The first row holds an e-mail address where the columns' names should be. Put a row of names above it, "
            "such as: email, name, city.",
            code="no_header",
        )
    if empty := [str(number) for number, name in enumerate(names, 1) if not name]:
        raise Invalid(
            f"Column {', '.join(empty[:10])} has no name in the first row. Name it, or take it out.",
            code="empty_heading",
        )
    seen = Counter(name.casefold() for name in names)
    if twice := dict.fromkeys(name for name in names if seen[name.casefold()] > 1):
        raise Invalid(
            f"Two columns have the same name: {', '.join(short(name) for name in list(twice)[:10])}. "
            "Give each its own.",
            code="duplicate_heading",
        )
    return names


def fields_of(columns: Sequence[str], wanted: Mapping[str, str], most: int) -> dict[str, str]:
    """Column -> field for every column: as wanted, else as guessed from its name; empty where it is left out.

    Raises Invalid for a mapping that cannot be, or that leaves no key.
    """
    chosen = _chosen(columns, wanted)
    mapping = {**dict.fromkeys(columns, ""), **_guessed(columns, chosen), **chosen}
    used = Counter(field for field in mapping.values() if field)
    if twice := [field for field, times in used.items() if times > 1]:
        raise Invalid(f"Two columns are mapped to the field {twice[0]!r}. Leave one out.", code="bad_mapping")
    if "key" not in used and "email" not in used:
        raise Invalid(
            "No column says who is who. Map one to `email`, or one with a value of its own for each contact to `key`. "
            f"The columns are: {', '.join(short(name) for name in columns[:20])}.",
            code="no_key",
        )
    custom = len(used) - sum(field in used for field in BUILT_IN)
    if custom > most:
        raise Invalid(
            f"These columns make {custom:,} fields; a contact has at most {most:,}. Leave some out.",
            code="too_many_fields",
        )
    return mapping


def _chosen(columns: Sequence[str], wanted: Mapping[str, str]) -> dict[str, str]:
    by_name = {name.casefold(): name for name in columns}
    chosen = {}
    for column, field in wanted.items():
        name = by_name.get(" ".join(column.split()).casefold())
        if name is None:
            raise Invalid(
                f"There is no column {short(column)}. The columns are: "
                f"{', '.join(short(each) for each in columns[:20])}.",
                code="unknown_column",
            )
        field = field.strip()
        if field and not is_field(field):
            raise Invalid(
                f"{short(field)} cannot be a field: write letters, digits and underscores in lower case, such as "
                f"{field_name(field) or 'city'}.",
                code="bad_field",
            )
        chosen[name] = field
    return chosen


def _guessed(columns: Sequence[str], chosen: Mapping[str, str]) -> dict[str, str]:
    taken = {field for field in chosen.values() if field}
    guessed: dict[str, str] = {}
    open_ = {name: field_name(name) for name in columns if name not in chosen}

    def guess(column: str, field: str) -> None:
        guessed[column] = field
        taken.add(field)

    for field, words in (("email", EMAIL), ("name", NAME)):
        found = [name for name, slug in open_.items() if slug in words and name not in guessed]
        if field not in taken and found:
            guess(next((name for name in found if open_[name] == field), found[0]), field)
    if not {"email", "key"} & taken:
        slugs = {slug: name for name, slug in open_.items()}
        if found := [slugs[slug] for slug in KEY if slug in slugs and slugs[slug] not in guessed]:
            guess(found[0], "key")
    for name, slug in open_.items():
        if name not in guessed:
            guess(name, _free(slug, taken)) if slug else guessed.setdefault(name, "")
    return guessed


def _free(slug: str, taken: set[str]) -> str:
    """The name itself, or with a number where it is taken or every contact has it anyway."""
    number = 2
    field = slug
    while field in taken or field in BUILT_IN:
        field = f"{slug[:60]}_{number}"
        number += 1
    return field
