"""Keys, members, invitations, limits, usage, prices, tenants and the audit log, as a client meets them."""

import asyncio
import csv
import io
import json
import zipfile
from datetime import UTC, datetime

from tests.web.conftest import Client
from tests.web.people import Person, invited, register, tenant


async def key_of(person: Person, **body: object) -> tuple[str, dict[str, str]]:
    """(id, headers) of a new key."""
    made = await person.post("/api/keys", {"name": "program", **body})
    assert made.status_code == 201, made.text
    return made.json()["key"]["id"], {"authorization": f"Bearer {made.json()['secret']}"}


# -- keys


async def test_a_key_is_shown_once_and_opens_what_it_may(client: Client) -> None:
    ada = await register(client, "Ada")
    key_id, key = await key_of(ada, scopes=["documents:read"])
    assert key["authorization"].startswith("Bearer trc_")
    assert (await client.get("/api/documents", headers=key)).status_code == 200
    refused = await client.post("/api/chat", json={"message": "x"}, headers=key)
    assert (refused.status_code, refused.json()["code"], refused.json()["permission"]) == (403, "not_permitted", "chat")
    shown = await ada.get(f"/api/keys/{key_id}")
    assert key["authorization"][-40:] not in shown.text
    assert [each["id"] for each in (await ada.get("/api/keys")).json()["items"]] == [key_id]


async def test_a_key_is_changed_rotated_and_revoked(client: Client) -> None:
    ada = await register(client, "Ada")
    key_id, key = await key_of(ada, expires_at="2999-01-01T00:00:00Z")
    changed = (await ada.patch(f"/api/keys/{key_id}", {"name": "other", "expires_at": None})).json()
    assert (changed["name"], changed["expires_at"]) == ("other", None)
    rotated = (await ada.post(f"/api/keys/{key_id}/rotate", {"overlap": 60})).json()
    new = {"x-api-key": rotated["secret"]}
    for each in (key, new):
        assert (await client.get("/api/documents", headers=each)).status_code == 200
    assert (await ada.delete(f"/api/keys/{key_id}")).status_code == 204
    for each in (key, new):
        assert (await client.get("/api/documents", headers=each)).status_code == 401


async def test_nobody_gives_a_key_more_than_they_have(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await invited(ada, "Bob", "member")
    assert (await bob.post("/api/keys", {"name": "x", "scopes": ["operator"]})).status_code == 403
    assert (await bob.post("/api/keys", {"name": "x", "scopes": ["nonsense"]})).status_code == 422
    _, key = await key_of(bob)
    assert (await client.get("/api/members", headers=key)).status_code == 403
    assert (await bob.get("/api/keys?all=true")).status_code == 403
    assert len((await ada.get("/api/keys?all=true")).json()["items"]) == 1


# -- members and invitations


async def test_people_are_invited_promoted_and_removed(client: Client) -> None:
    ada = await register(client, "Ada")
    offer = (await ada.post("/api/invitations", {"email": "bob@example.org", "role": "viewer"})).json()
    assert offer["url"].endswith(f"/join#{offer['token']}")
    assert [each["id"] for each in (await ada.get("/api/invitations")).json()["items"]] == [offer["invitation"]["id"]]
    bob = await register(client, "Bob", invitation=offer["token"])
    assert (await ada.get("/api/invitations")).json()["items"] == []
    assert (await bob.post("/api/chat", {"message": "x"})).status_code == 403
    assert (await ada.patch(f"/api/members/{bob.id}", {"role": "member"})).json()["role"] == "member"
    assert (await bob.post("/api/chat", {"message": "x"})).status_code == 200
    members = (await ada.get("/api/members")).json()["items"]
    assert {each["user"]["name"]: each["role"] for each in members} == {"Ada": "owner", "Bob": "member"}
    assert (await ada.delete(f"/api/members/{bob.id}")).status_code == 204
    assert (await bob.get("/api/documents")).status_code in (401, 403)
    assert (await ada.patch(f"/api/members/{ada.id}", {"role": "member"})).status_code == 409


async def test_an_invitation_can_be_taken_back(client: Client) -> None:
    ada = await register(client, "Ada")
    offer = (await ada.post("/api/invitations", {})).json()
    assert (await ada.delete(f"/api/invitations/{offer['invitation']['id']}")).status_code == 204
    assert (await client.post("/api/auth/invitation", json={"token": offer["token"]})).status_code == 404


# -- limits


async def test_a_limit_reached_says_which_whose_and_when(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await invited(ada, "Bob", "member")
    put = await ada.put(f"/api/limits/user:{bob.id}", {"requests_per_minute": 3, "money_per_day": 1.5})
    assert put.status_code == 200, put.text
    assert {each["name"]: each["value"] for each in put.json()["limits"]} == {
        "requests_per_minute": 3,
        "money_per_day": 1.5,
    }
    answers = [await bob.post("/api/conversations", {}) for _ in range(4)]
    assert [each.status_code for each in answers] == [201, 201, 201, 429]
    refused = answers[-1]
    problem = refused.json()
    assert (problem["code"], problem["limit"], problem["subject"]) == ("limit_reached", "requests_per_minute", "user")
    assert (problem["set_by"], problem["value"]) == (ada.id, 3)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"requests_per_minute";q=3;w=60'
    assert refused.headers["ratelimit"].startswith('"requests_per_minute";r=0;t=')
    assert (await bob.get("/api/conversations")).status_code == 200  # reading is not counted
    assert (await ada.post("/api/conversations", {})).status_code == 201
    mine = (await bob.get("/api/limits")).json()["items"]
    assert [each["subject"] for each in mine] == ["tenant", f"user:{bob.id}"]
    shown = {each["name"]: each for each in mine[1]["limits"]}
    assert shown["requests_per_minute"]["used"] == 3
    assert 0 < shown["requests_per_minute"]["resets_in"] <= 60
    gone = await ada.put(f"/api/limits/user:{bob.id}", {"requests_per_minute": None})
    assert [each["name"] for each in gone.json()["limits"]] == ["money_per_day"]
    assert (await bob.post("/api/conversations", {})).status_code == 201


async def test_limits_are_set_within_bounds_and_on_ones_own_alone(client: Client) -> None:
    ada = await register(client, "Ada")
    gina = await tenant(ada, "Globex", "Gina")
    for body in ({"documents": 0}, {"documents": 1.5}, {"money_per_day": -1}, {"documents": "many"}, {"document": 1}):
        assert (await ada.put("/api/limits/tenant", body)).status_code == 422, body
    assert (await ada.put("/api/limits/nonsense", {"documents": 1})).status_code == 422
    assert (await gina.put("/api/limits/tenant", {"documents": 1})).status_code == 403
    assert (await gina.put(f"/api/limits/user:{ada.id}", {"documents": 1})).status_code == 404
    assert (await gina.put(f"/api/limits/user:{gina.id}", {"documents": 1})).status_code == 200
    assert (await ada.put(f"/api/tenants/{gina.tenant}/limits", {"documents": 7})).json()["limits"][0]["value"] == 7
    subjects = {each["subject"]: each["limits"] for each in (await gina.get("/api/limits")).json()["items"]}
    assert subjects["tenant"][0]["value"] == 7
    assert subjects[f"user:{gina.id}"][0]["value"] == 1


async def test_documents_are_limited_too(client: Client) -> None:
    ada = await register(client, "Ada")
    await ada.put("/api/limits/tenant", {"documents": 1})
    await ada.upload("one.txt", b"one")
    answer = await ada.post("/api/documents/upload", files={"file": ("two.txt", b"two")})
    assert (answer.status_code, answer.json()["limit"]) == (429, "documents")
    assert answer.headers["ratelimit-policy"] == '"documents";q=1'


# -- usage and prices


async def test_usage_is_told_by_day_model_user_and_key_and_as_csv(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await invited(ada, "Bob", "member")
    key_id, key = await key_of(bob)
    await ada.post("/api/chat", {"message": "One?"})
    await bob.post("/api/chat", {"message": "Two?"})
    body = {"model": "auto", "messages": [{"role": "user", "content": "Three?"}]}
    assert (await client.post("/v1/chat/completions", json=body, headers=key)).status_code == 200

    everything = (await ada.get("/api/usage?by=user")).json()
    assert {row["label"]: row["calls"] for row in everything["rows"]} == {"Ada": 1, "Bob": 2}
    assert everything["total"]["calls"] == 3
    assert (await ada.get("/api/usage?by=user&user=me")).json()["total"]["calls"] == 1
    mine = (await bob.get("/api/usage?by=key")).json()
    assert {row["group"]: row["label"] for row in mine["rows"]} == {key_id: "program", "": "no key"}
    assert mine["total"]["calls"] == 2
    assert (await bob.get(f"/api/usage?user={ada.id}")).status_code == 404
    today = datetime.now(UTC).date().isoformat()
    days = (await bob.get(f"/api/usage?from={today}&to={today}")).json()
    assert [(row["group"], row["calls"]) for row in days["rows"]] == [(today, 2)]
    assert (days["from"], days["to"], days["by"]) == (today, today, "day")
    table = await ada.get("/api/usage?by=user&format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert {row["label"]: row["calls"] for row in rows} == {"Ada": "1", "Bob": "2", "total": "3"}

    calls = (await bob.get("/api/usage/calls?limit=1")).json()
    assert len(calls["items"]) == 1
    rest = (await bob.get("/api/usage/calls", params={"cursor": calls["next"]})).json()["items"]
    assert {each["user_id"] for each in [*calls["items"], *rest]} == {bob.id}
    assert {each["key_id"] for each in [*calls["items"], *rest]} == {key_id, None}
    assert len((await ada.get(f"/api/usage/calls?key={key_id}")).json()["items"]) == 1


async def test_a_key_that_is_nobodys_sees_what_it_used_itself(client: Client) -> None:
    """One made at the terminal has no user, which must not mean everybody."""
    ada = await register(client, "Ada")
    await ada.post("/api/chat", {"message": "One?"})
    _, key = await key_of(ada, scopes=["chat"])
    seen = (await client.get("/api/usage", headers=key)).json()
    assert seen["total"]["calls"] == 1  # hers, for the key is hers


async def test_dates_that_make_no_sense_are_told(client: Client) -> None:
    for query in ("from=2026-13-01", "from=2026-02-02&to=2026-01-01", "from=0001-01-01", "to=0001-01-01", "by=hour"):
        assert (await client.get(f"/api/usage?{query}")).status_code in (200, 422), query
    assert (await client.get("/api/usage?from=2026-02-02&to=2026-01-01")).status_code == 422


async def test_prices_are_read_by_all_and_set_by_operators(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await invited(ada, "Bob", "admin")
    path = "/api/prices/lab/big-model"
    assert (await bob.put(path, {"input": 1, "output": 2})).status_code == 403
    assert (await ada.put(path, {"input": 1, "output": 2})).json() | {"dated": ""} == {
        "model": "lab/big-model", "input": 1, "cached": 1, "output": 2, "source": "set", "dated": "",
    }  # fmt: skip
    assert "lab/big-model" in {each["model"] for each in (await bob.get("/api/prices")).json()["items"]}
    assert (await ada.put(path, {"input": -1, "output": 2})).status_code == 422
    assert (await ada.delete(path)).status_code == 204
    assert (await ada.delete(path)).status_code == 404


# -- tenants and the audit log


async def test_an_operator_makes_limits_bills_and_deletes_tenants(client: Client) -> None:
    ada = await register(client, "Ada")
    made = await ada.post("/api/tenants", {"name": "Globex", "models": ["quote*"], "limits": {"documents": 5}})
    assert made.status_code == 201, made.text
    tenant_id = made.json()["id"]
    assert made.json()["limits"][0]["value"] == 5
    assert (await ada.post("/api/tenants", {"name": "GLOBEX"})).status_code == 409
    offer = (await ada.post(f"/api/tenants/{tenant_id}/invitations", {"email": "gina@example.org"})).json()
    gina = await register(client, "Gina", invitation=offer["token"])
    assert gina.tenant == tenant_id
    await gina.post("/api/chat", {"message": "Mine?"})
    listed = (await ada.get("/api/tenants?q=glob")).json()["items"]
    assert [(each["name"], each["members"], each["usage"]["today"]["calls"]) for each in listed] == [("Globex", 1, 1)]
    assert (await ada.get(f"/api/tenants/{tenant_id}")).json()["usage"]["month"]["calls"] == 1
    assert (await ada.get(f"/api/tenants/{tenant_id}/usage?by=user")).json()["rows"][0]["label"] == "Gina"
    assert (await gina.get("/api/tenant")).json()["models"] == ["quote*"]
    assert (await gina.patch("/api/tenant", {"name": "Globex Ltd"})).json()["name"] == "Globex Ltd"
    assert (await ada.patch(f"/api/tenants/{tenant_id}", {"disabled": True})).json()["disabled"]
    assert (await gina.get("/api/documents")).status_code in (401, 403)
    assert (await ada.patch(f"/api/tenants/{tenant_id}", {"disabled": False})).status_code == 200
    assert (await ada.delete(f"/api/tenants/{tenant_id}")).status_code == 204
    assert (await ada.get(f"/api/tenants/{tenant_id}")).status_code == 404
    assert (await ada.delete("/api/tenants/default")).status_code == 409


async def test_a_tenant_is_shown_the_models_it_may_use_and_nothing_of_the_machine(client: Client) -> None:
    ada = await register(client, "Ada")
    gina = await tenant(ada, "Globex", "Gina")
    assert [each["id"] for each in (await gina.get("/api/models")).json()["items"]] == ["quote"]
    await ada.patch(f"/api/tenants/{gina.tenant}", {"models": ["openai/*"]})
    seen = (await gina.get("/api/models")).json()
    assert (seen["items"], seen["answering"]["model"]) == ([], None)
    assert "openai/*" in seen["answering"]["why"]
    assert all(not each["base_url"] for each in seen["providers"])
    refused = await gina.post("/api/chat", {"message": "x"})
    assert (refused.status_code, refused.json()["code"]) == (403, "model_not_allowed")
    assert (await gina.get("/api/status")).json()["data"] is None
    assert (await ada.get("/api/status")).json()["data"]


async def test_every_act_is_in_the_audit_log(client: Client) -> None:
    ada = await register(client, "Ada")
    gina = await tenant(ada, "Globex", "Gina")
    await gina.put(f"/api/limits/user:{gina.id}", {"documents": 3})
    key_id, _ = await key_of(gina)
    await ada.put("/api/prices/lab/big", {"input": 1, "output": 1})
    seen = (await gina.get("/api/audit")).json()["items"]
    acts = {each["action"]: each for each in seen}
    assert {"tenant.created", "limits.changed", "key.created"} <= acts.keys()
    assert acts["limits.changed"]["actor"] == gina.id
    assert acts["limits.changed"]["detail"] == {"documents": 3}
    assert acts["key.created"]["subject"] == key_id
    assert "price.set" not in acts
    assert [each["action"] for each in (await gina.get("/api/audit?action=key.created")).json()["items"]] == [
        "key.created"
    ]
    assert "price.set" in {each["action"] for each in (await ada.get("/api/audit")).json()["items"]}
    page = (await gina.get("/api/audit?limit=1")).json()
    following = (await gina.get("/api/audit", params={"limit": 200, "cursor": page["next"]})).json()
    assert [each["id"] for each in page["items"] + following["items"]] == [each["id"] for each in seen]


async def test_a_tenant_is_exported_whole(client: Client) -> None:
    ada = await register(client, "Ada")
    gina = await tenant(ada, "Globex", "Gina")
    await ada.upload("secret.txt", b"of another tenant")
    await gina.upload("quay.txt", b"The quay is seven metres deep.")
    await gina.post("/api/chat", {"message": "What of the lighthouse?"})
    await asyncio.sleep(0)
    for answer in (await gina.get("/api/tenant/export"), await ada.get(f"/api/tenants/{gina.tenant}/export")):
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            files = {name: archive.read(name) for name in archive.namelist()}
        whole = b"\n".join(files.values())
        assert b"The quay is seven metres deep." in whole
        assert b"lighthouse" in whole
        assert b"gina@example.org" in whole
        assert b"of another tenant" not in whole
        assert b"ada@example.org" not in whole
        assert any(name.endswith("quay.txt") for name in files), list(files)
        for name, data in files.items():
            if name.endswith(".json"):
                json.loads(data)
