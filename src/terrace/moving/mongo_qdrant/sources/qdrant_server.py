"""A Qdrant that runs, over REST. The same reading serves qdrant-client's local mode, which has the same methods."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from terrace.errors import Invalid, Missing, Unavailable, bring
from terrace.moving.mongo_qdrant.base import BATCH, Point, PointCollection, Space
from terrace.moving.mongo_qdrant.fields import key

TIMEOUT = 60  # seconds one answer may take


def open_server(url: str, api_key: str = "") -> "QdrantServer":
    """Raises Unavailable naming the extra when its package is missing."""
    import warnings

    try:
        from qdrant_client import AsyncQdrantClient
    except ImportError as error:
        raise Unavailable(f"Asking a Qdrant needs another package: {bring('qdrant')}.", code="extra_missing") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a key over plain http is the operator's decision
        try:
            client = AsyncQdrantClient(
                url=url, api_key=api_key or None, timeout=TIMEOUT, prefer_grpc=False, check_compatibility=False
            )
        except ValueError as error:
            raise Invalid("The address of Qdrant is not one: http://host:6333.", code="bad_address") from error
    return QdrantServer(client)


class QdrantServer:
    """Points are read by scrolling, in the order of their ids."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def collections(self) -> Sequence[PointCollection]:
        with _told():
            names = [each.name for each in (await self._client.get_collections()).collections]
            return [await self._described(name) for name in sorted(names)]

    async def _described(self, name: str) -> PointCollection:
        told = await self._client.get_collection(name)
        count = (await self._client.count(name, exact=True)).count
        return PointCollection(name, int(count), spaces_of(told.config.params.vectors))

    async def read(self, collection: str, limit: int | None = None) -> AsyncIterator[Sequence[Point]]:
        if collection not in {each.name for each in await self.collections()}:
            raise Missing(f"Qdrant has no collection {collection}.", code="source_missing")
        offset = None
        while limit is None or limit > 0:
            size = BATCH if limit is None else min(BATCH, limit)
            with _told():
                found, offset = await self._client.scroll(
                    collection, limit=size, offset=offset, with_payload=True, with_vectors=True
                )
            if found:
                yield [Point(key(each.id), dense(each.vector), each.payload or {}) for each in found]
            if limit is not None:
                limit -= len(found)
            if offset is None:
                return

    async def close(self) -> None:
        await self._client.close()


def spaces_of(told: Any) -> tuple[Space, ...]:
    """Of Qdrant's `vectors` parameter: one unnamed, or many by name; objects of its client or plain JSON."""
    if not told:
        return ()
    named = told if isinstance(told, dict) and "size" not in told else {"": told}
    return tuple(Space(name, int(_of(each, "size")), _distance(_of(each, "distance"))) for name, each in named.items())


def _of(told: Any, name: str) -> Any:
    return told[name] if isinstance(told, dict) else getattr(told, name)


def _distance(told: Any) -> str:
    return str(getattr(told, "value", told))


def dense(told: Any) -> dict[str, Any]:
    """Dense vectors by name; sparse ones and those of many rows are left aside: Terrace has no place for them."""
    if told is None:
        return {}
    named = told if isinstance(told, dict) else {"": told}
    return {name: each for name, each in named.items() if _flat(each)}


def _flat(each: Any) -> bool:
    return isinstance(each, list | tuple) and (not each or isinstance(each[0], int | float))


@contextmanager
def _told() -> Iterator[None]:
    from httpx import HTTPError
    from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

    try:
        yield
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise Invalid(
                "Qdrant does not let us in: give its key in QDRANT_API_KEY.", code="qdrant_refused"
            ) from error
        raise Unavailable(
            f"Qdrant answered {error.status_code}; `--resume` goes on from here.", code="qdrant_unreachable"
        ) from error
    except (ApiException, ResponseHandlingException, HTTPError) as error:
        raise Unavailable(
            "Qdrant cannot be reached. Check the address and that it runs; `--resume` goes on from here.",
            code="qdrant_unreachable",
        ) from error
