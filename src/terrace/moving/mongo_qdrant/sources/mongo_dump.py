"""What mongodump writes: a folder of BSON files, plain or gzipped, or one archive of them all.

The archive: a magic number and a document about it, a document for each collection, then blocks. A block is a
document that names a collection, followed by documents of it; four bytes of ones end the preamble and each block.
"""

import asyncio
import gzip
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from terrace.errors import Invalid, Missing, Unavailable, bring
from terrace.moving.mongo_qdrant.base import BATCH, Record

MAGIC = 0x8199E26D
END = 0xFFFFFFFF
MAX_DOCUMENT = 48 * 1024**2  # bytes; MongoDB itself takes 16 MB and a little
GZIP = b"\x1f\x8b"
SYSTEM = ("admin", "config", "local")


class MongoFolder:
    """`folder/database/collection.bson[.gz]`; the folder of one database alone will do."""

    def __init__(self, folder: Path) -> None:
        _decoder()
        self._files: dict[str, Path] = {}
        for path in sorted((*folder.glob("*/*.bson*"), *folder.glob("*.bson*"))):
            if path.name.endswith((".bson", ".bson.gz")) and path.parent.name not in SYSTEM:
                name = path.name.removesuffix(".gz").removesuffix(".bson")
                if not name.startswith("system.") and name != "oplog":
                    self._files[f"{path.parent.resolve().name}.{name}"] = path
        if not self._files:
            raise Missing(f"{folder} holds no dump: mongodump writes *.bson files into it.", code="source_missing")

    async def collections(self) -> Sequence[str]:
        return sorted(self._files)

    async def count(self, collection: str) -> int | None:
        return None

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Record]]:
        if (path := self._files.get(collection)) is None:
            known = ", ".join(sorted(self._files)[:20])
            raise Missing(f"The dump has no collection {collection}; it has {known}.", code="source_missing")

        def records() -> Iterator[Record]:
            with _opened(path) as file, _readable(path):
                while (data := _document(file, _word(file))) is not None:
                    yield data

        async for batch in batched(records(), limit):
            yield batch

    async def close(self) -> None:
        pass


class MongoArchive:
    """`mongodump --archive=FILE`, gzipped or not. Blocks of collections alternate, so each read goes through it all."""

    def __init__(self, path: Path) -> None:
        _decoder()
        self._path = path
        self._names: list[str] = []
        with _opened(path) as file, _readable(path):
            for told in self._preamble(file):
                if "collection" in told and told.get("db") not in SYSTEM:
                    self._names.append(f"{told['db']}.{told['collection']}")

    @staticmethod
    def is_one(path: Path) -> bool:
        with _opened(path) as file, _readable(path):
            return file.read(4) == struct.pack("<I", MAGIC)

    async def collections(self) -> Sequence[str]:
        return sorted(self._names)

    async def count(self, collection: str) -> int | None:
        return None

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Record]]:
        if collection not in self._names:
            known = ", ".join(sorted(self._names)[:20])
            raise Missing(f"The archive has no collection {collection}; it has {known}.", code="source_missing")
        async for batch in batched(self._records(collection), limit):
            yield batch

    async def close(self) -> None:
        pass

    def _preamble(self, file: IO[bytes]) -> Iterator[Record]:
        if _word(file) != MAGIC:
            raise Invalid(f"{self._path} is no archive of mongodump.", code="dump_damaged")
        while (size := _word(file)) != END:
            if (told := _document(file, size)) is None:
                raise Invalid(f"{self._path} is cut off.", code="dump_damaged")
            yield told

    def _records(self, collection: str) -> Iterator[Record]:
        with _opened(self._path) as file, _readable(self._path):
            for _ in self._preamble(file):
                pass
            while (block := _document(file, _word(file))) is not None:
                mine = f"{block.get('db')}.{block.get('collection')}" == collection
                if mine and block.get("EOF"):
                    return
                while (size := _word(file)) != END:
                    if size is None:
                        raise Invalid(f"{self._path} is cut off.", code="dump_damaged")
                    if mine:
                        yield _document(file, size) or {}
                    else:
                        _skip(file, size)
        raise Invalid(f"{self._path} is cut off: {collection} does not end.", code="dump_damaged")


async def batched(records: Iterator[Any], limit: int | None, size: int = BATCH) -> AsyncIterator[Sequence[Any]]:
    """Read in a thread, a batch at a time."""

    def take() -> list[Any]:
        batch = []
        for record in records:
            batch.append(record)
            if len(batch) >= (size if limit is None else min(size, limit)):
                break
        return batch

    while (limit is None or limit > 0) and (batch := await asyncio.to_thread(take)):
        if limit is not None:
            limit -= len(batch)
        yield batch


def _decoder() -> Callable[[bytes], Record]:
    try:
        from bson import decode
        from bson.codec_options import CodecOptions
    except ImportError as error:
        raise Unavailable(
            f"Reading a dump of MongoDB needs another package: {bring('mongo')}.", code="extra_missing"
        ) from error
    options: Any = CodecOptions(tz_aware=True, unicode_decode_error_handler="replace")
    return lambda data: decode(data, codec_options=options)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == GZIP
        with cast(IO[bytes], gzip.open(path) if zipped else path.open("rb")) as opened:
            yield opened
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Invalid(f"{path} is damaged: it does not unpack. Dump it again.", code="dump_damaged") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror or error}.", code="unreadable") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    from bson.errors import BSONError

    try:
        yield
    except (BSONError, struct.error, ValueError) as error:
        raise Invalid(f"{path} is damaged: {error}. Dump it again.", code="dump_damaged") from error


def _word(file: IO[bytes]) -> int | None:
    """The next four bytes; None at the end of the file."""
    data = file.read(4)
    if not data:
        return None
    return int(struct.unpack("<I", data)[0])


def _document(file: IO[bytes], size: int | None) -> Record | None:
    if size is None:
        return None
    return _decoder()(struct.pack("<I", size) + _body(file, size))


def _skip(file: IO[bytes], size: int) -> None:
    _body(file, size)


def _body(file: IO[bytes], size: int) -> bytes:
    if not 5 <= size <= MAX_DOCUMENT:
        raise ValueError(f"a document of {size:,} bytes")
    body = file.read(size - 4)
    if len(body) != size - 4:
        raise ValueError("a document is cut off")
    return body
