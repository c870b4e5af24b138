"""A MongoDB that runs, through pymongo's asynchronous client."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from terrace.errors import Invalid, Missing, Unavailable, bring
from terrace.moving.mongo_qdrant.base import BATCH, Record

SYSTEM = ("admin", "config", "local")
PATIENCE_MS = 10_000  # for a server that does not answer


class MongoServer:
    """`uri` may hold a password, so it is never shown."""

    def __init__(self, uri: str) -> None:
        try:
            from pymongo import AsyncMongoClient
            from pymongo.errors import InvalidURI, PyMongoError
        except ImportError as error:
            raise Unavailable(
                f"Reading MongoDB needs another package: {bring('mongo')}.", code="extra_missing"
            ) from error
        try:
            own: dict[str, Any] = (
                {} if "serverselectiontimeoutms" in uri.lower() else {"serverSelectionTimeoutMS": PATIENCE_MS}
            )
            self._client: Any = AsyncMongoClient(
                uri,
                **own,
                appname="terrace",
                unicode_decode_error_handler="replace",
                tz_aware=True,
            )
        except InvalidURI as error:
            raise Invalid("The address of MongoDB is not one: mongodb://user:password@host:27017.") from error
        except PyMongoError as error:  # such as a srv record that nobody can resolve
            raise Unavailable("MongoDB's address cannot be resolved.", code="mongo_unreachable") from error

    async def collections(self) -> Sequence[str]:
        with _told():
            databases = [name for name in await self._client.list_database_names() if name not in SYSTEM]
            return [
                f"{database}.{name}"
                for database in sorted(databases)
                for name in sorted(await self._client[database].list_collection_names())
                if not name.startswith("system.")
            ]

    async def count(self, collection: str) -> int | None:
        with _told():
            return int(await self._of(collection).count_documents({}))

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Record]]:
        """In the order of `_id`, so that what moves meanwhile is not read twice."""
        if not await self._has(collection):
            raise Missing(f"MongoDB has no collection {collection}.", code="source_missing")
        batch: list[Record] = []
        with _told():
            cursor = self._of(collection).find({}, limit=limit or 0, batch_size=BATCH, sort=[("_id", 1)])
            async with cursor:
                async for record in cursor:
                    batch.append(record)
                    if len(batch) == BATCH:
                        yield batch
                        batch = []
        if batch:
            yield batch

    async def close(self) -> None:
        await self._client.close()

    async def _has(self, collection: str) -> bool:
        """Asks its own database alone: a reader may have rights in no other."""
        of = self._of(collection)
        with _told():
            return of.name in await of.database.list_collection_names()

    def _of(self, collection: str) -> Any:
        database, _, name = collection.partition(".")
        if not name:
            raise Invalid(f"{collection!r} is not `database.collection`.", code="bad_mapping")
        return self._client[database][name]


@contextmanager
def _told() -> Iterator[None]:
    """pymongo's errors in our words: theirs may quote the address."""
    from pymongo.errors import OperationFailure, PyMongoError

    try:
        yield
    except OperationFailure as error:
        told = "does not let us in" if error.code in (13, 18) else f"refused (code {error.code})"
        raise Invalid(f"MongoDB {told}. Check the user, its password and its rights.", code="mongo_refused") from error
    except PyMongoError as error:
        raise Unavailable(
            f"MongoDB cannot be reached ({type(error).__name__}). Check the address and that it runs; "
            "`--resume` goes on from here.",
            code="mongo_unreachable",
        ) from error
