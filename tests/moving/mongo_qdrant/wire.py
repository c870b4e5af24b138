"""Stand-ins for servers we can't have here: MongoDB's wire protocol as far as reading goes, and Qdrant's scroll."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013


class MongoWire:
    """Answers hello, listDatabases, listCollections, aggregate (a count), find and getMore over OP_MSG.

    `cut_after` closes the connection when a cursor was asked for more that often.
    """

    def __init__(self, collections: dict[str, list[dict[str, Any]]], *, cut_after: int = 1_000_000) -> None:
        self.collections = collections
        self.cut_after = cut_after
        self.commands: list[str] = []
        self._cursors: dict[int, tuple[str, list[dict[str, Any]]]] = {}

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
        finally:
            server.close()
            for writer in list(self._writers):
                writer.close()

    _writers: "set[asyncio.StreamWriter]"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.__dict__.setdefault("_writers", set()).add(writer)
        try:
            while True:
                size, request, _, op = struct.unpack("<iiii", await reader.readexactly(16))
                body = await reader.readexactly(size - 16)
                answer = self._answer(op, body)
                if answer is None:
                    return
                writer.write(_framed(op, request, answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _answer(self, op: int, body: bytes) -> dict[str, Any] | None:
        if op == OP_QUERY:
            end = body.index(b"\0", 4)
            command = bson.decode(body[end + 9 :])
        else:
            command = bson.decode(body[5:])  # flags, then a section of kind 0
        name = next(iter(command))
        self.commands.append(name)
        if name == "getMore":
            self.cut_after -= 1
            if self.cut_after < 0:
                return None
        return getattr(self, f"_{name}", self._unknown)(command) | {"ok": 1.0}

    def _unknown(self, command: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _hello(self, command: dict[str, Any]) -> dict[str, Any]:
        return {
            "helloOk": True, "isWritablePrimary": True, "ismaster": True, "maxBsonObjectSize": 16 * 1024**2,
            "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21,
            "readOnly": False,
        }  # fmt: skip

    _ismaster = _isMaster = _hello  # noqa: N815

    def _listDatabases(self, command: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        names = sorted({name.partition(".")[0] for name in self.collections} | {"admin", "local"})
        return {"databases": [{"name": name, "sizeOnDisk": 1, "empty": False} for name in names]}

    def _listCollections(self, command: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        mine = [name.partition(".")[2] for name in self.collections if name.startswith(command["$db"] + ".")]
        rows = [{"name": name, "type": "collection"} for name in mine]
        return {"cursor": {"id": 0, "ns": f"{command['$db']}.$cmd.listCollections", "firstBatch": rows}}

    def _aggregate(self, command: dict[str, Any]) -> dict[str, Any]:
        space = f"{command['$db']}.{command['aggregate']}"
        return {"cursor": {"id": 0, "ns": space, "firstBatch": [{"_id": 1, "n": len(self.collections[space])}]}}

    def _find(self, command: dict[str, Any]) -> dict[str, Any]:
        space = f"{command['$db']}.{command['find']}"
        assert command["sort"] == {"_id": 1}
        rows = sorted(self.collections[space], key=lambda row: str(row["_id"]))[: command.get("limit") or None]
        first, rest = rows[: command["batchSize"]], rows[command["batchSize"] :]
        cursor = len(self._cursors) + 1 if rest else 0
        if rest:
            self._cursors[cursor] = (space, rest)
        return {"cursor": {"id": cursor, "ns": space, "firstBatch": first}}

    def _getMore(self, command: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        space, rows = self._cursors.pop(command["getMore"])
        size = command.get("batchSize", 100)
        if rows[size:]:
            self._cursors[command["getMore"]] = (space, rows[size:])
        return {"cursor": {"id": command["getMore"] if rows[size:] else 0, "ns": space, "nextBatch": rows[:size]}}


def _framed(op: int, request: int, answer: dict[str, Any]) -> bytes:
    document = bson.encode(answer)
    if op == OP_QUERY:
        body, kind = struct.pack("<iqii", 8, 0, 0, 1) + document, OP_REPLY
    else:
        body, kind = struct.pack("<iB", 0, 0) + document, OP_MSG
    return struct.pack("<iiii", 16 + len(body), 0, request, kind) + body


class QdrantWire:
    """Answers as Qdrant's REST does: collections, one of them, its count, and a scroll in pages."""

    def __init__(self, name: str, points: list[dict[str, Any]], size: int, *, key: str = "") -> None:
        self.name = name
        self.points = points
        self.size = size
        self.key = key
        self.asked: list[str] = []
        self.fails_at = -1  # which scroll is answered with 500

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = head[0].split()
            self.asked.append(f"{method} {path}")
            status, told = self._answer(path.partition("?")[0], json.loads(body or b"{}"), headers.get("api-key", ""))
            data = json.dumps({"result": told, "status": "ok", "time": 0.001}).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + data
            )
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def _answer(self, path: str, body: Any, key: str) -> tuple[int, Any]:
        if self.key and key != self.key:
            return 403, None
        if path == "/collections":
            return 200, {"collections": [{"name": self.name}]}
        if path == f"/collections/{self.name}":
            return 200, self._described()
        if path.endswith("/points/count"):
            return 200, {"count": len(self.points)}
        if path.endswith("/points/scroll"):
            scrolled = len([each for each in self.asked if each.startswith(f"POST {path}")])
            return (500, None) if scrolled == self.fails_at else (200, self._scrolled(body))
        return 404, None

    def _scrolled(self, body: Any) -> Any:
        assert body["with_payload"] is True
        assert body["with_vector"] is True
        rows = sorted(self.points, key=lambda each: str(each["id"]))
        start = next((at for at, each in enumerate(rows) if each["id"] == body.get("offset")), 0)
        page, rest = rows[start : start + body["limit"]], rows[start + body["limit"] :]
        return {"points": page, "next_page_offset": rest[0]["id"] if rest else None}

    def _described(self) -> Any:
        return {
            "status": "green", "optimizer_status": "ok", "segments_count": 1, "points_count": len(self.points),
            "config": {
                "params": {"vectors": {"size": self.size, "distance": "Cosine"}, "shard_number": 1},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0,
                    "flush_interval_sec": 5,
                },
                "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            },
            "payload_schema": {},
        }  # fmt: skip
