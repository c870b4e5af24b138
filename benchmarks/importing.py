"""What an import costs.

    python -m benchmarks.importing                       made-up passages and vectors, into SQLite
    python -m benchmarks.importing --postgresql          into a private PostgreSQL
    python -m benchmarks.importing --texts passages.txt  real ones and their embeddings; one passage a line

Vectors of 384 dimensions, twenty to a document, from a dump of MongoDB and points as JSON lines: the wait, the
processor's time (PostgreSQL's in it) and the memory, verification and graph of vectors included. Made-up vectors, where
few are near each other, take half as long again for their graph. Reference in the same run: reading the same source,
every record decoded and thrown away. Ends with 1 if the budget is missed.
"""

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from bson import ObjectId, encode

from benchmarks.retrieval import private_postgresql, spent
from benchmarks.retrieval_corpus import embedded
from terrace import settings
from terrace.jobs.engines.local import LocalJobs
from terrace.knowledge.embedding import open_embedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.generations.serving import ServingEmbedder
from terrace.knowledge.index import open_index
from terrace.moving.mongo_qdrant.house import House, Source
from terrace.moving.mongo_qdrant.mapping import checked
from terrace.moving.mongo_qdrant.service import Imports
from terrace.moving.mongo_qdrant.sources.opening import open_documents, open_points
from terrace.storage import Database, FolderBlobs, SQLiteDatabase
from terrace.storage.migrate import migrate
from terrace.storage.postgresql import PostgreSQLDatabase
from terrace.types import Scope

CHUNKS = 100_000
EACH = 20  # passages of a document
DIMENSIONS = 384
BUDGET = 180.0  # s of processor for 100,000 passages
MAPPING: dict[str, Any] = {
    "documents": {"collection": "app.documents"},
    "chunks": {"source": "mongo", "collection": "app.chunks", "order": "n"},
    "vectors": {"collection": "points"},
}


Vectors = Callable[[str], Any]
"""The vector of a passage's text."""


class Known(HashEmbedder):
    """The model that made the vectors which come along."""

    def __init__(self, vector_of: Vectors) -> None:
        super().__init__(DIMENSIONS)
        self._vector_of = vector_of

    async def embed(self, texts: Sequence[str], *, query: bool = False, scope: Scope | None = None) -> Any:
        return np.stack([self._vector_of(text) for text in texts])


def made_up(chunks: int) -> tuple[list[str], Vectors]:
    """Words evenly drawn; vectors near those of the same document, as of passages about one thing, far from others."""
    words = [f"word{number}" for number in range(5000)]
    choose = np.random.default_rng(1)

    def vector_of(text: str) -> Any:
        vector = 0.8 * drawn(text.partition(".")[0]) + 0.6 * drawn(text)
        return vector / np.linalg.norm(vector)

    return [" ".join(words[at] for at in choose.integers(0, 5000, 80)) for _ in range(chunks)], vector_of


async def real(folder: Path, chunks: int, path: Path) -> tuple[list[str], Vectors]:
    embedder = open_embedder(settings.Embedding(), folder)
    corpus = await embedded(embedder, path, chunks)
    await embedder.close()
    vectors = corpus.stored / np.linalg.norm(corpus.stored, axis=1, keepdims=True)
    return corpus.passages, lambda text: vectors[place_of(text)]


def place_of(text: str) -> int:
    number, part = text.partition(":")[0].split(".")
    return int(number) * EACH + int(part)


def drawn(text: str) -> Any:
    seed = int.from_bytes(sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS, np.float32)
    return vector / np.linalg.norm(vector)


def write_source(folder: Path, passages: Sequence[str], vector_of: Vectors) -> tuple[Path, Path]:
    (folder / "dump" / "app").mkdir(parents=True)
    with (
        (folder / "dump" / "app" / "documents.bson").open("wb") as documents,
        (folder / "dump" / "app" / "chunks.bson").open("wb") as parts,
        (folder / "points.jsonl").open("w") as points,
    ):
        for place, passage in enumerate(passages):
            number, part = divmod(place, EACH)
            id = ObjectId(f"{number:024x}")
            if not part:
                documents.write(encode({"_id": id, "title": f"Document {number}", "kind": "report"}))
            text = f"{number}.{part}: {passage}"
            parts.write(encode({"_id": place, "document_id": id, "text": text, "n": part}))
            vector = [round(float(each), 6) for each in vector_of(text)]
            points.write(json.dumps({"id": place, "vector": vector, "payload": {"document_id": str(id)}}) + "\n")
    return folder / "dump", folder / "points.jsonl"


@contextmanager
def measured(name: str, chunks: int, took: dict[str, float]) -> Any:
    wall, cpu, own = time.perf_counter(), spent(), time.process_time()
    yield
    took[name], own = spent() - cpu, time.process_time() - own
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rate = chunks / took[name]
    wait = time.perf_counter() - wall
    print(f"{name:34}{took[name]:10.1f}{took[name] - own:14.1f}{wait:10.1f}{rate:12,.0f}{peak:10.0f}", flush=True)


@asynccontextmanager
async def opened(folder: Path, url: str) -> AsyncIterator[Database]:
    database: Database
    if url:
        database = PostgreSQLDatabase(url)
    else:
        database = SQLiteDatabase(folder / "terrace.db")
        await database.write(lambda session: migrate(session.connection()))
    yield database
    await database.close()


async def main(chunks: int, url: str, texts: Path | None) -> bool:
    took: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        passages, vector_of = made_up(chunks) if texts is None else await real(folder, chunks, texts)
        chunks = len(passages)
        dump, points = await asyncio.to_thread(write_source, folder, passages, vector_of)
        heads = f"{'CPU s':>10}{'PostgreSQL s':>14}{'wait s':>10}{'/ CPU s':>12}{'peak MB':>10}"
        print(f"{chunks:,} passages\n{'':34}{heads}", flush=True)
        with measured("reading alone (reference)", chunks, took):
            async for _ in open_documents(str(dump)).read("app.chunks"):
                pass
            async for _ in open_points(str(points)).read("points"):
                pass
        async with opened(folder, url) as database:
            good = await brought(folder, database, Known(vector_of), dump, points, chunks, took)
    bound = BUDGET * chunks / CHUNKS
    good = good and took["import, verified"] <= bound
    print(f"budget {bound:.0f} s of CPU: {'held' if good else 'MISSED'}")
    return good


async def brought(
    folder: Path, database: Database, model: Known, dump: Path, points: Path, chunks: int, took: dict[str, float]
) -> bool:
    index, jobs = open_index(database), LocalJobs(database, settings.Jobs())
    options = settings.Embedding(model="random")
    generations = Generations(database, jobs, index, ServingEmbedder(model), options, lambda _: model)
    await generations.start()
    blobs = FolderBlobs(folder / "blobs")
    house = House(database, blobs, index, jobs, generations, lambda *_: model, "random", folder / "imports")
    imports = Imports(house)
    source = Source(checked(MAPPING, "mapping"), open_documents(str(dump)), open_points(str(points)), {})
    with measured("dry run", chunks, took):
        await imports.plan(Scope(), source)
    with measured("import, verified", chunks, took):
        report = await imports.run(Scope(), source)
    with measured("rollback", chunks, took):
        await imports.rollback(Scope(), report.id)
    print(*(f"{each.name}: {each.told}" for each in report.checks), sep="\n")
    await generations.close()
    await jobs.close()
    await index.close()
    return report.state == "verified"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chunks", type=int, nargs="?", default=CHUNKS)
    parser.add_argument("--postgresql", action="store_true")
    parser.add_argument("--texts", type=Path, help="a file of passages, one a line, instead of made-up ones")
    asked = parser.parse_args()
    with ExitStack() as stack:
        address = stack.enter_context(private_postgresql()).create() if asked.postgresql else ""
        sys.exit(0 if asyncio.run(main(asked.chunks, address, asked.texts)) else 1)
