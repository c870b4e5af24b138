"""OpenAI's own SDK through files and batches, against a whole Terrace in front of a loopback upstream."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.models.upstream import Reply, Upstream, json_reply
from tests.models.wires import KEY
from tests.web.conftest import Client, in_folder, served
from tests.web.people import Person, invited, register

from terrace.settings import Settings

CHAT = "/v1/chat/completions"


def completion(text: str = "Seven metres.") -> Reply:
    """Spread over lines, as some servers write it."""
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }  # fmt: skip
    return Reply([json.dumps(answer, indent=1).encode()])


def line(custom_id: str, text: str = "How deep?", *, url: str = CHAT, **more: Any) -> dict[str, Any]:
    body = {"model": "mock/m", "messages": [{"role": "user", "content": text}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: Sequence[Any]) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


@dataclass
class House:
    client: Client
    upstream: Upstream
    owner: Person
    sdks: list[openai.AsyncOpenAI] = field(default_factory=list)

    async def sdk(self, person: Person | None = None, **key: Any) -> openai.AsyncOpenAI:
        made = (await (person or self.owner).post("/api/keys", {"name": "test", **key})).json()
        sdk = openai.AsyncOpenAI(base_url=f"{self.client.base_url}/v1", api_key=made["secret"], max_retries=0)
        self.sdks.append(sdk)
        return sdk


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return in_folder(tmp_path)


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[House]:
    async with Upstream() as upstream:
        upstream.on("/v1/models", json_reply({"object": "list", "data": [{"id": "m", "object": "model"}]}))
        upstream.on(CHAT, completion())
        provider = {"kind": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY}
        models = {"discover": False, "retries": 0, "providers": {"mock": provider}}
        changed = Settings(**{**settings.model_dump(), "models": models, "batches": {"max_file_bytes": 100_000}})
        async with served(changed) as client:
            house = House(client, upstream, await register(client, "Root"))
            yield house
            for sdk in house.sdks:
                await sdk.close()


async def over(sdk: openai.AsyncOpenAI, batch_id: str) -> Any:
    for _ in range(1000):
        batch = await sdk.batches.retrieve(batch_id)
        if batch.status in ("completed", "failed", "cancelled", "expired"):
            return batch
        await asyncio.sleep(0.02)
    raise TimeoutError(batch.status)


async def answered(sdk: openai.AsyncOpenAI, batch_id: str, count: int) -> None:
    """Returns once so many lines are."""
    for _ in range(1000):
        if (await sdk.batches.retrieve(batch_id)).request_counts.completed >= count:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError


async def begun(sdk: openai.AsyncOpenAI, lines: Sequence[Any], **more: Any) -> Any:
    file = await sdk.files.create(file=("requests.jsonl", jsonl(lines)), purpose="batch")
    wanted = {"endpoint": CHAT, "completion_window": "24h", **more}
    return await sdk.batches.create(input_file_id=file.id, **wanted)


async def read(sdk: openai.AsyncOpenAI, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(each) for each in (await sdk.files.content(file_id)).text.splitlines()]


async def test_a_batch_from_the_file_to_its_answers(house: House) -> None:
    sdk = await house.sdk()
    house.upstream.on(
        CHAT, completion(), json_reply({"error": {"message": "No.", "type": "invalid"}}, 400), completion()
    )
    batch = await begun(sdk, [line(f"request-{n}") for n in range(20)], metadata={"for": "test"})
    assert (batch.object, batch.status, batch.endpoint, batch.metadata) == (
        "batch",
        "validating",
        CHAT,
        {"for": "test"},
    )
    assert batch.expires_at - batch.created_at == 86_400
    done = await over(sdk, batch.id)
    assert done.status == "completed", done.errors
    assert done.request_counts.model_dump() == {"total": 20, "completed": 19, "failed": 1}
    assert (done.model, done.errors) == ("mock/m", None)
    assert done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (190, 76, 266)
    assert done.usage.input_tokens_details.cached_tokens == 38
    answers, errors = await read(sdk, done.output_file_id), await read(sdk, done.error_file_id)
    assert sorted(each["custom_id"] for each in answers + errors) == sorted(f"request-{n}" for n in range(20))
    assert set(answers[0]) == {"id", "custom_id", "response", "error"}
    assert answers[0]["error"] is None
    response = answers[0]["response"]
    assert (response["status_code"], response["request_id"][:4]) == (200, "req_")
    assert response["body"]["choices"][0]["message"]["content"] == "Seven metres."
    assert errors[0]["response"]["status_code"] == 400
    assert errors[0]["response"]["body"]["error"]["message"] == "No."
    output = await sdk.files.retrieve(done.output_file_id)
    assert (output.purpose, output.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    calls = (await house.owner.get("/api/usage?by=key")).json()["total"]
    assert calls["calls"] == 20


async def test_other_endpoints_and_other_models(house: House) -> None:
    sdk = await house.sdk()
    house.upstream.on(
        "/v1/embeddings", json_reply({"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 3}})
    )
    wanted = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "mock/m", "input": "x"}}
    done = await over(sdk, (await begun(sdk, [wanted], endpoint="/v1/embeddings")).id)
    assert (await read(sdk, done.output_file_id))[0]["response"]["body"]["object"] == "list"
    quoted = line("1", model="auto") | {
        "body": {"model": "quote/quote", "messages": [{"role": "user", "content": "x"}]}
    }
    done = await over(sdk, (await begun(sdk, [quoted])).id)
    told = await read(sdk, done.output_file_id or done.error_file_id)
    assert told[0]["response"]["status_code"] in (200, 404)
    text = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "nobody/x", "prompt": "x"}}
    done = await over(sdk, (await begun(sdk, [text], endpoint="/v1/completions")).id)
    assert (done.output_file_id, done.request_counts.failed) == (None, 1)
    error = (await read(sdk, done.error_file_id))[0]["response"]
    assert (error["status_code"], error["body"]["error"]["code"]) == (404, "model_not_found")


async def test_every_line_is_checked_before_any_is_asked(house: House) -> None:
    sdk = await house.sdk()
    body = {"model": "m", "messages": []}
    lines = [
        line("a"),
        b"{nonsense",
        {"method": "POST", "url": CHAT, "body": body},
        line("a"),
        line("b", url="/v1/embeddings"),
        line("c", stream=True),
        line("d") | {"method": "GET"},
        {"custom_id": "e", "method": "POST", "url": CHAT},
        b"",
        b"[1]",
        {"custom_id": "f", "method": "POST", "url": CHAT, "body": {"stream": "yes"}},
    ]
    batch = await over(sdk, (await begun(sdk, lines)).id)
    assert (batch.status, batch.output_file_id, batch.error_file_id) == ("failed", None, None)
    assert batch.failed_at is not None
    assert [(each.line, each.code, each.param) for each in batch.errors.data] == [
        (2, "invalid_json_line", None),
        (3, "missing_required_parameter", "custom_id"),
        (4, "duplicate_custom_id", "custom_id"),
        (5, "invalid_url", "url"),
        (6, "invalid_request", "body.stream"),
        (7, "invalid_method", "method"),
        (8, "missing_required_parameter", "body"),
        (10, "invalid_request", None),
        (11, "invalid_request", "body"),
    ]
    assert all(each.message for each in batch.errors.data)
    assert not [seen for seen in house.upstream.seen if seen.path == CHAT]
    batch = await over(sdk, (await begun(sdk, [b"", b"  "])).id)
    assert [each.code for each in batch.errors.data] == ["empty_file"]


async def test_what_cannot_be_a_batch_is_refused_at_once(house: House) -> None:
    sdk = await house.sdk()
    file = await sdk.files.create(file=("a.jsonl", jsonl([line("a")])), purpose="batch")
    for wrong, param in (
        ({"endpoint": "/v1/images"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
        ({"completion_window": "9999d"}, "completion_window"),
        ({"metadata": {"k": "x" * 600}}, "metadata"),
        ({"input_file_id": "file_none"}, "id"),
        ({"extra_body": {"n": 1}}, "n"),
    ):
        wanted: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **wrong}
        with pytest.raises(openai.APIStatusError) as refused:
            await sdk.batches.create(**wanted)
        assert refused.value.status_code in (400, 404), wrong
        assert refused.value.body["param"] == param, wrong
    done = await over(sdk, (await begun(sdk, [line("a")])).id)
    with pytest.raises(openai.BadRequestError):
        await sdk.batches.create(input_file_id=done.output_file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.ConflictError):
        await sdk.batches.cancel(done.id)


async def test_files_are_kept_listed_read_and_deleted(house: House) -> None:
    sdk = await house.sdk()
    made = [await sdk.files.create(file=(f"{n}.jsonl", b"{}\n" * (n + 1)), purpose="batch") for n in range(5)]
    assert (made[1].filename, made[1].bytes, made[1].status) == ("1.jsonl", 6, "processed")
    assert made[0].expires_at - made[0].created_at == 30 * 86_400
    ids = [each.id for each in made]
    assert [each.id async for each in sdk.files.list(limit=2)] == ids[::-1]
    assert [each.id async for each in sdk.files.list(limit=2, order="asc", purpose="batch")] == ids
    assert [each.id for each in (await sdk.files.list(after=ids[1], order="asc")).data] == ids[2:]
    assert (await sdk.files.content(ids[2])).content == b"{}\n" * 3
    assert (await sdk.files.delete(ids[2])).deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(ids[2])
    later = await sdk.files.create(
        file=("x.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert later.expires_at - later.created_at == 3600
    batches = [await begun(sdk, [line("a")]) for _ in range(3)]
    assert [each.id async for each in sdk.batches.list(limit=2)] == [each.id for each in batches[::-1]]


async def test_uploads_that_are_refused_leave_nothing(house: House, tmp_path: Path) -> None:
    sdk = await house.sdk()
    for content, more in (
        (b"x" * 100_001, {"purpose": "batch"}),
        (b"", {"purpose": "batch"}),
        (b"{}", {"purpose": "assistants"}),
        (b"{}", {"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 1}}),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            await sdk.files.create(file=("a.jsonl", content), **more)
        assert refused.value.status_code in (400, 413)
    headers = {"authorization": f"Bearer {sdk.api_key}"}
    for files, data in (
        ({}, {"purpose": "batch"}),
        ({"other": b"{}"}, {"purpose": "batch"}),
        ({"file": ("a", b"{}")}, {"x": "y"}),
    ):
        answer = await house.client.post("/v1/files", headers=headers, files=files or None, data=data)
        assert answer.status_code in (400, 415), answer.text
    assert (await sdk.files.list()).data == []
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


async def test_a_cancelled_batch_keeps_what_was_answered(house: House) -> None:
    sdk = await house.sdk()
    release = asyncio.Event()
    house.upstream.on(CHAT, completion(), Reply([release, *completion().body]))
    batch = await begun(sdk, [line(str(n), f"{n}") for n in range(200)])
    await answered(sdk, batch.id, 1)
    with pytest.raises(openai.ConflictError):  # it is being read
        await sdk.files.delete(batch.input_file_id)
    told = await sdk.batches.cancel(batch.id)
    assert told.status == "cancelling"
    assert told.cancelling_at is not None
    release.set()  # what is under way may end
    done = await over(sdk, batch.id)
    assert done.status == "cancelled"
    made = len([seen for seen in house.upstream.seen if seen.path == CHAT])
    assert done.request_counts.model_dump() == {"total": 200, "completed": made, "failed": 200 - made}
    assert made <= 51
    assert (await sdk.files.delete(batch.input_file_id)).deleted


@pytest.mark.parametrize("how", ["batch", "job"])
async def test_cancelled_while_it_waits_for_room_each_line_is_told_of_once(house: House, how: str) -> None:
    sdk = await house.sdk()
    key_id = (await house.owner.get("/api/keys")).json()["items"][0]["id"]
    again = await house.sdk()
    assert (await house.owner.put(f"/api/limits/key:{key_id}", {"requests_per_minute": 7})).status_code == 200
    batch = await begun(sdk, [line(str(n)) for n in range(100)])
    await answered(again, batch.id, 5)  # the file and the batch were two more
    if how == "batch":
        assert (await again.batches.cancel(batch.id)).status == "cancelling"
    else:
        assert (await house.owner.post(f"/api/jobs/{batch.job_id}/cancel")).status_code == 200
    done = await over(again, batch.id)
    assert done.status == "cancelled"
    assert done.request_counts.model_dump() == {"total": 100, "completed": 5, "failed": 95}
    answers, errors = await read(sdk, done.output_file_id), await read(sdk, done.error_file_id)
    assert {each["custom_id"] for each in answers + errors} == {str(n) for n in range(100)}
    assert len(answers + errors) == 100
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert len([seen for seen in house.upstream.seen if seen.path == CHAT]) == 5


async def test_a_batch_waits_for_room_and_lets_others_pass(house: House) -> None:
    """Nobody who asks now is told that a batch waits before them."""
    sdk = await house.sdk()
    await house.owner.put(f"/api/limits/user:{house.owner.id}", {"concurrent_requests": 3})
    batch = await begun(sdk, [line(str(n)) for n in range(40)])
    done = await over(sdk, batch.id)
    assert done.request_counts.completed == 40


async def test_nobody_sees_anothers_files_and_batches(house: House) -> None:
    mine = await house.sdk()
    theirs = await house.sdk(await invited(house.owner, "Eve", "member"))
    batch = await over(mine, (await begun(mine, [line("a")])).id)
    for call in (
        theirs.files.retrieve(batch.input_file_id),
        theirs.files.content(batch.output_file_id),
        theirs.files.delete(batch.input_file_id),
        theirs.batches.retrieve(batch.id),
        theirs.batches.cancel(batch.id),
        theirs.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"),
    ):
        with pytest.raises(openai.NotFoundError):
            await call
    assert (await theirs.files.list()).data == []
    assert (await theirs.batches.list()).data == []
    assert (await mine.batches.retrieve(batch.id)).status == "completed"
    reading = await house.sdk(scopes=["documents:read"])
    for call in (reading.files.list(), reading.batches.list(), reading.files.retrieve(batch.input_file_id)):
        with pytest.raises(openai.PermissionDeniedError):
            await call
    walled = await house.sdk(models=["other/*"])
    held = await over(walled, (await begun(walled, [line("a")])).id)
    assert (await read(walled, held.error_file_id))[0]["response"]["status_code"] == 403


async def test_unknown_paths_and_methods(house: House) -> None:
    sdk = await house.sdk()
    headers = {"authorization": f"Bearer {sdk.api_key}"}
    for method, path, status in (
        ("PUT", "/v1/files", 405),
        ("POST", "/v1/files/file_x", 405),
        ("GET", "/v1/files/file_x/other", 404),
        ("GET", "/v1/batches/x/cancel", 405),
        ("GET", "/v1/filesystem", 404),
        ("GET", "/v1/files?limit=x", 400),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/files?order=up", 400),
        ("GET", "/v1/batches?limit=101", 400),
    ):
        answer = await house.client.request(method, path, headers=headers)
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.json()["error"]["message"]
    assert (await house.client.get("/v1/files")).status_code == 401
