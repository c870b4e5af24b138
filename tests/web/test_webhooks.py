"""Webhooks over the API and from the command line, from a whole house to a receiver on loopback."""

import asyncio
import json
from pathlib import Path

import pytest

from terrace.settings import Settings
from tests.cli.conftest import Done, environment, invoke
from tests.models.transport_server import plain
from tests.web.conftest import Client, in_folder, served
from tests.web.people import invited, register, tenant
from tests.webhooks.conftest import eventually
from tests.webhooks.receiver import OK, Receiver, receiving

OOPS = plain(b"no", b"500 Oops", b"Retry-After: 3600")  # nobody tries again by himself meanwhile


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return in_folder(tmp_path / "data").model_copy(
        update={"outbound": Settings.model_fields["outbound"].default.model_copy(update={"allow": ("127.0.0.1",)})}
    )


async def test_documents_and_jobs_tell_how_they_ended(client: Client) -> None:
    async with receiving() as receiver:
        made = (await client.post("/api/webhooks", json={"url": receiver.url})).json()
        document = await client.upload()
        broken = await client.upload("broken.pdf", b"%PDF-1.7 and then nothing")
        await client.ready(document["id"])
        await client.ready(broken["id"])
        told = await eventually(lambda: four(receiver))
    by_type = {each.json["type"]: each.json["data"] for each in told}
    assert by_type["document.ready"]["id"] == document["id"]
    assert by_type["document.ready"]["name"] == "quay.txt"
    assert by_type["document.ready"]["chunks"] == 1
    assert by_type["document.failed"]["id"] == broken["id"]
    assert by_type["document.failed"]["error"]["message"]
    assert by_type["job.succeeded"]["kind"] == by_type["job.failed"]["kind"] == "knowledge.ingest"
    assert all(each.signed_by(made["secret"]) for each in told)


async def four(receiver: Receiver) -> list[object]:
    return list(receiver.received) if len(receiver.received) >= 4 else []


async def test_an_endpoint_from_first_to_last(client: Client) -> None:
    async with receiving(OOPS, OK) as receiver:
        answer = await client.post("/api/webhooks", json={"url": receiver.url, "events": ["webhook.test"]})
        assert answer.status_code == 201
        at = f"/api/webhooks/{answer.json()['webhook']['id']}"
        assert "secret" not in (await client.get(at)).json()
        sent = await client.post(f"{at}/test")
        assert sent.status_code == 202
        delivery = f"{at}/deliveries/{sent.json()['id']}"

        async def tried() -> bool:
            return (await client.get(delivery)).json()["delivery"]["attempts"] == 1

        await eventually(tried)
        detail = (await client.get(delivery)).json()
        assert (detail["delivery"]["state"], detail["answer"], detail["tries"][0]["status"]) == ("queued", "no", 500)
        assert (await client.post(f"{delivery}/redeliver")).status_code == 202

        async def delivered() -> bool:
            items = (await client.get(f"{at}/deliveries", params={"state": "delivered"})).json()["items"]
            return len(items) == 1

        await eventually(delivered)
    assert len(set(receiver.ids)) == 1
    rotated = (await client.post(f"{at}/rotate", json={"overlap": 60})).json()
    assert rotated["secret"] != answer.json()["secret"]
    assert (await client.patch(at, json={"enabled": False})).json()["enabled"] is False
    assert (await client.post(f"{at}/test")).json()["code"] == "webhook_off"
    assert (await client.delete(at)).status_code == 204
    assert (await client.get(at)).status_code == 404
    types = (await client.get("/api/webhooks/events")).json()
    assert "job.*" in types["families"]
    assert types["signing_secret"].startswith("whsec_")


async def test_a_private_address_is_refused_at_the_door(client: Client) -> None:
    for url in ("http://10.0.0.1/", "http://127.0.0.2/", "http://[::1]/", "http://3232235521/"):
        answer = await client.post("/api/webhooks", json={"url": url})
        assert (answer.status_code, answer.json()["code"]) == (422, "private_target")


async def test_so_is_the_address_of_one_analysis_or_campaign(client: Client) -> None:
    to = {"webhook": "http://10.0.0.1/hook"}
    analysis = await client.post("/api/analyses", files={"file": ("quay.txt", b"The quay.")}, data=to)
    template = (await client.post("/api/templates", json={"name": "Hello", "mode": "fill", "body": "Hello"})).json()
    contact = {"key": "ada", "name": "Ada", "lists": ["Clients"]}
    assert (await client.post("/api/contacts", json=contact)).status_code == 201
    wanted = {"list_id": "Clients", "template_id": template["id"], **to}
    campaign = await client.post("/api/campaigns", json=wanted)
    for answer in (analysis, campaign):
        assert (answer.status_code, answer.json()["code"]) == (422, "private_target")
    assert (await client.get("/api/analyses")).json()["items"] == []


async def test_only_administrators_and_their_own_tenants(client: Client) -> None:
    operator = await register(client, "Root")
    acme, globex = await tenant(operator, "Acme", "Ada"), await tenant(operator, "Globex", "Bob")
    made = (await acme.post("/api/webhooks", {"url": "https://acme.invalid/", "events": ["webhook.test"]})).json()
    at = f"/api/webhooks/{made['webhook']['id']}"
    sent = (await acme.post(f"{at}/test")).json()
    for method, path, body in (
        ("GET", at, None),
        ("PATCH", at, {"enabled": False}),
        ("DELETE", at, None),
        ("POST", f"{at}/test", None),
        ("POST", f"{at}/rotate", {}),
        ("GET", f"{at}/deliveries", None),
        ("GET", f"{at}/deliveries/{sent['id']}", None),
        ("POST", f"{at}/deliveries/{sent['id']}/redeliver", None),
    ):
        assert (await globex.request(method, path, json=body)).status_code == 404, (method, path)
    assert (await globex.get("/api/webhooks")).json()["items"] == []
    member = await invited(acme, "Mem", "member")
    assert (await member.get("/api/webhooks")).status_code == 403
    actions = [each["action"] for each in (await acme.get("/api/audit?action=webhook")).json()["items"]]
    assert actions == ["webhook.tested", "webhook.created"]


async def test_the_command_line(settings: Settings, tmp_path: Path) -> None:
    async with served(settings) as client, receiving(OK, OOPS, OK) as receiver:

        async def terrace(*arguments: str) -> Done:
            surroundings = environment(tmp_path / "data", TERRACE_SERVER=str(client.base_url).rstrip("/"))
            return await asyncio.to_thread(invoke, surroundings, "webhooks", *arguments)

        assert "no webhooks" in (await terrace("list")).out
        made = await terrace("add", receiver.url, "--event", "webhook.*", "--event", "job.failed", "--description", "x")
        secret = made.out.strip()
        assert secret.startswith("whsec_")
        assert receiver.url in (await terrace("list")).out
        assert (await terrace("test", receiver.url)).out.startswith("webhook.test arrived: 200")
        assert receiver.received[0].signed_by(secret)
        failed = await terrace("test", receiver.url)
        assert (failed.code, "answered 500" in failed.err) == (7, True)
        log = json.loads((await terrace("log", receiver.url, "--json")).out)
        assert [each["state"] for each in log] == ["queued", "delivered"]
        again = await terrace("redeliver", receiver.url, log[0]["id"])
        assert (again.code, "arrived" in again.out) == (0, True)
        assert receiver.received[-1].id == log[0]["event_id"]
        assert (await terrace("rotate", receiver.url, "--overlap", "1h")).out.strip() != secret
        assert (await terrace("disable", receiver.url)).code == 0
        assert (await terrace("test", receiver.url)).code == 5
        assert (await terrace("enable", receiver.url)).code == 0
        assert (await terrace("remove", receiver.url, "--yes")).code == 0
        assert (await terrace("log", "whk_none")).code == 4
