"""The outermost layer, around a small application that fails in ways the real one should not."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from terrace.telemetry.metrics import Metrics
from terrace.web import problems
from terrace.web.edge import Edge
from terrace.web.security import CORS, Guard

SITE = "https://intranet.example"


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = FastAPI()
    problems.install(app)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a detail for the log alone")

    @app.get("/cut")
    async def cut() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("the rest is gone")

        return StreamingResponse(pieces())

    edge = Edge(app, guard=Guard(origins=[SITE]), cors=CORS([SITE]), metrics=Metrics(), max_body=1000)
    return httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://localhost")


async def test_the_unforeseen_is_a_problem_document_and_one_line_in_the_log(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/broken")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "detail for the log" not in answer.text
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_an_answer_that_breaks_off_is_cut_so_that_the_client_sees_it(client: httpx.AsyncClient) -> None:
    with pytest.raises(RuntimeError):
        await client.get("/cut")


async def test_request_ids_that_could_forge_a_log_line_are_replaced(client: httpx.AsyncClient) -> None:
    for given in ("a b", "x" * 101, "ü"):
        answer = await client.get("/broken", headers={"x-request-id": given.encode()})
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_named_site_is_told_beforehand_that_it_may_call(client: httpx.AsyncClient) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    answer = await client.options("/api/chat", headers={"origin": SITE, **asks})
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers  # cookies never go with it


async def test_a_named_site_may_read_the_answer_and_others_hear_nothing(client: httpx.AsyncClient) -> None:
    assert (await client.get("/broken", headers={"origin": SITE})).headers["access-control-allow-origin"] == SITE
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    refused = await client.options("/api/chat", headers=asks)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in (await client.get("/broken")).headers
