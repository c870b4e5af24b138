"""The whole of it: a real server reads a real site and a real folder, and answers with links to where it read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.knowledge.sources.conftest import write
from tests.web.conftest import Client, in_folder, served

from terrace import settings
from terrace.settings import Settings

HOME = b"<title>Harbour</title><p>Welcome to the harbour.</p><a href='/quay'>q</a><a href='/private'>p</a>"
QUAY = "<title>Quay</title><p>Sieben Meter tief für Schiffe.</p>"
PAGES = {
    "/robots.txt": ("text/plain", b"User-agent: *\nDisallow: /private"),
    "/": ("text/html", HOME),
    "/quay": ("text/html; charset=iso-8859-1", QUAY.encode("latin-1")),
    "/private": ("text/html", b"<p>A secret.</p>"),
}


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        kind, body = PAGES.get(head.split()[1], ("text/html", b""))
        status = "200 OK" if body else "404 Not Found"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def options(tmp_path: Path, **more: Any) -> Settings:
    return in_folder(tmp_path / "data").model_copy(update=more)


async def reported(client: Client, source_id: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            shown = (await client.get(f"/api/sources/{source_id}")).json()
            if shown["report"] is not None and not shown["running"]:
                return shown
            await asyncio.sleep(0.02)


async def test_a_site_and_a_watched_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "tide.txt", "The tide comes at noon.")
    allowed = options(
        tmp_path,
        outbound=settings.Outbound(allow=("127.0.0.0/8",)),
        schedules=settings.Schedules(folders=(folder,), delay=0),
    )
    async with served(allowed) as client, site() as address:
        made = await client.post("/api/sources", json={"kind": "site", "location": address, "every": 3600})
        assert made.status_code == 201, made.text
        source = made.json()
        schedule = (await client.get(f"/api/schedules/{source['schedule_id']}")).json()
        assert (schedule["action"], schedule["payload"]) == ("sources.run", {"source_id": source["id"]})
        started = await client.post(f"/api/sources/{source['id']}/run")
        assert started.status_code == 202, started.text
        report = (await reported(client, source["id"]))["report"]
        assert (report["added"], report["skipped"], report["complete"]) == (2, 1, True)
        items = (await client.get(f"/api/sources/{source['id']}/items?outcome=added")).json()["items"]
        for each in items:
            await client.ready(each["document_id"])
        [hit] = (await client.post("/api/search", json={"query": "Sieben Meter tief für"})).json()["hits"][:1]
        assert (hit["source_url"], hit["document_name"]) == (f"{address}/quay", "Quay")
        told = (await client.post("/api/chat", json={"message": "Wie tief für Schiffe?"})).json()
        assert told["sources"][0]["source_url"] == f"{address}/quay"

        watched = {"kind": "folder", "location": str(folder), "watch": True, "collection": "tides"}
        source = (await client.post("/api/sources", json=watched)).json()
        await client.post(f"/api/sources/{source['id']}/run", json={})
        assert (await reported(client, source["id"]))["report"]["added"] == 1
        assert (await client.delete(f"/api/sources/{source['id']}?documents=true")).status_code == 204
        assert (await client.get("/api/documents?collection=tides")).json()["items"] == []
        assert (await client.get(f"/api/sources/{source['id']}")).status_code == 404


async def test_private_places_are_closed_unless_the_operator_opens_them(tmp_path: Path) -> None:
    async with served(options(tmp_path)) as client, site() as address:
        for body in (
            {"kind": "site", "location": address},
            {"kind": "url", "location": "http://localhost/"},
            {"kind": "folder", "location": str(tmp_path)},
            {"kind": "feed", "location": "file:///etc/passwd"},
        ):
            answer = await client.post("/api/sources", json=body)
            assert answer.status_code in (400, 422), (body, answer.text)
        assert (await client.get("/api/sources")).json()["items"] == []
