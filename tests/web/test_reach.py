"""How far a role, a key or a stream reaches: to what it was given for, and no longer than that."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from terrace.settings import Settings
from terrace.web.api.archive import _inside
from terrace.web.rules import KEYS, RULES
from tests.web.conftest import Client
from tests.web.people import PASSWORD, Person, invited, register, tenant
from tests.web.routes import every

SECRET = "the lighthouse keeper's name"


@pytest.fixture
async def owner(client: Client) -> Person:
    return await register(client, "Ada")


async def key_of(person: Person, *scopes: str) -> dict[str, str]:
    """Headers of a new key of theirs."""
    made = await person.post("/api/keys", {"name": "k", "scopes": list(scopes)})
    assert made.status_code == 201, made.text
    return {"authorization": f"Bearer {made.json()['secret']}"}


# -- jobs of others


async def test_an_admin_sees_how_others_jobs_do_and_not_what_they_say(owner: Person) -> None:
    ann, bob = await invited(owner, "Ann", "admin"), await invited(owner, "Bob", "member")
    job_id = (await bob.post("/api/chat", {"message": SECRET})).json()["job_id"]
    mine = (await bob.get(f"/api/jobs/{job_id}")).json()
    assert mine["result"] is not None
    assert SECRET in (await bob.get(f"/api/jobs/{job_id}/events")).text + json.dumps(mine)
    for boss in (ann, owner):
        job = (await boss.get(f"/api/jobs/{job_id}")).json()
        assert (job["state"], job["user"], job["payload"], job["result"]) == ("succeeded", bob.id, {}, None)
        [listed] = [each for each in (await boss.get("/api/jobs")).json()["items"] if each["id"] == job_id]
        assert (listed["payload"], listed["result"]) == ({}, None)
        assert (await boss.get(f"/jobs/{job_id}/status")).json()["result"] is None
        stopped = await boss.post(f"/api/jobs/{job_id}/cancel")
        assert (stopped.status_code, stopped.json()["result"]) == (200, None)
        assert (await boss.post(f"/api/jobs/{job_id}/retry")).status_code == 409
        events = await boss.get(f"/api/jobs/{job_id}/events")
        assert (events.status_code, events.json()["code"]) == (403, "private_job")
    seen = (await owner.get("/api/audit?action=job")).json()["items"]
    assert [(each["actor"], each["action"], each["subject"]) for each in seen] == [
        (boss.id, "job.cancelled", job_id) for boss in (owner, ann)
    ]


async def test_the_feed_of_jobs_says_nothing_of_what_others_asked(owner: Person) -> None:
    bob = await invited(owner, "Bob", "member")
    headers = {"authorization": f"Bearer {owner.access}"}
    async with owner.client.stream("GET", "/api/jobs/events", headers=headers) as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == ": connected"
        job_id = (await bob.post("/api/chat", {"message": SECRET})).json()["job_id"]
        async with asyncio.timeout(30):
            async for job in jobs_in(lines):
                assert (job["payload"], job["result"]) == ({}, None)
                if job["id"] == job_id and job["state"] == "succeeded":
                    break


async def jobs_in(lines: AsyncIterator[str]) -> AsyncIterator[Any]:
    async for line in lines:
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


async def test_the_terminal_and_local_mode_see_all_of_every_job(client: Client, settings: Settings) -> None:
    job_id = (await client.post("/api/chat", json={"message": SECRET})).json()["job_id"]
    assert (await client.get(f"/api/jobs/{job_id}")).json()["result"] is not None
    await register(client, "Ada")
    token = json.loads((settings.data / "server.json").read_text())["token"]
    terminal = {"authorization": f"Bearer {token}"}
    assert (await client.get(f"/api/jobs/{job_id}", headers=terminal)).json()["result"] is not None
    assert (await client.get(f"/api/jobs/{job_id}/events", headers=terminal)).status_code == 200


async def test_stopping_and_repeating_needs_what_beginning_needs(owner: Person) -> None:
    viewer, member = await invited(owner, "Vic", "viewer"), await invited(owner, "Mel", "member")
    uploaded = await owner.upload("quay.txt", b"The quay is seven metres deep.")
    await owner.ready(uploaded["document"]["id"])
    shared, private = uploaded["job_id"], (await member.post("/api/chat", {"message": "x"})).json()["job_id"]
    for act in ("cancel", "retry"):
        refused = await viewer.post(f"/api/jobs/{shared}/{act}")
        assert (refused.status_code, refused.json().get("permission")) == (403, "documents:write")
        assert (await member.post(f"/api/jobs/{shared}/{act}")).status_code == (200 if act == "cancel" else 409)
        reader = await key_of(member, "documents:read", "documents:write")
        refused = await member.client.post(f"/api/jobs/{private}/{act}", headers=reader)
        assert (refused.status_code, refused.json().get("permission")) == (403, "chat")
    assert (await owner.patch(f"/api/members/{member.id}", {"role": "viewer"})).status_code == 200
    refused = await member.post(f"/api/jobs/{private}/retry")
    assert (refused.status_code, refused.json().get("permission")) == (403, "chat")


# -- keys


async def test_a_key_made_for_documents_reads_no_conversations(owner: Person) -> None:
    told = (await owner.post("/api/chat", {"message": SECRET})).json()
    asked = (await owner.post("/api/questions", {"question": SECRET})).json()["id"]
    paths = [
        "/api/conversations", f"/api/conversations?q={SECRET}", f"/api/conversations/{told['conversation_id']}",
        f"/api/conversations/{told['conversation_id']}/export", f"/api/questions/{asked}", f"/questions/{asked}",
        "/api/users/me/questions", f"/users/{owner.id}/questions", "/api/keys",
    ]  # fmt: skip
    narrow, wide = await key_of(owner, "documents"), await key_of(owner, "chat", "keys")
    for path in paths:
        refused = await owner.client.get(path, headers=narrow)
        assert (refused.status_code, refused.json()["code"]) == (403, "not_permitted"), path
        assert (await owner.client.get(path, headers=wide)).status_code == 200, path
    job = (await owner.client.get(f"/api/jobs/{told['job_id']}", headers=narrow)).json()
    assert (job["payload"], job["result"]) == ({}, None)
    assert (await owner.client.get(f"/api/jobs/{told['job_id']}/events", headers=narrow)).status_code == 403
    assert (await owner.client.get(f"/api/jobs/{told['job_id']}/events", headers=wide)).status_code == 200


async def test_a_key_made_for_asking_reads_no_jobs_of_documents(owner: Person) -> None:
    job_id = (await owner.upload("quay.txt", b"The quay is seven metres deep."))["job_id"]
    asking, uploading = await key_of(owner, "chat"), await key_of(owner, "documents:write")
    for headers, status in ((asking, 403), (uploading, 200)):
        job = (await owner.client.get(f"/api/jobs/{job_id}", headers=headers)).json()
        assert bool(job["payload"]) == (status == 200)
        assert (await owner.client.get(f"/api/jobs/{job_id}/events", headers=headers)).status_code == status


async def test_a_key_for_campaigns_reaches_no_other_room_and_no_other_room_campaigns(owner: Person) -> None:
    upload = (await owner.upload("quay.txt", b"The quay is seven metres deep."))["job_id"]
    await owner.post("/api/contacts", {"key": "1", "name": "Bo", "lists": ["Clients"]})
    template = (
        await owner.post("/api/templates", {"name": "t", "body": "Dear {{contact.name}}", "mode": "fill"})
    ).json()
    made = await owner.post("/api/campaigns", {"list_id": "Clients", "template_id": template["id"]})
    campaign = made.json()["id"]
    started = (await owner.post(f"/api/campaigns/{campaign}/start")).json()["job_id"]
    writing, sending = await key_of(owner, "documents:write"), await key_of(owner, "campaigns")
    for job_id, headers, status, permission in (
        (started, writing, 403, "campaigns"), (started, sending, 200, None),
        (upload, sending, 403, "documents:write"), (upload, writing, 200, None),
    ):  # fmt: skip
        job = (await owner.client.get(f"/api/jobs/{job_id}", headers=headers)).json()
        assert bool(job["payload"]) == (status == 200)
        told = await owner.client.post(f"/api/jobs/{job_id}/cancel", headers=headers)
        assert (told.status_code, told.json().get("permission")) == (status, permission)
    said = (await owner.post("/api/chat", {"message": SECRET})).json()["conversation_id"]
    contact = (await owner.get("/api/contacts")).json()["items"][0]["id"]
    body = {"conversation_id": said}
    refused = await owner.client.post(f"/api/contacts/{contact}/history", json=body, headers=sending)
    assert (refused.status_code, refused.json()["permission"]) == (403, "chat")
    both = await key_of(owner, "campaigns", "chat")
    copied = await owner.client.post(f"/api/contacts/{contact}/history", json=body, headers=both)
    assert SECRET in copied.text


async def test_a_schedule_is_no_way_to_a_model_that_its_maker_may_not_use(owner: Person) -> None:
    await owner.post("/api/contacts", {"key": "1", "name": "Bo", "lists": ["Clients"]})
    template = (await owner.post("/api/templates", {"name": "t", "body": "Write to {{contact.name}}."})).json()
    wanted = {"list_id": "Clients", "template_id": template["id"], "model": "quote"}
    made = await owner.post("/api/campaigns", wanted)
    body = {
        "name": "later", "action": "campaign.start", "payload": {"campaign_id": made.json()["id"]}, "every": 3600,
    }  # fmt: skip
    refused = await owner.client.post("/api/schedules", json=body, headers=await key_of(owner, "sources"))
    assert (refused.status_code, refused.json()["permission"]) == (403, "campaigns")
    for models, status in ((["openai/*"], 403), (["quote"], 201)):
        scopes = {"name": "k", "scopes": ["campaigns", "sources"], "models": models}
        key = (await owner.post("/api/keys", scopes)).json()["secret"]
        told = await owner.client.post("/api/schedules", json=body, headers={"authorization": f"Bearer {key}"})
        assert told.status_code == status, told.text
        if status == 403:
            assert told.json()["code"] == "model_not_allowed"


def test_what_a_key_needs_is_said_of_routes_open_to_anyone() -> None:
    assert {RULES[name] for name in KEYS} == {"anyone"}


async def test_a_key_may_what_its_scopes_say_and_nothing_else(owner: Person) -> None:
    """Every route that needs a permission, with a key of an operator that has all the others."""
    wrong = []
    for permission in ("chat", "documents:write", "keys", "members", "tenant", "operator", "audit", "limits"):
        rest = {"chat", "documents:read", "documents:write", "keys", "jobs:all", "members", "limits", "usage:all",
                "audit", "tenant", "operator"} - {permission}  # fmt: skip
        headers = {**await key_of(owner, *rest), "content-type": "application/json"}
        for route in every():
            if permission in (route.rule, KEYS.get(route.canonical)):
                path = route.at(dict.fromkeys(route.names, "1") | {"subject": "user:1"})
                answer = await owner.client.request(route.method, path, content=b"[]", headers=headers)
                if (answer.status_code, answer.json()["code"]) != (403, "not_permitted"):
                    wrong.append((permission, str(route), answer.status_code))
    assert wrong == []


async def test_nobody_has_a_key_that_is_somebody_else(owner: Person) -> None:
    """Its holder would read what is that person's alone."""
    ann, bob = await invited(owner, "Ann", "admin"), await invited(owner, "Bob", "member")
    for boss in (ann, owner):
        made = await boss.post("/api/keys", {"name": "k", "user_id": bob.id})
        assert (made.status_code, made.json()["code"]) == (403, "not_your_key")


# -- roles


async def test_an_admin_sets_no_limits_to_an_owner(owner: Person) -> None:
    ann, bob = await invited(owner, "Ann", "admin"), await invited(owner, "Bob", "member")
    made = (await owner.post("/api/keys", {"name": "k"})).json()["key"]["id"]
    for subject in (f"user:{owner.id}", f"key:{made}"):
        refused = await ann.put(f"/api/limits/{subject}", {"requests_per_minute": 1})
        assert (refused.status_code, refused.json()["code"]) == (403, "above_you")
        assert (await owner.put(f"/api/limits/{subject}", {"requests_per_minute": 1000})).status_code == 200
    for whose in (ann, bob):
        assert (await ann.put(f"/api/limits/user:{whose.id}", {"documents": 5})).status_code == 200


async def test_a_link_to_a_password_does_not_rise_with_its_person(owner: Person) -> None:
    ann, bob = await invited(owner, "Ann", "admin"), await invited(owner, "Bob", "member")
    early = (await ann.post(f"/api/users/{bob.id}/reset-link")).json()["token"]
    assert (await owner.patch(f"/api/members/{bob.id}", {"role": "owner"})).status_code == 200
    taken = await ann.client.post("/api/auth/reset", json={"token": early, "password": "eight drifting buoys"})
    assert (taken.status_code, taken.json()["code"]) == (404, "reset_invalid")


async def test_a_link_to_a_password_does_not_lead_into_another_tenant(owner: Person) -> None:
    ann, bob = await invited(owner, "Ann", "admin"), await invited(owner, "Bob", "member")
    elsewhere = await tenant(owner, "Acme", "Olga")
    offer = (await elsewhere.post("/api/invitations", {"role": "owner"})).json()["token"]
    early = (await ann.post(f"/api/users/{bob.id}/reset-link")).json()["token"]
    assert (await bob.post("/api/auth/accept", {"token": offer})).status_code == 200
    taken = await ann.client.post("/api/auth/reset", json={"token": early, "password": "eight drifting buoys"})
    assert (taken.status_code, taken.json()["code"]) == (404, "reset_invalid")


# -- streams


@pytest.mark.parametrize("way", ["logout", "removed", "demoted", "key"])
async def test_an_open_stream_ends_with_what_opened_it(owner: Person, way: str) -> None:
    ann = await invited(owner, "Ann", "admin")
    headers = {"authorization": f"Bearer {ann.access}"}
    if way == "key":
        made = (await ann.post("/api/keys", {"name": "k"})).json()
        headers = {"authorization": f"Bearer {made['secret']}"}
    async with ann.client.stream("GET", "/api/jobs/events", headers=headers) as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == ": connected"
        before = await owner.upload("before.txt", b"Words.")
        async with asyncio.timeout(30):
            async for job in jobs_in(lines):
                if job["id"] == before["job_id"]:
                    break
            match way:
                case "logout":
                    done = await ann.post("/api/auth/logout", {})
                case "removed":
                    done = await owner.delete(f"/api/members/{ann.id}")
                case "demoted":
                    done = await owner.patch(f"/api/members/{ann.id}", {"role": "member"})
                case _:
                    done = await owner.delete(f"/api/keys/{made['key']['id']}")
            assert done.status_code in (200, 204)
            after = await owner.upload("after.txt", b"Other words.")
            assert after["job_id"] not in [job["id"] async for job in jobs_in(lines)]


# -- odd input


async def test_ids_that_are_no_text_find_nothing(owner: Person) -> None:
    body = b'{"query": "x", "documents": ["\\ud800"]}'
    answer = await owner.request("POST", "/api/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("documents/doc_1/a b.pdf", "documents/doc_1/a b.pdf"),
        ("documents/doc_1/..", "documents/doc_1/.._"),
        ("documents/doc_1/. .", "documents/doc_1/. ._"),
        ("documents/doc_1/a\x00\n.txt", "documents/doc_1/a__.txt"),
        ("documents/doc_1/\u202egpj.exe", "documents/doc_1/_gpj.exe"),
    ],
)
def test_an_archive_unpacks_below_its_folder(path: str, inside: str) -> None:
    assert _inside(path) == inside


async def test_an_export_of_odd_names_unpacks(owner: Person) -> None:
    for name in ("..", "=1+1.csv", "a\\..\\b.txt"):
        await owner.upload(name, f"Words of {name}.".encode())
    answer = await owner.get("/api/tenant/export")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert all(".." not in name.split("/") and "\\" not in name for name in names)


async def test_who_comes_through_a_proxy_does_not_sit_here(client: Client) -> None:
    body = {"name": "Eve", "email": "eve@example.org", "password": PASSWORD}
    for header in ("x-forwarded-for", "x-forwarded-proto", "forwarded", "via", "cf-connecting-ip"):
        refused: httpx.Response = await client.post("/api/users", json=body, headers={header: "127.0.0.1"})
        assert (refused.status_code, refused.json()["code"]) == (403, "setup_code_wrong"), header


async def test_an_export_stands_in_the_audit_log(owner: Person) -> None:
    """Of both, where an operator exports another tenant."""
    acme = await tenant(owner, "Acme", "Olga")
    assert (await acme.get("/api/tenant/export")).status_code == 200
    assert (await owner.get(f"/api/tenants/{acme.tenant}/export")).status_code == 200
    seen = (await acme.get("/api/audit?action=tenant.exported")).json()["items"]
    assert [(each["actor"], each["subject"]) for each in seen] == [(owner.id, acme.tenant), (acme.id, acme.tenant)]
    seen = (await owner.get("/api/audit?action=tenant.exported")).json()["items"]
    assert [(each["actor"], each["subject"]) for each in seen] == [(owner.id, acme.tenant)]


async def test_what_was_open_without_a_login_ends_with_the_first_account(client: Client) -> None:
    async with client.stream("GET", "/api/jobs/events") as stream:
        lines = stream.aiter_lines()
        assert await anext(lines) == ": connected"
        ada = await register(client, "Ada")
        uploaded = await ada.upload("after.txt", b"Words.")
        async with asyncio.timeout(30):
            assert uploaded["job_id"] not in [job["id"] async for job in jobs_in(lines)]


async def test_a_key_cannot_make_itself_stronger(owner: Person) -> None:
    body = {
        "name": "k", "scopes": ["keys", "chat"], "models": ["openai/*"], "addresses": ["127.0.0.0/8"],
        "expires_at": "2099-01-01T00:00:00Z",
    }  # fmt: skip
    made = (await owner.post("/api/keys", body)).json()
    path, headers = f"/api/keys/{made['key']['id']}", {"authorization": f"Bearer {made['secret']}"}
    for wider in (
        {"scopes": []}, {"scopes": ["keys", "chat", "members"]}, {"models": []}, {"models": ["*"]}, {"addresses": []},
        {"addresses": ["0.0.0.0/0"]}, {"expires_at": None}, {"expires_at": "2199-01-01T00:00:00Z"},
    ):  # fmt: skip
        refused = await owner.client.patch(path, json=wider, headers=headers)
        assert refused.status_code == 403, (wider, refused.text)
    assert (await owner.get(path)).json() | {"last_used_at": None} == made["key"]
    narrower = await owner.client.patch(path, json={"scopes": ["keys"], "name": "less"}, headers=headers)
    assert (narrower.status_code, narrower.json()["scopes"], narrower.json()["name"]) == (200, ["keys"], "less")
