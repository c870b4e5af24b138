"""How well questions find their documents and quotes hold their answers.

    python -m benchmarks.quality [DOCUMENTS QUESTIONS] [--model M] [--precision P] [--chunk-tokens N]

Documents go through the product's own parser, chunker, embedder, index and sentence ranker. Without arguments it
runs on the small set in benchmarks/samples. The forms of both files: benchmarks/quality_sets.py.
"""

import argparse
import asyncio
import math
import re
import tempfile
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlmodel import Session

from benchmarks.quality_sets import Problems, Question, Source, read_documents, read_questions
from terrace.errors import TerraceError
from terrace.jobs.processes import Processes
from terrace.knowledge.base import Chunk, Hit, IndexedChunk, Parsed
from terrace.knowledge.chunking import chunk
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.index import SQLiteIndex
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.quoting import QuotingRanker
from terrace.knowledge.search import Mode, Search
from terrace.knowledge.tables import ChunkRow, CollectionRow, DocumentRow
from terrace.models.base import Passage
from terrace.settings import Embedding, Knowledge
from terrace.storage import SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.types import Scope, new_id

SAMPLES = Path(__file__).parent / "samples"
SCOPE = Scope()
DEPTH = 50  # chunks looked at to rank documents
PASSAGES = 6  # given to the sentence ranker, as chat does
MODES: tuple[Mode, ...] = ("text", "vector", "hybrid")
BATCH = 256


@dataclass
class Library:
    """A library in a temporary folder, filled through the product's own parts."""

    database: SQLiteDatabase
    index: SQLiteIndex
    embedder: Any
    settings: Knowledge
    processes: Processes
    problems: Problems = field(default_factory=Problems)
    chunks: int = 0

    async def add(self, sources: Sequence[Source]) -> None:
        parser = FileParser(self.settings, self.processes)
        waiting: list[IndexedChunk] = []
        for source in sources:
            try:
                parsed, chunks = await self._read(parser, source)
            except TerraceError as error:
                self.problems.lines.append(f"{source.id}: {error.message}")
                continue
            waiting += await self.database.write(self._store, source, parsed, chunks)
            while len(waiting) >= BATCH:
                await self._embed(waiting[:BATCH])
                del waiting[:BATCH]
        await self._embed(waiting)

    async def _read(self, parser: FileParser, source: Source) -> tuple[Parsed, Sequence[Chunk]]:
        if source.path is not None:
            return await parser.parse(source.path, source.path.name)
        parsed = Parsed(unicodedata.normalize("NFKC", source.text), "text/plain", title=source.title)
        return parsed, chunk(parsed, self.settings.chunk_tokens)

    def _store(self, session: Session, source: Source, parsed: Parsed, chunks: Sequence[Chunk]) -> list[IndexedChunk]:
        """Rows as ingestion writes them; the document's id is the name questions call it by."""
        if session.get(CollectionRow, "col") is None:
            session.add(CollectionRow(id="col", tenant_id=SCOPE.tenant, name="set", name_key="set", created_at=0))
            session.flush()
        title = parsed.title or (Path(source.id).name if source.path else source.title)
        session.add(
            DocumentRow(
                id=source.id, tenant_id=SCOPE.tenant, collection_id="col", name=source.id, name_key=source.id,
                title=title, media_type=parsed.media_type, bytes=1, sha256=sha256(source.id.encode()).hexdigest(),
                blob="", created_at=0, updated_at=0,
            )
        )  # fmt: skip
        session.flush()
        indexed = [IndexedChunk(new_id("chk"), source.id, "col", title, each) for each in chunks]
        session.add_all(
            ChunkRow(
                id=each.id, tenant_id=SCOPE.tenant, document_id=source.id, ordinal=each.chunk.ordinal,
                start_char=each.chunk.span.start, end_char=each.chunk.span.end, page=each.chunk.page,
                headings=list(each.chunk.headings), title=title, text=each.chunk.text,
                text_sha256=sha256(each.chunk.text.encode()).hexdigest(),
            )
            for each in indexed
        )  # fmt: skip
        session.flush()
        self.index.add_text(session, SCOPE, indexed)
        self.chunks += len(indexed)
        return indexed

    async def _embed(self, chunks: Sequence[IndexedChunk]) -> None:
        if chunks and self.embedder.state().state != "absent":
            vectors = await self.embedder.embed([each.chunk.text for each in chunks])
            ids = [each.id for each in chunks]
            await self.database.write(self.index.add_vectors, SCOPE, self.embedder.name, ids, vectors)


@dataclass
class Scores:
    """Sums over questions."""

    questions: int = 0
    recall: dict[int, float] = field(default_factory=lambda: {1: 0.0, 5: 0.0, 10: 0.0})
    ndcg: float = 0.0

    def add(self, ranked: Sequence[str], relevant: dict[str, float]) -> None:
        self.questions += 1
        for k in self.recall:
            self.recall[k] += len(set(ranked[:k]) & relevant.keys()) / min(k, len(relevant))
        gained = sum(relevant.get(each, 0) / math.log2(place + 2) for place, each in enumerate(ranked[:10]))
        best = sorted(relevant.values(), reverse=True)[:10]
        self.ndcg += gained / sum(grade / math.log2(place + 2) for place, grade in enumerate(best))

    def line(self, name: str) -> str:
        values = [*self.recall.values(), self.ndcg]
        return f"{name:<22}" + "".join(f"{100 * value / max(1, self.questions):>11.1f}" for value in values)


@dataclass
class Quotes:
    questions: int = 0
    first: int = 0
    best_three: int = 0
    any: int = 0

    def add(self, sentences: Sequence[str], answers: Sequence[str]) -> None:
        holds = [any(plain(answer) in plain(each) for answer in answers) for each in sentences]
        self.questions += 1
        self.first += any(holds[:1])
        self.best_three += any(holds[:3])
        self.any += any(holds)


def plain(text: str) -> str:
    """What two spellings of one answer have in common."""
    return re.sub(r"\W+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()


def documents_of(hits: Sequence[Hit]) -> list[str]:
    return list(dict.fromkeys(hit.document_id for hit in hits))


def resolve(questions: Sequence[Question], sources: Sequence[Source], problems: Problems) -> list[Question]:
    """Questions with the ids of their documents instead of what the file called them."""
    ids = {key: source.id for source in sources for key in source.keys}
    resolved = []
    for question in questions:
        relevant = {ids[name]: grade for name, grade in question.relevant.items() if name in ids}
        if relevant:
            resolved.append(Question(question.text, relevant, question.answers))
        else:
            problems.lines.append(f"no document {', '.join(question.relevant)} for {question.text!r}")
    return resolved


async def measure(library: Library, questions: Sequence[Question]) -> tuple[dict[str, Scores], Quotes, float]:
    search = Search(library.database, library.index, library.embedder)
    ranker = QuotingRanker(library.embedder)
    absent = library.embedder.state().state == "absent"
    scores: dict[str, Scores] = {mode: Scores() for mode in MODES if mode == "text" or not absent}
    quotes, took = Quotes(), 0.0
    for question in questions:
        hits: list[Hit] = []
        for mode in scores:
            hits = (await search.search(SCOPE, question.text, k=DEPTH, mode=mode)).hits  # type: ignore[arg-type]
            scores[mode].add(documents_of(hits), question.relevant)
        if question.answers:
            passages = [Passage(n, hit.title, hit.text, hit.score) for n, hit in enumerate(hits[:PASSAGES], 1)]
            started = time.perf_counter()
            ranked = await ranker.rank(question.text, passages)
            took += time.perf_counter() - started
            quotes.add([each.text for each in ranked], question.answers)
    return scores, quotes, 1000 * took / max(1, quotes.questions)


async def run(options: argparse.Namespace) -> None:
    embedding = Embedding(model=options.model, precision=options.precision)
    settings = Knowledge(chunk_tokens=options.chunk_tokens, embedding=embedding)
    with tempfile.TemporaryDirectory() as folder:
        database = SQLiteDatabase(Path(folder) / "terrace.db", durability="normal")
        await database.write(lambda session: migrate(session.connection()))
        library = Library(
            database, SQLiteIndex(database), open_embedder(embedding, Path(folder)), settings, Processes(2)
        )
        try:
            sources = read_documents(options.documents)
            questions = resolve(read_questions(options.questions, library.problems), sources, library.problems)
            started = time.perf_counter()
            await library.add(sources)
            took = time.perf_counter() - started
            report(library, len(sources), took, *await measure(library, questions))
        finally:
            await library.embedder.close()
            await library.processes.close()
            await database.close()


def report(
    library: Library, documents: int, took: float, scores: dict[str, Scores], quotes: Quotes, quote_ms: float
) -> None:
    state = library.embedder.state()
    asked = scores["text"].questions
    print(f"{documents} documents, {library.chunks} chunks in {took:.1f} s; {asked} questions")
    print(f"embedding: {state.model} {state.why}\n")
    print(f"{'documents found, %':<22}{'recall@1':>11}{'recall@5':>11}{'recall@10':>11}{'nDCG@10':>11}")
    for mode, each in scores.items():
        print(each.line(mode))
    if quotes.questions:
        shares = [100 * count / quotes.questions for count in (quotes.first, quotes.best_three, quotes.any)]
        print(f"\nquote model, {quotes.questions} questions with answers, {quote_ms:.0f} ms each")
        print("the answer is in      " + "".join(f"{name:>16}" for name in ("first sentence", "best three", "any")))
        print(f"{'% of questions':<22}" + "".join(f"{share:>16.1f}" for share in shares))
    for line in library.problems.lines[:20]:
        print(f"passed over: {line}")
    if (more := len(library.problems.lines) - 20) > 0:
        print(f"passed over: {more} more")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, nargs="?", default=SAMPLES / "documents")
    parser.add_argument("questions", type=Path, nargs="?", default=SAMPLES / "questions.jsonl")
    parser.add_argument("--model", default=Embedding().model)
    parser.add_argument("--precision", default="int8", choices=("int8", "fp32"))
    parser.add_argument("--chunk-tokens", type=int, default=Knowledge().chunk_tokens)
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
