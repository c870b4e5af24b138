"""A thousand open streams: each waits in memory, none holds a connection to PostgreSQL."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from terrace.settings import Storage
from tests.postgres import Postgres
from tests.web.conftest import in_folder, served

STREAMS, CONNECTIONS = 1000, 3
OPEN = """SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.mark.faults  # for its ten seconds
async def test_a_thousand_open_streams_hold_no_connection(
    postgres: Postgres, postgres_url: str, tmp_path: Path
) -> None:
    storage = Storage(url=postgres_url, connections=CONNECTIONS)
    settings = in_folder(tmp_path).model_copy(update={"storage": storage})
    async with served(settings) as client, asyncio.timeout(300):
        address = urlsplit(str(client.base_url))
        streams = [await _stream(address.hostname or "", address.port or 0) for _ in range(STREAMS)]
        answers = await asyncio.gather(*(client.get("/api/jobs") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        with postgres.connection(postgres_url) as connection:
            row = connection.execute(OPEN).fetchone()
        assert row is not None
        held, busy = row
        assert held <= CONNECTIONS + 1, "one more listens"
        assert busy <= CONNECTIONS
        await client.upload()
        lines = await asyncio.gather(*(_first_event(reader) for reader, _ in streams))
        assert set(lines) == {lines[0]}
        for _, writer in streams:
            writer.close()


async def _stream(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET /api/jobs/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    await reader.readuntil(b": connected")
    return reader, writer


async def _first_event(reader: asyncio.StreamReader) -> bytes:
    await reader.readuntil(b"event: ")
    return await reader.readline()
