"""A small source of documents in the shapes that MongoDB and Qdrant leave behind, and a house to bring them to."""

import gzip
import json
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId, encode

from terrace import settings
from terrace.jobs.engines.local import LocalJobs
from terrace.jobs.processes import Processes
from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.hashing import HashEmbedder
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.generations.serving import ServingEmbedder
from terrace.knowledge.index import open_index
from terrace.knowledge.ingest import Ingest
from terrace.knowledge.parsers import FileParser
from terrace.knowledge.search import Search
from terrace.knowledge.tasks import job_kinds
from terrace.moving.mongo_qdrant.house import House, Source
from terrace.moving.mongo_qdrant.mapping import checked
from terrace.moving.mongo_qdrant.service import Imports
from terrace.moving.mongo_qdrant.sources.opening import open_documents, open_points
from terrace.storage import Database
from terrace.storage.blobs import MemoryBlobs
from terrace.types import Scope

TOPICS = ["harbour cranes", "glacier water", "copper bells", "paper kites", "winter wheat", "night trains"]
NAMESPACE = "7c2b9a52-5a3f-4f0e-9d0a-{:012d}"


class Model(HashEmbedder):
    """As many models as there are names: what one makes, another doesn't understand."""

    def __init__(self, name: str, width: int = 64) -> None:
        super().__init__(width)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def embed(self, texts: Any, *, query: bool = False, scope: Scope | None = None) -> Any:
        return await super().embed([" ".join(f"{self._name}{word}" for word in text.split()) for text in texts])


@dataclass
class Records:
    """Documents, passages and points as the other system keeps them."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    async def made(cls, count: int = 12, model: str = "first", width: int = 64) -> "Records":
        records = cls()
        for number in range(count):
            topic = TOPICS[number % len(TOPICS)]
            paragraphs = [
                f"Paragraph {part} of report {number} tells of {topic} and {part * 7 + number}." for part in range(3)
            ]
            id = ObjectId(f"{number:024x}")
            records.documents.append({
                "_id": id, "title": f"Report {number}", "filename": f"report-{number}.txt",
                "text": "\n\n".join(paragraphs), "tags": ["Reports", topic], "author": {"name": "Ada", "age": number},
                "url": f"https://example.org/{number}", "created_at": datetime(2024, 5, 1 + number % 28, tzinfo=UTC),
            })  # fmt: skip
            for part, text in enumerate(paragraphs):
                point = NAMESPACE.format(number * 10 + part)
                records.chunks.append({
                    "_id": point, "document_id": id, "text": text, "chunk_index": part, "page": part + 1,
                    "headings": f"Part {part // 2} > Section {part}",
                })  # fmt: skip
        vectors = await Model(model, width).embed([each["text"] for each in records.chunks])
        for chunk, vector in zip(records.chunks, vectors, strict=True):
            payload = {
                "document_id": str(chunk["document_id"]),
                "text": chunk["text"],
                "chunk_index": chunk["chunk_index"],
            }
            records.points.append(
                {"id": chunk["_id"], "vector": [float(each) * 3 for each in vector], "payload": payload}
            )
        return records

    def dump(self, folder: Path, *, zipped: bool = False, **more: list[dict[str, Any]]) -> Path:
        """As mongodump writes a folder."""
        (folder / "app").mkdir(parents=True)
        for name, rows in {"documents": self.documents, "chunks": self.chunks, **more}.items():
            data = b"".join(map(encode, rows))
            path = folder / "app" / (f"{name}.bson.gz" if zipped else f"{name}.bson")
            path.write_bytes(gzip.compress(data) if zipped else data)
            (folder / "app" / f"{name}.metadata.json").write_text("{}")
        return folder

    def archive(self, path: Path, *, zipped: bool = False) -> Path:
        """As `mongodump --archive` writes it: blocks of collections take turns."""
        end = struct.pack("<I", 0xFFFFFFFF)
        named = {"documents": self.documents, "chunks": self.chunks}
        out = struct.pack("<I", 0x8199E26D) + encode(
            {"version": "0.1", "server_version": "7.0.0", "tool_version": "100"}
        )
        for name in named:
            out += encode({"db": "app", "collection": name, "metadata": "{}", "size": 1, "type": "collection"})
        out += end
        for start in range(0, max(map(len, named.values())), 5):
            for name, rows in named.items():
                if rows[start : start + 5]:
                    out += encode({"db": "app", "collection": name, "EOF": False, "CRC": 0})
                    out += b"".join(map(encode, rows[start : start + 5])) + end
        for name in named:
            out += encode({"db": "app", "collection": name, "EOF": True, "CRC": 7}) + end
        path.write_bytes(gzip.compress(out) if zipped else out)
        return path

    def lines(self, path: Path) -> Path:
        path.write_text("".join(json.dumps(each) + "\n" for each in self.points))
        return path

    def local(self, folder: Path, **options: Any) -> Path:
        """As qdrant-client's local mode keeps it."""
        from qdrant_client import QdrantClient, models

        client = QdrantClient(path=str(folder))
        width = len(self.points[0]["vector"])
        params = models.VectorParams(size=width, distance=models.Distance.COSINE)
        name = options.get("vector", "")
        client.create_collection("points", vectors_config={name: params} if name else params)
        for each in self.points:
            vector = {name: each["vector"]} if name else each["vector"]
            client.upsert("points", [models.PointStruct(id=each["id"], payload=each["payload"], vector=vector)])
        client.close()
        return folder


MAPPING: dict[str, Any] = {
    "collection": "Moved",
    "documents": {
        "collection": "app.documents", "name": "filename", "text": "text", "url": "url", "created": "created_at",
        "tags": ["tags"],
    },
    "chunks": {
        "source": "mongo", "collection": "app.chunks", "order": "chunk_index", "page": "page", "headings": "headings",
    },
    "vectors": {"collection": "points", "model": "first"},
}  # fmt: skip


class Home:
    """A house of models `first` (64), `second` (64) and `third` (32), the first of them in the settings."""

    def __init__(self, database: Database, folder: Path, index: Any, processes: Processes) -> None:
        self.database = database
        self.folder = folder
        self.index = index
        self.blobs: Any = MemoryBlobs()
        self.models: dict[str, Any] = {"first": Model("first"), "second": Model("second"), "third": Model("third", 32)}
        self.jobs = LocalJobs(database, settings.Jobs(cpu_slots=3, backoff=0.01))
        options = settings.Embedding(model="first", precision="fp32")
        self.serving = ServingEmbedder(self.models["first"])
        self.generations = Generations(
            database, self.jobs, index, self.serving, options, lambda each: self.open(each.model)
        )
        self.search = Search(database, index, self.serving)
        parser = FileParser(settings.Knowledge(), processes)
        for kind in job_kinds(Ingest(database, self.blobs, parser, index, self.serving)):
            self.jobs.register(kind)
        self.jobs.register(self.generations.builder.kind())

    @property
    def house(self) -> House:
        return House(
            self.database, self.blobs, self.index, self.jobs, self.generations,
            opener=lambda setting, precision: self.open(setting), configured="first", folder=self.folder,
        )  # fmt: skip

    @property
    def imports(self) -> Imports:
        """As another start of the command would have it."""
        return Imports(self.house)

    def open(self, setting: str) -> Any:
        return self.models.get(setting) or AbsentEmbedder(setting, f"{setting} is away.")

    def source(self, mongo: Path | None, qdrant: Path | None, mapping: dict[str, Any] | None = None) -> Source:
        return Source(
            checked(mapping or MAPPING, "test"),
            open_documents(str(mongo)) if mongo else None,
            open_points(str(qdrant)) if qdrant else None,
            {"mongo": str(mongo), "qdrant": str(qdrant)},
        )

    async def found(self, scope: Scope, query: str, k: int = 5) -> list[Any]:
        return list((await self.search.search(scope, query, k=k)).hits)


@pytest.fixture
async def records() -> Records:
    return await Records.made()


@pytest.fixture(scope="session")
def processes() -> Iterator[Processes]:
    import asyncio

    processes = Processes(1)
    yield processes
    asyncio.run(processes.close())


@pytest.fixture
async def home(database: Database, tmp_path: Path, processes: Processes) -> AsyncIterator[Home]:
    index: Any = open_index(database)
    home = Home(database, tmp_path / "imports", index, processes)
    await home.generations.start()
    yield home
    await home.generations.close()
    await home.jobs.close()
    await index.close()
