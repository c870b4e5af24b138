"""The API as a client meets it."""

import asyncio
import io
import json
import re
import zipfile
from typing import Any

import pytest

from tests.web.conftest import Client
from tests.web.routes import every


def events(text: str) -> list[tuple[str | None, str, dict[str, Any]]]:
    """(id, type, data) of a stream of server-sent events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


async def test_the_root_is_a_page_for_browsers_and_a_state_for_programs(client: Client) -> None:
    assert (await client.get("/")).json() == {"status": "healthy"}
    page = await client.get("/", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]


async def test_health_ready_metrics(client: Client) -> None:
    assert (await client.get("/health")).json() == {"status": "healthy"}
    assert (await client.get("/ready")).json()["checks"]["database"] == "ok"
    metrics = (await client.get("/metrics")).text
    assert 'terrace_http_requests_total{method="GET",route="/health",status="200"} 1.0' in metrics


async def test_upload_ask_and_read_the_source(client: Client) -> None:
    document = await client.upload(collection="ports", tags="sea,stone")
    assert document["collection"] == "ports"
    assert document["tags"] == ["sea", "stone"]
    assert (await client.ready(document["id"]))["state"] == "ready"
    answer = (await client.post("/chat", json={"message": "How deep is the quay?"})).json()
    assert "seven metres" in answer["response"]
    [source] = answer["sources"]
    span = {"start": source["start"], "end": source["end"]}
    text = (await client.get(f"/api/documents/{document['id']}/text", params=span)).json()["text"]
    assert text == source["quote"]


async def test_fields_may_follow_the_file(client: Client) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nwords\r\n'
        b'--x\r\nContent-Disposition: form-data; name="collection"\r\n\r\nlate\r\n--x--\r\n'
    )
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await client.post("/documents/upload", content=body, headers=headers)
    assert answer.json()["document"]["collection"] == "late"


async def test_the_same_file_is_recognised(client: Client) -> None:
    first = await client.upload()
    again = await client.post("/api/documents/upload", files={"file": ("b.txt", b"The quay is seven metres deep.")})
    assert again.status_code == 200
    assert again.json()["document"]["id"] == first["id"]
    assert again.json()["document"]["duplicate"]


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        ({"file": ("a.txt", b"")}, 422, "document_empty"),
        ({"file": ("a.exe", b"MZ\x90\x00" + bytes(range(256)) * 8)}, 415, None),
        ({"file": ("a.txt", b"x" * 1_000_001)}, 413, None),
        ({"other": (None, b"x")}, 422, None),
        ({"file": (None, b"report.pdf")}, 422, None),
    ],
)
async def test_a_file_that_is_not_taken_is_told_and_leaves_nothing(
    client: Client, files: dict[str, Any], status: int, code: str | None
) -> None:
    answer = await client.post("/api/documents/upload", files=files)
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert code in (None, problem["code"])
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert (await client.get("/api/documents")).json()["items"] == []


async def test_a_batch_is_one_job_with_a_child_for_each_file(client: Client) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("in/one.txt", "First words.")
        file.writestr("two.md", "# Second\n\nwords")
    files = [("files", ("all.zip", archive.getvalue())), ("files", ("empty.txt", b""))]
    answer = (await client.post("/documents/batch-upload", files=files)).json()
    assert [bool(item["error"]) for item in answer["documents"]] == [False, False, True]
    for item in answer["documents"][:2]:
        assert (await client.ready(item["document"]["id"]))["state"] == "ready"
    job = (await client.get(f"/jobs/{answer['job_id']}/status")).json()
    assert job["children"] == {"succeeded": 2}


async def test_list_change_reprocess_delete(client: Client) -> None:
    document = await client.upload(tags="a")
    path = f"/api/documents/{document['id']}"
    await client.ready(document["id"])
    changed = (await client.patch(path, json={"name": "new.txt", "tags": ["b"], "collection": "other"})).json()
    assert (changed["name"], changed["tags"], changed["collection"]) == ("new.txt", ["b"], "other")
    assert [each["id"] for each in (await client.get("/documents/list?tag=b&q=NEW")).json()["items"]] == [
        document["id"]
    ]
    assert (await client.get("/api/documents?tag=a")).json()["items"] == []
    assert (await client.post(f"{path}/reprocess")).status_code == 202
    assert (await client.ready(document["id"]))["state"] == "ready"
    assert (await client.get(f"{path}/original")).content == b"The quay is seven metres deep."
    assert (await client.delete(f"/documents/{document['id']}")).status_code == 204
    assert (await client.get(path)).status_code == 404
    assert (await client.post("/api/search", json={"query": "quay"})).json()["hits"] == []


async def test_an_answer_streams_and_resumes_where_it_was_cut(client: Client) -> None:
    document = await client.upload()
    await client.ready(document["id"])
    whole = events((await client.post("/api/chat", json={"message": "How deep?", "stream": True})).text)
    kinds = [kind for _, kind, _ in whole]
    assert kinds[-1] == "done"
    assert {"start", "sources", "text", "answer"} <= set(kinds)
    start = next(data for _, kind, data in whole if kind == "start")
    conversation = (await client.get(f"/api/conversations/{start['conversation_id']}")).json()
    job_id = conversation["messages"][-1]["job_id"]
    for position, (identity, _, _) in enumerate(whole):
        if identity is not None:
            rest = await client.get(f"/api/jobs/{job_id}/events", headers={"last-event-id": identity})
            assert events(rest.text) == whole[position + 1 :]


async def test_the_page_gets_the_answer_as_safe_html(client: Client) -> None:
    document = await client.upload()
    await client.ready(document["id"])
    started = (await client.post("/api/chat", json={"message": "How deep is it?"})).json()
    stream = events((await client.get(f"/api/jobs/{started['job_id']}/events?render=html")).text)
    answer = next(data for _, kind, data in stream if kind == "answer")
    assert 'class="cite" data-n="1"' in answer["html"]
    assert any(kind == "render" and "<p>" in data["html"] for _, kind, data in stream)
    message = (await client.get(f"/api/conversations/{started['conversation_id']}")).json()["messages"][-1]
    assert message["html"] == answer["html"]


async def test_conversations_are_found_renamed_branched_exported_deleted(client: Client) -> None:
    first = (await client.post("/api/chat", json={"message": "What about lighthouses?", "use_rag": False})).json()
    path = f"/api/conversations/{first['conversation_id']}"
    await client.post(path + "/regenerate", json={"message_id": first["message_id"]})
    conversation = (await client.get(path)).json()
    answers = [each for each in conversation["messages"] if each["role"] == "assistant"]
    assert [each["parent_id"] for each in answers] == [first["user_message_id"]] * 2
    assert (await client.get("/api/conversations?q=lighthouses")).json()["items"][0]["id"] == first["conversation_id"]
    assert (await client.patch(path, json={"title": "Lamps"})).json()["title"] == "Lamps"
    export = await client.get(path + "/export?format=md")
    assert "lighthouses" in export.text
    assert "attachment" in export.headers["content-disposition"]
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/chat", b"{", 400),
        ("POST", "/api/chat", b'{"message": 3}', 422),
        ("POST", "/api/chat", b'{"message": ""}', 422),
        ("POST", "/api/chat", b'{"message": "x", "model": "no/such"}', 404),
        ("POST", "/api/chat", b'{"message": "x", "conversation_id": "cnv_0"}', 404),
        ("POST", "/api/chat", b'{"message": "' + b"x" * 150_000 + b'"}', 413),
        ("POST", "/api/chat", b'{"message": "' + b"x" * 250_000 + b'"}', 413),
        ("GET", "/api/documents/doc_0", b"", 404),
        ("GET", "/api/jobs/job_0", b"", 404),
        ("GET", "/api/jobs/job_0/events", b"", 404),
        ("GET", "/api/conversations/cnv_0", b"", 404),
        ("GET", "/api/documents?cursor=%00", b"", None),
        ("POST", "/api/jobs", b'{"kind": "chat.generate"}', 422),
        ("POST", "/api/search", b'{"query": "x", "collections": ["none"]}', 404),
        ("GET", "/api/nothing", b"", 404),
        ("PUT", "/api/chat", b"{}", 405),
    ],
)
async def test_bad_input_gets_a_problem_document(
    client: Client, method: str, path: str, body: bytes, status: int | None
) -> None:
    answer = await client.request(method, path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status if status else answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == answer.status_code
        assert len(problem["detail"]) > 10


async def test_a_cursor_that_no_list_gave_out_is_no_place_in_it(client: Client) -> None:
    lists = [each.path for each in every() if "cursor" in each.query]
    assert len(lists) > 20
    for path in lists:
        for cursor in ("", "true", "Ó=D:", "doc_1' OR 1=1"):
            answer = await client.get(re.sub(r"{\w+}", "none_1", path), params={"cursor": cursor})
            told = answer.status_code, answer.json().get("code")
            assert told == (422, "bad_cursor") or ("{" in path and told[0] == 404), (path, cursor, told)


async def test_a_body_without_a_length_is_bounded_too(client: Client) -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b" " * 10_000

    answer = await client.post("/api/chat", content=endless(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


async def test_foreign_pages_are_refused(client: Client) -> None:
    answer = await client.post("/api/chat", json={"message": "x"}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    assert (await client.get("/health", headers={"host": "evil.example"})).status_code == 421
    assert "access-control-allow-origin" not in answer.headers


async def test_every_answer_carries_its_request_id_and_security_headers(client: Client) -> None:
    for path in ("/health", "/v1/models", "/static/any/index.html", "/nothing"):
        answer = await client.get(path, headers={"x-request-id": "mine-1"})
        assert answer.headers.get_list("x-request-id") == ["mine-1"], path
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_files_of_the_page_are_asked_for_once_and_after_an_upgrade_again(client: Client) -> None:
    page = await client.get("/", headers={"accept": "text/html"})
    assert page.headers["cache-control"] == "no-cache"
    [script] = re.findall(r'src="(/static/[0-9a-f]{16}/js/main\.js)"', page.text)
    answer = await client.get(script)
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    before = await client.get("/static/0123456789abcdef/js/main.js")
    assert (before.content, before.headers["cache-control"]) == (answer.content, "no-cache")


async def test_a_job_can_be_watched_cancelled_and_retried(client: Client) -> None:
    document = await client.upload()
    await client.ready(document["id"])
    jobs = (await client.get("/api/jobs?kind=knowledge.ingest")).json()["items"]
    assert [job["state"] for job in jobs] == ["succeeded"]
    assert (await client.post(f"/api/jobs/{jobs[0]['id']}/cancel")).json()["state"] == "succeeded"
    assert (await client.post(f"/api/jobs/{jobs[0]['id']}/retry")).status_code == 409


async def test_all_jobs_can_be_watched(client: Client) -> None:
    seen: list[Any] = []
    connected = asyncio.Event()

    async def watch() -> None:
        async with client.stream("GET", "/api/jobs/events") as stream:
            async for line in stream.aiter_lines():
                connected.set()
                if line.startswith("data:"):
                    seen.append(json.loads(line[5:]))
                    if seen[-1]["state"] == "succeeded":
                        return

    watching = asyncio.create_task(watch())
    await asyncio.wait_for(connected.wait(), 20)
    await client.upload()
    await asyncio.wait_for(watching, 20)
    assert seen[-1]["kind"] == "knowledge.ingest"


async def test_openai_at_the_same_address(client: Client) -> None:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
    answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["role"] == "assistant"
    missing = await client.post("/v1/chat/completions", json={**body, "model": "no/such"})
    assert missing.status_code == 404
    assert missing.json()["error"]["message"]


async def test_a_collection_that_is_not_there_is_told_even_when_nothing_is(client: Client) -> None:
    answer = await client.post("/api/chat", json={"message": "How deep?", "collections": ["nowhere"]})
    assert answer.status_code == 404
    assert "nowhere" in answer.json()["detail"]


async def test_a_position_that_is_no_number_is_refused(client: Client) -> None:
    document = await client.upload()
    for after in ("²-1", "1", "1-x", "-1-1", "9" * 50 + "-1"):
        answer = await client.get(f"/api/jobs/{document['job_id']}/events", params={"after": after})
        assert answer.status_code == 400, after


async def test_a_question_sent_twice_with_one_key_is_asked_once(client: Client) -> None:
    body, key = {"message": "How deep is the quay?", "use_rag": False}, {"idempotency-key": "k-1"}
    first, again = await asyncio.gather(*(client.post("/api/chat", json=body, headers=key) for _ in range(2)))
    assert first.json() == again.json()
    assert len((await client.get("/api/conversations")).json()["items"]) == 1
    other = await client.post("/api/chat", json={"message": "Something else?"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")
