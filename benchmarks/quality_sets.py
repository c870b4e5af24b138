"""Reads the documents and questions a quality benchmark runs on. See docs/retrieval.md for the forms it takes.

Documents: a folder (every file the product can parse, by its path or name), or a JSONL file of
`{"id" | "_id" | "doc_id", "title"?, "text" | "body" | "content"}`.
Questions: JSONL, JSON (a list), CSV or TSV with a header. A row has
`question | query | text`; the documents that answer it as `document | documents | doc | doc_id | doc_ids | id |
relevant | positive` (a name, a list, names parted by commas or semicolons, or `{name: grade}`); and, if the quote is to
be judged, `answer | answers` (a string, a list, or SQuAD's `{"text": [...]}`).
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

IDS = ("id", "_id", "doc_id", "docid", "document", "name")
TEXTS = ("text", "body", "content", "contents", "passage", "abstract")
QUESTIONS = ("question", "query", "text", "q")
RELEVANT = ("relevant", "documents", "document", "doc_ids", "doc_id", "docs", "doc", "docid", "positive", "file", "id")
ANSWERS = ("answers", "answer", "expected")


@dataclass(frozen=True)
class Source:
    """A document: a file to parse, or a text as it is."""

    id: str
    title: str = ""
    text: str = ""
    path: Path | None = None

    @property
    def keys(self) -> set[str]:
        """What a question may call it: its id, its file name, and that without its ending."""
        return {self.id, Path(self.id).name, Path(self.id).stem} if self.path else {self.id}


@dataclass(frozen=True)
class Question:
    text: str
    relevant: dict[str, float]  # grade by name of document
    answers: tuple[str, ...] = ()


@dataclass
class Problems:
    """What was passed over, so that a set that does not fit is seen."""

    lines: list[str] = field(default_factory=list)


def read_documents(path: Path) -> list[Source]:
    if path.is_dir():
        files = (each for each in sorted(path.rglob("*")) if each.is_file() and not each.name.startswith("."))
        return [Source(each.relative_to(path).as_posix(), path=each) for each in files]
    sources = []
    for row in _rows(path):
        text = _first(row, TEXTS)
        if text:
            sources.append(Source(str(_first(row, IDS)), str(row.get("title") or ""), str(text)))
    return sources


def read_questions(path: Path, problems: Problems) -> list[Question]:
    questions = []
    for number, row in enumerate(_rows(path), 1):
        text, relevant = _first(row, QUESTIONS), _relevant(_first(row, RELEVANT))
        if not text or not relevant:
            problems.lines.append(f"question {number} names no {'document' if text else 'question'}")
            continue
        questions.append(Question(str(text), relevant, _answers(_first(row, ANSWERS))))
    return questions


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.suffix in (".csv", ".tsv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".json":
        loaded = json.loads(path.read_text())
        yield from loaded if isinstance(loaded, list) else loaded.get("data", loaded.values())
    else:
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if line.strip():
                yield json.loads(line)


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "", [], {})), None)


def _relevant(value: Any) -> dict[str, float]:
    if isinstance(value, str) and value.startswith(("[", "{")):
        value = json.loads(value)
    if isinstance(value, Mapping):
        return {str(name): float(grade) for name, grade in value.items() if float(grade) > 0}
    if isinstance(value, str):
        value = (
            [part.strip() for part in value.replace(";", ",").split(",")] if "," in value or ";" in value else [value]
        )
    if isinstance(value, int):
        value = [value]
    return {str(name): 1.0 for name in value or ()}


def _answers(value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        value = value.get("text")
    if isinstance(value, str) and value.startswith("["):
        value = json.loads(value)
    if value is None:
        return ()
    return tuple(str(each) for each in value) if isinstance(value, list) else (str(value),)
