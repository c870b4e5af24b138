"""From what was typed to what is read: an address, a folder, or a file, told apart by what they hold."""

from pathlib import Path

from terrace.errors import Invalid, Missing
from terrace.moving.mongo_qdrant.base import Documents, Points
from terrace.moving.mongo_qdrant.sources import qdrant_snapshot
from terrace.moving.mongo_qdrant.sources.mongo_dump import MongoArchive, MongoFolder
from terrace.moving.mongo_qdrant.sources.mongo_server import MongoServer
from terrace.moving.mongo_qdrant.sources.qdrant_lines import QdrantLines
from terrace.moving.mongo_qdrant.sources.qdrant_local import META, QdrantFolder
from terrace.moving.mongo_qdrant.sources.qdrant_server import open_server


def open_documents(where: str) -> Documents:
    """`mongodb://...`, a folder of mongodump, or an archive of it."""
    if where.startswith(("mongodb://", "mongodb+srv://")):
        return MongoServer(where)
    path = _there(where, "MongoDB: mongodb://..., the folder of a dump, or an archive")
    if path.is_dir():
        return MongoFolder(path)
    if MongoArchive.is_one(path):
        return MongoArchive(path)
    raise Invalid(f"{path} is neither a folder of mongodump nor an archive of it (--archive).", code="bad_source")


def open_points(where: str, api_key: str = "") -> Points:
    """`http(s)://...`, the folder of qdrant-client's local mode, or a file of JSON lines."""
    if where.startswith(("http://", "https://")):
        return open_server(where, api_key)
    path = _there(where, "Qdrant: http://..., a local store, or a file of JSON lines")
    if path.is_dir():
        if not (path / META).is_file():
            raise Invalid(
                f"{path} is no store of qdrant-client's local mode: there is no {META} in it. The storage folder of a "
                "server can't be read; name the server's address.",
                code="bad_source",
            )
        return QdrantFolder(path)
    if qdrant_snapshot.is_snapshot(path):
        raise qdrant_snapshot.refuse(path)
    return QdrantLines(path)


def described(where: str) -> str:
    """As it may be shown and kept: without user and password."""
    scheme, found, rest = where.partition("://")
    return (
        f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if found else str(Path(where).expanduser().absolute())
    )


def _there(where: str, wanted: str) -> Path:
    path = Path(where).expanduser()
    if not path.exists():
        raise Missing(f"{path} is not there. Name a {wanted}.", code="source_missing")
    return path
