"""A campaign at the API: checked, previewed, started, followed over two connections, exported."""

import asyncio
import json
from typing import Any

from tests.web.conftest import Client

Frames = list[tuple[str, str, Any]]


async def people(client: Client, count: int) -> None:
    for number in range(count):
        body = {"key": f"c{number}", "name": f"Person {number}", "lists": ["Clients"]}
        assert (await client.post("/api/contacts", json=body)).status_code == 201


async def made(client: Client, **text: str) -> dict[str, Any]:
    template = (await client.post("/api/templates", json={"name": "Hello", "mode": "fill", **text})).json()
    answer = await client.post("/api/campaigns", json={"list_id": "Clients", "template_id": template["id"]})
    assert answer.status_code == 201, answer.text
    campaign: dict[str, Any] = answer.json()
    return campaign


async def frames(client: Client, path: str, most: int, **headers: str) -> Frames:
    """Events as (id, type, data), so many `message`s or to the end."""
    seen: Frames = []
    async with asyncio.timeout(20), client.stream("GET", f"{path}/events", headers=headers) as stream:
        fields: dict[str, str] = {}
        async for line in stream.aiter_lines():
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line and "data" in fields:
                seen.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                fields = {}
                if seen[-1][1] == "done" or sum(type == "message" for _, type, _ in seen) == most:
                    break
    return seen


async def test_from_a_template_to_a_table(client: Client) -> None:
    await people(client, 12)
    campaign = await made(client, body="Dear {{contact.name}}!")
    path = f"/api/campaigns/{campaign['id']}"
    shown = (await client.post(f"{path}/preview", json={"count": 2})).json()["preview"]
    assert len(shown["messages"]) == 2
    assert shown["estimate"]["high"] == 0
    for _ in range(2):
        assert (await client.post(f"{path}/start")).status_code == 200
    first = await frames(client, path, 5)
    last = next(id for id, type, _ in reversed(first) if type == "message")
    rest = await frames(client, path, 100, **{"Last-Event-ID": last})
    both = [data["id"] for _, type, data in [*first, *rest] if type == "message"]
    assert len(both) == len(set(both)) == 12
    assert (rest[-1][1], rest[-1][2]["done"]) == ("done", 12)
    table = await client.get(f"{path}/export")
    assert table.headers["content-disposition"] == f'attachment; filename="{campaign["id"]}.csv"'
    assert table.text.count("Dear Person") == 12
    listed = (await client.get(f"{path}/messages?limit=5")).json()
    assert (len(listed["items"]), listed["next"] is not None) == (5, True)
    one = f"{path}/messages/{listed['items'][0]['id']}"
    assert (await client.patch(one, json={"text": "Other words."})).json()["text"] == "Other words."
    assert (await client.post(f"{one}/approve")).json()["approved_at"]
    assert (await client.post(f"{path}/approve")).json()["counts"]["approved"] == 12
    assert (await client.delete(path)).status_code == 204


async def test_what_is_wrong_is_told(client: Client) -> None:
    await people(client, 3)
    bad = await client.post("/api/templates", json={"name": "Bad", "body": "Hello {{contact.name"})
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_template")
    assert bad.json()["problems"][0]["column"] == 7
    checked = await client.post("/api/templates/check", json={"body": "{{contact.plan}} {{x}}", "list_id": "Clients"})
    assert [each["code"] for each in checked.json()["problems"]] == ["unknown"]
    checked = await client.post("/api/templates/check", json={"body": "{{contact.plan}}", "list_id": "Clients"})
    [placeholder] = checked.json()["placeholders"]
    assert (checked.json()["ok"], placeholder["lacking"], len(placeholder["examples"])) == (False, 3, 3)
    campaign = await made(client, body="{{contact.plan}}")
    refused = await client.post(f"/api/campaigns/{campaign['id']}/start")
    assert (refused.status_code, refused.json()["code"]) == (422, "values_missing")
    assert refused.json()["placeholders"][0]["name"] == "contact.plan"
    private = await client.patch(f"/api/campaigns/{campaign['id']}", json={"webhook": "ftp://example.org"})
    assert private.status_code == 422
