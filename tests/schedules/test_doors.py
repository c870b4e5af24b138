"""Schedules and corpus health through the API and the command line, on a whole server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import environment, invoke
from tests.web.conftest import Client, in_folder, served
from tests.web.people import Person, invited, register, tenant


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with served(in_folder(tmp_path / "data")) as client:
        yield client


async def ended(client: Client | Person, job_id: str) -> Any:
    for _ in range(1000):
        job = (await client.get(f"/api/jobs/{job_id}")).json()
        if job["finished_at"]:
            return job
        await asyncio.sleep(0.02)
    raise TimeoutError(job["state"])


async def test_a_schedule_from_its_making_to_its_end(client: Client) -> None:
    checked = (
        await client.post("/api/schedules/check", json={"cron": "30 2 * * 1-5", "timezone": "Asia/Tokyo"})
    ).json()
    assert checked["sentence"] == "Every Monday to Friday at 02:30, Asia/Tokyo."
    assert len(checked["next"]) == 5
    assert checked["next"][0]["local"].endswith("T02:30:00+09:00")
    assert checked["next"][0]["utc"].endswith("T17:30:00Z")
    body = {"name": "Nightly", "action": "index.health", "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
    made = await client.post("/api/schedules", json=body)
    assert made.status_code == 201
    at = f"/api/schedules/{made.json()['id']}"
    run = await client.post(f"{at}/run")
    assert run.status_code == 202
    assert (await ended(client, run.json()["job_id"]))["state"] == "succeeded"
    [told] = (await client.get(f"{at}/runs")).json()["items"]
    assert (told["state"], told["by_hand"], told["job_id"]) == ("succeeded", True, run.json()["job_id"])
    changed = (await client.patch(at, json={"enabled": False, "every": 3600})).json()
    assert (changed["enabled"], changed["cron"], changed["sentence"]) == (False, None, "Every hour.")
    assert (await client.delete(at)).status_code == 204
    assert (await client.get(at)).status_code == 404


SENSELESS = [
    ({"cron": "0 0 31 2 *"}, "never fires"),
    ({"cron": "* * * * * *"}, "Leave seconds"),
    ({"cron": "@daily", "timezone": "Berlin"}, "Is Europe/Berlin meant?"),
    ({}, "Say when it runs"),
    ({"cron": "@daily", "every": 60}, "Say when it runs"),
]


async def test_times_that_make_no_sense_get_a_sentence(client: Client) -> None:
    for times, said in SENSELESS:
        for path, more in (("/api/schedules/check", {}), ("/api/schedules", {"name": "x", "action": "index.health"})):
            refused = await client.post(path, json={**times, **more})
            assert refused.status_code == 422
            assert said in refused.json()["detail"]


async def test_health_is_checked_shown_and_repaired(client: Client) -> None:
    good = await client.upload("good.txt", b"The quay is seven metres deep.")
    await client.ready(good["id"])
    bad = await client.upload("bad.pdf", b"%PDF-1.7 and then nothing")
    assert (await client.ready(bad["id"]))["state"] == "failed"
    assert (await client.get("/api/index/health")).json()["report"] is None
    check = await client.post("/api/index/health/check")
    assert check.status_code == 202
    await ended(client, check.json()["id"])
    shown = (await client.get("/api/index/health")).json()
    [finding] = shown["report"]["findings"]
    assert (finding["kind"], finding["count"], finding["repairable"]) == ("document_failed", 1, True)
    assert finding["examples"][0]["id"] == bad["id"]
    assert 'terrace_corpus_findings{kind="document_failed"} 1.0' in (await client.get("/metrics")).text
    repair = await client.post("/api/index/health/repair", json={"kinds": ["document_failed"]})
    assert repair.status_code == 202
    assert (await ended(client, repair.json()["id"]))["result"]["repaired"] == {"document_failed": 1}
    refused = await client.post("/api/index/health/repair", json={"kinds": ["never_retrieved"]})
    assert refused.status_code == 422
    assert "document_failed" in refused.json()["detail"]


async def test_the_built_in_check_of_everybody_is_the_operators(client: Client) -> None:
    root = await register(client, "Root")
    admin = await invited(root, "Admin", "admin")  # of the same tenant, but no operator
    owner = await tenant(root, "Acme", "Owner")
    [built_in] = (await root.get("/api/schedules")).json()["items"]
    assert (built_in["action"], built_in["every"], built_in["built_in"]) == ("index.health.all", 3600, True)
    assert (await owner.get("/api/schedules")).json()["items"] == []
    at = f"/api/schedules/{built_in['id']}"
    for person, status in ((admin, 403), (owner, 404), (root, 200)):
        assert (await person.patch(at, {"enabled": False})).status_code == status
    assert (await root.delete(at)).status_code == 409
    assert "library.tidy" not in (await owner.get("/api/schedules/actions")).text
    assert "library.tidy" in (await root.get("/api/schedules/actions")).text
    everybodys = {"name": "x", "action": "library.tidy", "every": 3600}
    assert (await owner.post("/api/schedules", everybodys)).status_code == 403
    document = await owner.upload("a.txt", b"Words of Acme.")
    await owner.ready(document["document"]["id"])
    run = (await root.post(f"{at}/run")).json()
    assert (await ended(root, run["job_id"]))["result"]["checks"] == 1


async def test_the_command_line(client: Client, tmp_path: Path) -> None:
    async def terrace(*arguments: str, code: int = 0) -> str:
        server = {"TERRACE_SERVER": str(client.base_url)}
        done = await asyncio.to_thread(invoke, environment(tmp_path / "data", **server), "schedule", *arguments)
        assert done.code == code, done.out + done.err
        return done.out + done.err

    added = await terrace("add", "Nightly", "index.health", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin")
    assert "Every day at 02:30, Europe/Berlin. Next: " in added
    assert " index.health, " in await terrace("add", "x", "nothing", "--every", "1d", code=2)
    assert "never fires" in await terrace("add", "x", "index.health", "--cron", "0 0 30 2 *", code=2)
    assert "has not run yet" in await terrace("log", "nightly")
    run = json.loads(await terrace("run", "Nightly", "--json"))
    await ended(client, run["job_id"])
    assert "succeeded" in await terrace("log", "Nightly")
    assert "paused" in await terrace("pause", "Nightly")
    assert "paused" in await terrace("list")
    assert "Next: " in await terrace("resume", "Nightly")
    assert "is gone" in await terrace("remove", "Nightly", "--yes")
    assert "No schedule is named" in await terrace("log", "Nightly", code=4)
