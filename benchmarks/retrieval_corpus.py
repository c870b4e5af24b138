"""What the search benchmark stores, asks and filters by."""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import insert, text
from sqlmodel import Session

from benchmarks.quality import SAMPLES
from terrace.knowledge.base import Chunk, Filter, Index, IndexedChunk, Span
from terrace.knowledge.sentences import sentence_spans
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow, TagRow
from terrace.types import Scope

SCOPE = Scope()
ASKED = 200
PER_DOCUMENT = 20
PIECE = 10_000
SEED = 11
TAGS = {"fiftieth": 50, "tenth": 10, "fifth": 5, "half": 2}
TOPIC = 5  # one document in so many is in the collection about one topic


class Corpus:
    """Vectors and the passages they are of, if any; the last fifth are about one topic, the others about anything.

    A filter by topic is the hard case of a search in a graph: what is near most questions does not pass.
    """

    def __init__(self, passages: Sequence[str], stored: Any, asked: Any, questions: Sequence[str]) -> None:
        near = stored @ stored[random.Random(SEED).randrange(len(stored))]
        topic = np.zeros(len(stored), bool)
        topic[np.argpartition(near, -(len(stored) // TOPIC))[-(len(stored) // TOPIC) :]] = True
        order = np.argsort(topic, kind="stable")
        self.stored = stored[order]
        self.passages = [passages[place] for place in order] if passages else []
        self.asked, self.questions = asked, questions


class Narrowing(NamedTuple):
    """A filter as the API takes it. `passes`: of document numbers and how many there are, which pass."""

    name: str
    filter: Filter
    passes: Callable[[Any, int], Any]


def narrowings(documents: int) -> list[Narrowing]:
    """None first; each kind there is, of few documents and of many."""
    named = tuple(_document_id(number) for number in range(0, documents, 50))[:100]

    def each(every: int) -> Callable[[Any, int], Any]:
        return lambda numbers, _: numbers % every == 0

    return [
        Narrowing("", Filter(), lambda numbers, _: numbers >= 0),
        Narrowing(f"{len(named)} documents", Filter(documents=named), lambda n, _: (n % 50 == 0) & (n < 5000)),
        *(Narrowing(f"a tag of one in {every}", Filter(tags=(tag,)), each(every)) for tag, every in TAGS.items()),
        Narrowing(f"a topic of one in {TOPIC}", Filter(collections=("topic",)), _on_topic),
        Narrowing("all but the topic", Filter(collections=("others",)), lambda n, all: ~_on_topic(n, all)),
    ]


def _on_topic(numbers: Any, documents: int) -> Any:
    return numbers >= documents - documents // TOPIC


def recall(corpus: Corpus, found: Sequence[set[int]], narrowing: Narrowing, k: int) -> float:
    """Against a plain scan of what passes."""
    numbers = np.arange(len(corpus.stored))
    allowed = numbers[narrowing.passes(numbers // PER_DOCUMENT, len(corpus.stored) // PER_DOCUMENT)]
    stored = corpus.stored if len(allowed) == len(numbers) else corpus.stored[allowed]
    right = 0
    for vector, mine in zip(corpus.asked, found, strict=True):
        right += len(mine & set(allowed[np.argpartition(stored @ vector, -k)[-k:]].tolist()))
    return right / (k * len(corpus.asked))


def sentences() -> list[str]:
    texts = [path.read_text() for path in sorted((SAMPLES / "documents").iterdir())]
    return [text[start:end] for text in texts for start, end in sentence_spans(text)]


def questions() -> list[str]:
    return [json.loads(line)["question"] for line in (SAMPLES / "questions.jsonl").read_text().splitlines()]


def texts(rows: int) -> list[str]:
    """Passages of six sentences each, drawn at random."""
    rng, pool = random.Random(SEED), sentences()
    return [" ".join(rng.choices(pool, k=6)) for _ in range(rows)]


def mixed(real: Any, asked: Any, rows: int) -> Corpus:
    stored, rng = np.empty((rows, real.shape[1]), np.float32), np.random.default_rng(SEED)
    for first in range(0, rows, PIECE):
        stored[first : first + PIECE] = _mixtures(real, min(PIECE, rows - first), rng)
    return Corpus([], stored, asked, [])


def _mixtures(real: Any, rows: int, rng: Any) -> Any:
    """float32 (rows, width): each two real embeddings and some noise of their own spread, made unit."""
    share = rng.uniform(0.3, 1.0, (rows, 1)).astype(np.float32)
    pairs = rng.integers(len(real), size=(2, rows))
    noise = rng.normal(size=(rows, real.shape[1])).astype(np.float32) * real.std(0) * 0.7
    mixed = share * real[pairs[0]] + (1 - share) * real[pairs[1]] + noise
    return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


async def embedded(embedder: Any, path: Path, rows: int) -> Corpus:
    """The last lines are the questions. Embeddings are kept beside the texts: they take minutes to make."""
    lines = (await asyncio.to_thread(path.read_text)).splitlines()[: rows + ASKED]
    kept = path.with_suffix(".npy")
    if not await asyncio.to_thread(kept.exists):
        print(f"embedding {len(lines):,} lines of {path}", flush=True)
        pieces = [await embedder.embed(lines[first : first + PIECE]) for first in range(0, len(lines), PIECE)]
        np.save(kept, np.concatenate(pieces).astype(np.float16))
    made = np.load(kept)[: len(lines)].astype(np.float32)
    rows = len(lines) - ASKED
    return Corpus(lines[:rows], made[:rows], made[rows:], lines[rows:])


# -- writing it


def put(session: Session, index: Index, first: int, passages: Sequence[str], rows: int) -> list[str]:
    """Passages from `first` on, of so many in all, with their documents; the ids."""
    _documents(session, first, len(passages), rows // PER_DOCUMENT)
    places = range(first, first + len(passages))
    made: list[dict[str, Any]] = [
        {
            "id": f"chk_{place:026}", "tenant_id": SCOPE.tenant, "document_id": _document_id(place // PER_DOCUMENT),
            "ordinal": place, "start_char": 0, "end_char": 1, "text": text, "headings": [], "text_sha256": str(place),
        }
        for place, text in zip(places, passages, strict=True)
    ]  # fmt: skip
    session.execute(insert(ChunkRow), made)
    chunks = [
        IndexedChunk(row["id"], row["document_id"], "", "", Chunk(0, Span(0, 1), text, None))
        for row, text in zip(made, passages, strict=True)
    ]
    index.add_text(session, SCOPE, chunks)
    return [row["id"] for row in made]


def places(session: Session) -> dict[int, int]:
    """Of the passages, by the numbers of their chunks."""
    return {number: int(id[4:]) for number, id in session.execute(text("SELECT number, id FROM chunks"))}


def _document_id(number: int) -> str:
    """As long as real ones."""
    return f"doc_{number:026}"


def _documents(session: Session, first: int, chunks: int, documents: int) -> None:
    """One for each twenty chunks; the fiftieth, tenth, fifth and second of them are tagged so."""
    if not first:
        for name in ("topic", "others"):
            row = {"id": f"col_{name}", "tenant_id": SCOPE.tenant, "name": name, "name_key": name, "created_at": 0}
            session.execute(insert(CollectionRow), row)
    numbers = range(first // PER_DOCUMENT, -(-(first + chunks) // PER_DOCUMENT))
    session.execute(
        insert(DocumentRow),
        [
            {
                "id": _document_id(number), "tenant_id": SCOPE.tenant,
                "collection_id": "col_topic" if _on_topic(number, documents) else "col_others",
                "name": "d", "name_key": "d", "media_type": "text/plain", "bytes": 1, "sha256": str(number),
                "state": "ready", "searchable": "meaning", "chunk_count": PER_DOCUMENT, "warnings": [], "blob": "b",
                "created_at": 0, "updated_at": 0,
            }
            for number in numbers
        ],
    )  # fmt: skip
    tags = [(number, tag) for number in numbers for tag, each in TAGS.items() if number % each == 0]
    if tags:
        session.execute(
            insert(TagRow),
            [{"document_id": _document_id(n), "tag": tag, "tenant_id": SCOPE.tenant} for n, tag in tags],
        )
