"""Was nothing lost? By count, by the hash of every document, and by whether neighbours are still neighbours."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlmodel import Session, col, func, select

from terrace.errors import Missing
from terrace.knowledge import texts
from terrace.knowledge.base import Filter
from terrace.knowledge.health.base import InspectedIndex
from terrace.knowledge.tables import ChunkRow, DocumentRow, TagRow
from terrace.moving.mongo_qdrant import store
from terrace.moving.mongo_qdrant.base import Check, Counts, Fit
from terrace.moving.mongo_qdrant.fitting import units
from terrace.moving.mongo_qdrant.preparing import content
from terrace.moving.mongo_qdrant.staging import Staging
from terrace.moving.mongo_qdrant.tables import ImportedRow
from terrace.storage import Blobs, Database
from terrace.types import Scope

PAGE = 100  # documents looked at in one transaction
QUESTIONS = 50  # vectors whose neighbours are compared
NEAREST = 10
TIE = 0.002  # cosines this close may change places: vectors are kept in half precision
ENOUGH = 0.9  # of the neighbours there must be neighbours here: searches are not exact, and odd vectors odder
ALIKE = 0.999  # cosine of a vector here to the one that came
HASHES = 2000  # of texts in one question to the database
PIECE = 20_000  # vectors compared at a time
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Kept:
    """A document as it is here."""

    row: DocumentRow
    tags: tuple[str, ...]
    chunks: tuple[ChunkRow, ...]


class Verifier:
    def __init__(self, database: Database, blobs: Blobs, index: InspectedIndex, staging: Staging) -> None:
        self._database = database
        self._blobs = blobs
        self._index = index
        self._staging = staging

    async def verify(self, scope: Scope, import_id: str, coming: Counts, fit: Fit) -> list[Check]:
        checks = [await self._counted(scope, import_id, coming), await self._hashed(scope, import_id)]
        if fit.kind != "none":
            checks.append(await self._vectors(scope, import_id, fit.key))
            checks.append(await self._neighbours(scope, import_id, fit.key))
        return checks

    async def _counted(self, scope: Scope, import_id: str, coming: Counts) -> Check:
        came = await self._database.read(store.came, scope, import_id)
        here = await self._database.read(store.were_here, scope, import_id)
        good = (came.documents + here.documents, came.chunks + here.chunks) == (coming.documents, coming.chunks)
        told = f"{came.documents:,} of {coming.documents:,} documents and {came.chunks:,} of {coming.chunks:,} passages"
        rest = f"; {here.documents:,} documents were here already" if here.documents else ""
        return Check("count", good, f"{told} came{rest}.")

    async def _hashed(self, scope: Scope, import_id: str) -> Check:
        """Files and passages as they are here, against what the source had."""
        wrong: list[str] = []
        looked = 0
        async for page in self._pages(scope, import_id):
            mine = [each for each in page if each.document_id]
            kept = await self._database.read(_kept, scope, [each.document_id for each in mine])
            for each in mine:
                looked += 1
                if not (found := kept.get(each.document_id)) or not await self._same(each, found):
                    wrong.append(each.source_id)
        if wrong:
            return Check("content", False, f"{len(wrong):,} documents differ, such as {', '.join(wrong[:EXAMPLES])}.")
        return Check("content", True, f"{looked:,} documents have the hash of what was read.")

    async def _same(self, each: ImportedRow, kept: Kept) -> bool:
        try:
            digest = sha256(await self._blobs.read(kept.row.blob)).hexdigest()
            text = await self._text(kept) if each.chunks else ""
        except Missing:
            return False
        chunks = [] if not each.chunks else [(row.text, row.page, tuple(row.headings)) for row in kept.chunks]
        placed = not each.chunks or all(text[row.start_char : row.end_char] == row.text for row in kept.chunks)
        return placed and digest == kept.row.sha256 and each.content == content(
            digest, kept.row.source_url, kept.tags, chunks
        )  # fmt: skip

    async def _text(self, kept: Kept) -> str:
        if kept.row.text_blob is None:
            raise Missing("The document has no text.", code="text_missing")
        return texts.decode(await self._blobs.read(kept.row.text_blob), texts.width_in(kept.row.text_blob))

    async def _vectors(self, scope: Scope, import_id: str, key: str) -> Check:
        """As many for each document, and each the one that came (but for half precision)."""
        here: Counter[str] = Counter()
        after = 0
        while True:
            after, documents, _ = await self._database.read(self._index.vectors_after, scope, key, after, PIECE)
            if not documents:
                break
            here.update(documents)
        wrong: list[str] = []
        total = 0
        async for page in self._pages(scope, import_id):
            mine = [each for each in page if each.document_id]
            total += sum(each.vectors for each in mine)
            short = {each.source_id for each in mine if here[each.document_id] < each.vectors}
            wrong += sorted(short | await self._turned(scope, key, mine))
        if wrong:
            return Check("vectors", False, f"{len(wrong):,} documents lack vectors or have others, such as {wrong[0]}.")
        return Check("vectors", True, f"{total:,} vectors are those that came, kept as {key}.")

    async def _turned(self, scope: Scope, key: str, page: Sequence[ImportedRow]) -> set[str]:
        """Documents of which a vector is another one than came. A text that stands here twice may have either's."""
        kept = await self._database.read(self._vectors_here, scope, key, [each.document_id for each in page])
        there = await asyncio.to_thread(lambda: [self._staging.whole(each.source_id).vectors for each in page])
        return {
            each.source_id for each, came in zip(page, there, strict=True) if not _alike(kept[each.document_id], came)
        }

    def _vectors_here(self, session: Session, scope: Scope, key: str, documents: Sequence[str]) -> dict[str, list[Any]]:
        """By document, its passages in their order; None for those whose text is here more than once."""
        query = select(ChunkRow.document_id, ChunkRow.text_sha256).where(
            ChunkRow.tenant_id == scope.tenant, col(ChunkRow.document_id).in_(documents)
        )
        rows = session.exec(query.order_by(col(ChunkRow.document_id), col(ChunkRow.ordinal))).all()
        known: dict[str, Any] = {}
        hashes = sorted({digest for _, digest in rows})
        for at in range(0, len(hashes), HASHES):
            single = _once(session, scope, hashes[at : at + HASHES])
            known |= self._index.known_vectors(session, scope, key, single)
        found: dict[str, list[Any]] = {document: [] for document in documents}
        for document, digest in rows:
            found[document].append(known.get(digest))
        return found

    # -- neighbours

    async def _neighbours(self, scope: Scope, import_id: str, key: str) -> Check:
        """Of sampled vectors, the nearest there (exactly, over all that was read) and here (as a search finds them)."""
        asked = await asyncio.to_thread(self._staging.sample, QUESTIONS)
        if not asked:
            return Check("neighbours", True, "There are no vectors to compare.")
        there = await asyncio.to_thread(_nearest, self._staging, [vector for _, _, vector in asked])
        wanted = sorted({chunk for found in there for chunk, _ in found})
        ids = await self._here(scope, import_id, wanted)
        questions = units([vector for _, _, vector in asked])
        shares = [
            await self._share(scope, key, question, found, ids)
            for question, found in zip(questions, there, strict=True)
        ]
        shared = [each for each in shares if each is not None]
        overlap = sum(shared) / len(shared) if shared else 1.0
        told = f"{len(shared)} sampled vectors have {overlap:.1%} of their {NEAREST} nearest in common."
        return Check("neighbours", overlap >= ENOUGH, told)

    async def _share(
        self, scope: Scope, key: str, question: Any, there: Sequence[tuple[str, float]], numbers: dict[str, int]
    ) -> float | None:
        """How many of those nearest there a search here finds; None where all of them were here before."""
        wanted = {numbers[chunk]: cosine for chunk, cosine in there if chunk in numbers}
        if not wanted:
            return None
        # Others of the tenant may come between, and those that tie take each other's place.
        found = await self._index.search(scope, "", question, model=key, k=5 * NEAREST, filter=Filter())
        seen = {each.number for each in found}
        edge = min((each.vector_score or 0.0 for each in found), default=1.0)
        hits = sum(chunk in seen or cosine <= edge + TIE for chunk, cosine in wanted.items())
        return hits / len(wanted)

    async def _here(self, scope: Scope, import_id: str, chunks: Sequence[str]) -> dict[str, int]:
        """The numbers of passages here by their ids there."""
        places = await asyncio.to_thread(self._staging.places, chunks)
        sources = sorted({document for document, _ in places.values()})
        documents = await self._database.read(store.by_source, scope, import_id, sources)
        by_place = await self._database.read(_at_places, scope, list(documents.values()))
        return {
            chunk: by_place[documents[source], place]
            for chunk, (source, place) in places.items()
            if source in documents and (documents[source], place) in by_place
        }

    # -- rows

    async def _pages(self, scope: Scope, import_id: str) -> AsyncIterator[Sequence[ImportedRow]]:
        after = ""
        while page := await self._database.read(store.page, scope, import_id, after, PAGE):
            yield page
            after = page[-1].source_id

    async def _rows(self, scope: Scope, import_id: str) -> AsyncIterator[ImportedRow]:
        async for page in self._pages(scope, import_id):
            for each in page:
                yield each


def _nearest(staging: Staging, questions: Sequence[bytes]) -> list[list[tuple[str, float]]]:
    """The nearest of each by cosine, itself among them."""
    import numpy as np

    asked = units(questions)
    best: list[list[tuple[str, float]]] = [[] for _ in questions]
    for piece in staging.all_vectors(PIECE):
        cosines = asked @ units([vector for _, vector in piece]).T
        take = min(NEAREST, len(piece))
        tops = np.argpartition(-cosines, take - 1, axis=1)[:, :take]
        for place, top in enumerate(tops):
            found = best[place] + [(piece[at][0], float(cosines[place, at])) for at in top]
            best[place] = sorted(found, key=lambda pair: -pair[1])[:NEAREST]
    return best


def _once(session: Session, scope: Scope, hashes: Sequence[str]) -> list[str]:
    """Those of the texts that one passage alone has."""
    query = select(ChunkRow.text_sha256).where(
        ChunkRow.tenant_id == scope.tenant, col(ChunkRow.text_sha256).in_(hashes)
    )
    return list(session.exec(query.group_by(col(ChunkRow.text_sha256)).having(func.count() == 1)))


def _alike(kept: Sequence[Any], came: Sequence[bytes | None]) -> bool:
    """Passage by passage, where both have one."""
    import numpy as np

    pairs = [
        (mine, theirs) for mine, theirs in zip(kept, came, strict=False) if mine is not None and theirs is not None
    ]
    if not pairs:
        return True
    mine = np.stack([each for each, _ in pairs])
    theirs = units([each for _, each in pairs])
    cosines = np.sum(mine * theirs, axis=1) / np.linalg.norm(mine, axis=1)
    return bool(cosines.min() > ALIKE)


def _kept(session: Session, scope: Scope, ids: Sequence[str]) -> dict[str, Kept]:
    mine = (DocumentRow.tenant_id == scope.tenant, col(DocumentRow.id).in_(ids))
    rows = {row.id: row for row in session.exec(select(DocumentRow).where(*mine))}
    tags: dict[str, list[str]] = {id: [] for id in ids}
    chunks: dict[str, list[ChunkRow]] = {id: [] for id in ids}
    tagged = select(TagRow).where(TagRow.tenant_id == scope.tenant, col(TagRow.document_id).in_(ids))
    for tag in session.exec(tagged):
        tags[tag.document_id].append(tag.tag)
    query = select(ChunkRow).where(ChunkRow.tenant_id == scope.tenant, col(ChunkRow.document_id).in_(ids))
    for chunk in session.exec(query.order_by(col(ChunkRow.document_id), col(ChunkRow.ordinal))):
        chunks[chunk.document_id].append(chunk)
    session.expunge_all()
    return {id: Kept(row, tuple(tags[id]), tuple(chunks[id])) for id, row in rows.items()}


def _at_places(session: Session, scope: Scope, documents: Sequence[str]) -> dict[tuple[str, int], int]:
    query = select(ChunkRow.document_id, ChunkRow.ordinal, ChunkRow.number).where(
        ChunkRow.tenant_id == scope.tenant, col(ChunkRow.document_id).in_(documents)
    )
    rows = session.exec(query)
    return {(document, ordinal): number for document, ordinal, number in rows if number is not None}
