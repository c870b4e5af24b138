"""A file somebody sent, whatever it is: what runs in the subprocess."""

from pathlib import Path

from terrace.campaigns.contacts.reading.base import Plan, Summary, Table
from terrace.campaigns.contacts.reading.collecting import Say, collect
from terrace.errors import Invalid
from terrace.knowledge.media import HEAD, HTML, PDF, ZIP, sniff

ACCEPTED = "Save it as CSV or as an Excel workbook (.xlsx)."


def read_file(path: str, plan: Plan, target: str, *, progress: Say) -> Summary:
    """The people go into `target`. Raises Invalid with what is wrong with the file."""
    return collect(open_table(Path(path), plan), dict(plan.mapping), plan.bounds, Path(target), progress)


def open_table(path: Path, plan: Plan) -> Table:
    """By its content: what a file is called says nothing."""
    kind = _kind(path)
    if kind == ZIP:
        from terrace.campaigns.contacts.reading.sheet import Sheet

        return Sheet(path, plan)
    from terrace.campaigns.contacts.reading.text import TextTable

    return TextTable(path, plan)


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEAD)
    try:
        kind = sniff(head)
    except Invalid as error:
        if error.code == "document_empty":
            raise Invalid("There is nothing in this file.", code="table_empty") from error
        if error.code == "document_encrypted":
            raise
        raise _no_table("This is an old Excel file, or none at all.") from error
    if kind in (PDF, HTML):
        raise _no_table(f"This is {'a PDF' if kind == PDF else 'a web page'}, not a table.")
    if head.lstrip()[:1] in (b"{", b"["):
        raise _no_table("This looks like JSON, not like a table.")
    return kind


def _no_table(why: str) -> Invalid:
    return Invalid(f"{why} {ACCEPTED}", code="not_a_table", status=415)
