"""The question service by its promised short paths, as its users' programs call it."""

import asyncio
import json
from typing import Any

import pytest

from terrace.settings import Settings
from tests.models.upstream import Upstream
from tests.models.wires import AnthropicWire
from tests.web.conftest import Client, served
from tests.web.people import PASSWORD, register

ADA = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
BOB = {"name": "Bob", "email": "bob@example.org", "password": PASSWORD}


async def curl(client: Client, method: str, path: str, *options: str, json_body: Any = None) -> tuple[int, Any]:
    """What the documentation tells people to type."""
    body = [] if json_body is None else ["-d", json.dumps(json_body), "-H", "Content-Type: application/json"]
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-X", method, "-w", "\n%{http_code}", *body, *options, f"{client.base_url}".rstrip("/") + path,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    text, _, status = (await process.communicate())[0].decode().rpartition("\n")
    return int(status), json.loads(text) if text else None


async def test_by_curl_from_registration_to_logout(client: Client) -> None:
    status, ada = await curl(client, "POST", "/users", json_body=ADA)
    assert status == 201
    assert (ada["name"], ada["email"]) == ("Ada", "ada@example.org")
    assert "password" not in json.dumps({key: value for key, value in ada.items() if key != "has_password"})
    assert (await curl(client, "POST", "/users", json_body={**ADA, "email": "ADA@example.org"}))[0] == 409
    status, login = await curl(
        client, "POST", "/auth/login", json_body={"email": "ada@example.org", "password": PASSWORD}
    )
    assert status == 200
    token = ("-H", f"x-access-token: {login['access_token']}")
    assert (await curl(client, "GET", f"/users/{ada['id']}", *token))[1]["email"] == "ada@example.org"
    question = {"question": "What is the notice period?"}
    assert (await curl(client, "POST", "/questions", json_body=question))[0] == 401
    status, asked = await curl(client, "POST", "/questions", *token, json_body=question)
    assert status == 201
    assert asked["question"] == "What is the notice period?"
    assert asked["answer"]
    assert (await curl(client, "GET", f"/questions/{asked['id']}", *token))[1] == asked
    assert (await curl(client, "GET", f"/users/{ada['id']}/questions", *token))[1]["items"] == [asked]

    assert (await curl(client, "POST", "/users", json_body=BOB))[0] == 201
    _, other = await curl(client, "POST", "/auth/login", json_body={"email": BOB["email"], "password": PASSWORD})
    bob = ("-H", f"Authorization: Bearer {other['access_token']}")
    for path in (f"/questions/{asked['id']}", f"/users/{ada['id']}", f"/users/{ada['id']}/questions"):
        assert (await curl(client, "GET", path, *bob))[0] == 404, path
    assert (await curl(client, "GET", f"/users/{other['user']['id']}/questions", *bob))[1]["items"] == []

    status, fresh = await curl(client, "POST", "/auth/refresh", json_body={"refresh_token": login["refresh_token"]})
    assert status == 200
    token = ("-H", f"x-access-token: {fresh['access_token']}")
    assert (await curl(client, "GET", f"/questions/{asked['id']}", *token))[0] == 200
    status, said = await curl(client, "POST", "/auth/logout", *token)
    assert (status, said) == (200, {"status": "logged out"})
    assert (await curl(client, "GET", f"/questions/{asked['id']}", *token))[0] == 401
    assert (await curl(client, "POST", "/auth/refresh", json_body={"refresh_token": fresh["refresh_token"]}))[0] == 401


async def test_without_accounts_it_works_too(client: Client) -> None:
    asked = await client.post("/questions", json={"question": "Anybody?"})
    assert asked.status_code == 201
    assert asked.json()["user_id"] is None
    assert (await client.get(f"/questions/{asked.json()['id']}")).json() == asked.json()
    assert [each["id"] for each in (await client.get("/users/me/questions")).json()["items"]] == [asked.json()["id"]]
    assert (await client.get("/users/usr_0/questions")).status_code == 404


async def test_documents_are_asked_and_cited(client: Client) -> None:
    ada = await register(client, "Ada")
    document = (await ada.upload("quay.txt", b"The quay is seven metres deep."))["document"]
    await ada.ready(document["id"])
    asked = (await ada.post("/questions", {"question": "How deep is the quay?"})).json()
    assert "seven metres" in asked["answer"]
    assert [source["document_id"] for source in asked["sources"]] == [document["id"]]
    plain = (await ada.post("/questions", {"question": "How deep is the quay?", "use_rag": False})).json()
    assert plain["sources"] == []


async def test_anthropic_answers_as_any_provider_does(settings: Settings) -> None:
    async with Upstream() as upstream:
        upstream.replies["/v1/messages"] = [AnthropicWire().answer("Four weeks.")]
        provider = {"kind": "anthropic", "base_url": upstream.url, "api_key": "k", "models": ["claude-test"]}
        models = {"discover": False, "default": "claude/claude-test", "providers": {"claude": provider}}
        async with served(Settings.model_validate({**settings.model_dump(), "models": models})) as client:
            ada = await register(client, "Ada")
            asked = await ada.post("/questions", {"question": "What is the notice period?"})
    assert asked.status_code == 201, asked.text
    assert (asked.json()["answer"], asked.json()["model"]) == ("Four weeks.", "claude/claude-test")


async def test_a_question_whose_answer_fails_is_told_and_kept(settings: Settings) -> None:
    provider = {"kind": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": "k", "models": ["gone"]}
    models = {"discover": False, "default": "lab/gone", "retries": 0, "providers": {"lab": provider}}
    async with served(Settings.model_validate({**settings.model_dump(), "models": models})) as client:
        failed = await client.post("/questions", json={"question": "Anybody there?", "model": "lab/gone"})
        assert failed.status_code == 503
        kept = (await client.get(f"/questions/{failed.json()['question_id']}")).json()
    assert (kept["question"], kept["state"]) == ("Anybody there?", "failed")
    assert kept["error"]["message"] == failed.json()["detail"]


async def test_a_list_goes_on_page_by_page(client: Client) -> None:
    asked = [(await client.post("/questions", json={"question": f"Number {n}?"})).json()["id"] for n in range(3)]
    first = (await client.get("/users/me/questions?limit=2")).json()
    rest = (await client.get("/users/me/questions", params={"limit": 2, "cursor": first["next"]})).json()
    assert [each["id"] for each in first["items"] + rest["items"]] == asked[::-1]
    assert rest["next"] is None


async def test_one_idempotency_key_asks_once(client: Client) -> None:
    key = {"idempotency-key": "once"}
    first, again = await asyncio.gather(
        *(client.post("/api/questions", json={"question": "Once?"}, headers=key) for _ in range(2))
    )
    assert first.json() == again.json()
    assert len((await client.get("/users/me/questions")).json()["items"]) == 1
    other = await client.post("/api/questions", json={"question": "Twice?"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 422), ({"question": ""}, 422), ({"question": 3}, 422), ({"question": "x", "model": "no/such"}, 404)],
)
async def test_what_is_no_question_is_told(client: Client, body: Any, status: int) -> None:
    answer = await client.post("/questions", json=body)
    assert answer.status_code == status
    assert answer.json()["detail"]
