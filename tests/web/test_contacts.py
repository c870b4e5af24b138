"""Contacts, lists and other databases at the API: as a program uses them."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from terrace.settings import Settings
from tests.web.conftest import Client, served

TABLE = "E-Mail;Name;Town\nzoe@example.org;Zoë;Zürich\nnobody;Eve;Rome\n".encode("cp1252")


async def imported(client: Client, data: bytes = TABLE, **fields: str) -> Any:
    return await client.post("/api/contacts/import", files={"file": ("people.csv", data)}, data=fields)


async def finished(client: Client, job_id: str) -> Any:
    async with client.stream("GET", f"/api/jobs/{job_id}/events") as events:
        async for _ in events.aiter_lines():
            pass
    return (await client.get(f"/api/jobs/{job_id}")).json()


async def test_a_file_is_looked_at_and_imported(client: Client) -> None:
    mapping = json.dumps({"Town": "city"})
    looked = await imported(client, dry_run="true", mapping=mapping)
    assert looked.status_code == 200, looked.text
    told = looked.json()["examined"]
    assert (told["new"], told["invalid"], told["mapping"]["Town"]) == (1, 1, "city")
    assert told["problems"] == [{"line": 3, "message": "'nobody' is not an e-mail address."}]
    assert any("Windows-1252" in note for note in told["notes"])
    assert (await client.get("/api/contact-lists")).json()["items"] == []

    sent = await imported(client, list="Clients", mapping=mapping)
    assert sent.status_code == 202, sent.text
    job = await finished(client, sent.json()["job_id"])
    assert (job["state"], job["result"]["new"]) == ("succeeded", 1)
    [made] = (await client.get("/api/contact-lists")).json()["items"]
    assert (made["name"], made["contacts"]) == ("Clients", 1)
    [zoe] = (await client.get("/api/contacts", params={"list": "clients", "q": "zoë"})).json()["items"]
    assert (zoe["name"], zoe["fields"], zoe["list_ids"]) == ("Zoë", {"city": "Zürich"}, [made["id"]])
    counts = (await client.get("/api/contacts/fields", params={"list": made["id"]})).json()
    assert counts == {"contacts": 1, "fields": {"key": 1, "name": 1, "email": 1, "city": 1}}
    assert (await client.delete(f"/api/contact-lists/{made['id']}")).status_code == 204
    assert (await client.get("/api/contacts")).json()["items"] == []


async def test_what_is_wrong_with_an_import_is_told(client: Client) -> None:
    for fields, code in (
        ({}, "list_wanted"),
        ({"list": "x", "mapping": "{"}, "bad_mapping"),
        ({"list": "x", "mapping": "[1]"}, "bad_mapping"),
        ({"list": "x", "mapping": '{"Town": 1}'}, "bad_mapping"),
        ({"dry_run": "maybe"}, "bad_dry_run"),
        ({"dry_run": "1", "mapping": '{"Nowhere": "city"}'}, "unknown_column"),
        ({"dry_run": "yes", "encoding": "none"}, "bad_encoding"),
        ({"list": "lst_none"}, "list_missing"),
        ({"lists": "x"}, "invalid"),
    ):
        answer = await imported(client, **fields)
        assert answer.status_code in (404, 422), (fields, answer.text)
        assert answer.json()["code"] == code, (fields, answer.text)
    assert (await client.post("/api/contacts/import", data={"list": "x"})).status_code in (415, 422)
    two = [("file", ("a.csv", TABLE)), ("file", ("b.csv", TABLE))]
    assert (await client.post("/api/contacts/import", files=two, data={"list": "x"})).json()["code"] == "one_file_only"


async def test_contacts_one_by_one(client: Client) -> None:
    body = {"email": "ada@example.org", "fields": {"city": "London"}, "lists": ["VIPs"]}
    made = (await client.post("/api/contacts", json=body)).json()
    assert (await client.post("/api/contacts", json=body)).status_code == 409
    changed = await client.patch(f"/api/contacts/{made['id']}", json={"name": "Ada", "fields": {"plan": "gold"}})
    assert changed.json()["fields"] == {"city": "London", "plan": "gold"}
    turns = [{"role": "user", "text": "I bought a boat.", "at": "2026-01-05T09:00:00Z"}]
    told = (await client.post(f"/api/contacts/{made['id']}/history", json={"turns": turns})).json()
    assert (told["name"], told["last_conversation"]) == ("Ada", "Contact: I bought a boat.")
    detail = (await client.get(f"/api/contacts/{made['id']}")).json()
    assert (detail["turns"], detail["history"][0]["text"]) == (1, "I bought a boat.")
    assert (await client.delete(f"/api/contacts/{made['id']}")).status_code == 204
    assert (await client.get(f"/api/contacts/{made['id']}")).status_code == 404


async def test_a_conversation_becomes_a_contacts_history(client: Client) -> None:
    asked = (await client.post("/api/chat", json={"message": "Where is my parcel?"})).json()
    made = (await client.post("/api/contacts", json={"key": "1"})).json()
    body = {"conversation_id": asked["conversation_id"]}
    told = (await client.post(f"/api/contacts/{made['id']}/history", json=body)).json()
    assert told["history"][0]["text"] == "Where is my parcel?"
    assert [each["role"] for each in told["history"]] == ["user", "assistant"]
    missing = {"conversation_id": "cnv_none"}
    assert (await client.post(f"/api/contacts/{made['id']}/history", json=missing)).status_code == 404


def shop(folder: Path) -> Path:
    folder.mkdir()
    path = folder / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customers (email TEXT, city TEXT)")
        connection.execute("INSERT INTO customers VALUES ('ada@example.org', 'London')")
    connection.close()
    return path


async def test_a_database_is_asked_and_imported_from(settings: Settings, tmp_path: Path) -> None:
    path = shop(tmp_path / "shared")
    settings = settings.model_copy(
        update={
            "data": tmp_path / "data",
            "schedules": settings.schedules.model_copy(update={"folders": (path.parent,)}),
        }
    )
    async with served(settings) as client:
        added = await client.post("/api/databases", json={"name": "Shop", "kind": "sqlite", "file": str(path)})
        assert added.status_code == 201, added.text
        base = f"/api/databases/{added.json()['id']}"
        query = "SELECT email, city FROM customers"
        shown = (await client.post(f"{base}/query", json={"query": query})).json()
        assert shown["rows"] == [{"email": "ada@example.org", "city": "London"}]
        assert (await client.post(f"{base}/query", json={"query": "DROP TABLE customers"})).status_code == 422
        body = {"query": query, "list": "Shop", "mapping": {"city": "town"}}
        looked = await client.post(f"{base}/import", json={**body, "dry_run": True})
        assert (looked.status_code, looked.json()["examined"]["new"]) == (200, 1)
        sent = await client.post(f"{base}/import", json=body)
        assert sent.status_code == 202, sent.text
        assert (await finished(client, sent.json()["job_id"]))["result"]["new"] == 1
        audit = (await client.get("/api/audit", params={"action": "database"})).json()["items"]
        assert [each["action"] for each in audit] == ["database.added"]
        assert (await client.delete(base)).status_code == 204
        assert (await client.get("/api/databases")).json()["items"] == []
        assert len((await client.get("/api/contacts", params={"list": "Shop"})).json()["items"]) == 1


async def test_a_server_of_the_own_network_is_refused(client: Client) -> None:
    body = {"name": "Shop", "kind": "postgresql", "host": "127.0.0.1", "database": "shop", "password": "pepper-42"}
    answer = await client.post("/api/databases", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "private_target")
    assert "pepper" not in answer.text
    assert "TERRACE_OUTBOUND__ALLOW" in answer.json()["detail"]
