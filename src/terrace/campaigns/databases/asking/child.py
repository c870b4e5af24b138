"""What runs in the subprocess: a query asked, its first rows shown or all its people gathered."""

import importlib
from itertools import islice
from pathlib import Path
from typing import cast

from terrace.campaigns.contacts.reading.base import Plan, Summary
from terrace.campaigns.contacts.reading.collecting import Say, collect
from terrace.campaigns.contacts.reading.mapping import fields_of
from terrace.campaigns.databases.asking.base import Ask, Asked
from terrace.campaigns.databases.base import SHOWN_CHARS, SHOWN_ROWS, Shown, Target
from terrace.errors import Invalid


def show(target: Target, query: str, most_fields: int) -> Shown:
    with _ask(target)(target, query) as answer:
        table = Asked(answer)
        rows = [row.cells for row in islice(table, SHOWN_ROWS + 1)]
    notes: list[str] = []
    mapping: dict[str, str] = {}
    try:
        mapping = fields_of(table.header, {}, most_fields)
    except Invalid as error:
        notes.append(error.message)
    shown = [dict(zip(table.header, map(_cut, cells), strict=True)) for cells in rows[:SHOWN_ROWS]]
    return Shown(table.header, shown, len(rows) > SHOWN_ROWS, mapping, notes)


def gather(target: Target, query: str, plan: Plan, file: str, *, progress: Say) -> Summary:
    """The people go into `file`."""
    with _ask(target)(target, query) as answer:
        return collect(Asked(answer), dict(plan.mapping), plan.bounds, Path(file), progress)


def _ask(target: Target) -> Ask:
    return cast(Ask, importlib.import_module(f"terrace.campaigns.databases.asking.{target.kind}").ask)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1] + "…"
