"""A model's answer taken apart, however it has wrapped it."""

import json
from dataclasses import dataclass, field
from typing import Any

from terrace.analysis.extraction import find_object, without_fence
from terrace.analysis.plain import kept_in
from terrace.analysis.prompt import Task
from terrace.analysis.steps import Said

MAX_NOTE = 1_000  # characters


@dataclass(slots=True)
class Found:
    """What an answer holds. `notes` are by page."""

    markdown: str
    fields: Any = None
    has_fields: bool = False
    notes: dict[int, str] = field(default_factory=dict)
    cut: bool = False
    is_object: bool = True

    def retold(self) -> str:
        """As it is given to the model that puts several together."""
        return self.markdown + (f"\n\nFields: {json.dumps(self.fields, ensure_ascii=False)}" if self.has_fields else "")


def parsed(said: Said, task: Task) -> Found:
    cut = said.finish == "length"
    value = kept_in(find_object(said.text))
    in_form = value is not None and not {"markdown", "fields", "pages"}.isdisjoint(value)
    if value is None or (not in_form and task.schema is None):  # prose, or JSON that is the answer itself
        return Found(without_fence(said.text), cut=cut, is_object=False)
    if not in_form:  # the fields alone
        return Found(_as_markdown(value), value, True, cut=cut)
    written = value.get("markdown")
    markdown = without_fence(written) if isinstance(written, str) else ""
    if not markdown and "fields" in value:
        markdown = _as_markdown(value["fields"])
    return Found(markdown, value.get("fields"), "fields" in value, _notes(value.get("pages")), cut)


def _notes(pages: Any) -> dict[int, str]:
    notes: dict[int, str] = {}
    for each in pages if isinstance(pages, list) else ():
        if isinstance(each, dict) and isinstance(each.get("page"), int) and isinstance(each.get("note"), str):
            notes[each["page"]] = each["note"][:MAX_NOTE]
    return notes


def _as_markdown(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"
