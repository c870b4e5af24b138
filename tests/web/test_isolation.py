"""Nobody sees, changes or deletes what is another tenant's, or another person's. Generated from the routes themselves:
a route without an example fails."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from terrace.settings import Storage
from tests.web.conftest import in_folder, served
from tests.web.people import PASSWORD, Person, invited, person, register, tenant
from tests.web.routes import BODIES, ENDLESS, QUERIES, Call, every

PUBLIC_NAMES = {"name", "model"}  # of an OIDC provider, of a model with a price: nobody's
SHARED = {"document_id", "collection_id"}  # by everybody of a tenant
BODY_IDS = {
    "user_id", "tenant", "conversation_id", "parent_id", "message_id", "head_id", "document_id",
    "collection", "collections", "documents", "list_id", "template_id",
}  # fmt: skip
"""Names of fields and parameters that point at something; `test_ids_elsewhere_than_in_the_path` has a call for each."""


@dataclass
class Home:
    """A tenant with one of everything, each with its mark in it."""

    mark: str
    owner: Person
    member: Person
    ids: dict[str, str] = field(default_factory=dict)  # of everything, by the names in paths
    private: dict[str, str] = field(default_factory=dict)  # of what is the member's alone
    messages: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)

    def traces(self) -> set[str]:
        """What must not show elsewhere."""
        values = {*self.ids.values(), *self.private.values(), self.mark, self.mark.lower(), *self.secrets}
        return values - {"1", "me"}


async def furnished(owner: Person, mark: str) -> Home:
    member = await invited(owner, f"{mark}Member", "member")
    home = Home(mark, owner, member)
    uploaded = await owner.upload(f"{mark}.txt", f"Words about {mark}.".encode(), collection=mark, tags=mark)
    await owner.ready(uploaded["document"]["id"])
    [collection] = [each for each in (await owner.get("/api/collections")).json()["items"] if each["name"] == mark]
    offer = (await owner.post("/api/invitations", {"email": f"{mark}@example.org"})).json()
    place = {"kind": "url", "location": f"https://{mark.lower()}.example.org/", "name": mark, "every": 86_400}
    source = (await owner.post("/api/sources", place)).json()
    times = {"name": mark, "action": "index.health", "every": 3600}
    schedule = (await owner.post("/api/schedules", times)).json()
    place = {"url": f"https://{mark.lower()}.invalid/", "events": ["webhook.test"]}
    webhook = (await owner.post("/api/webhooks", place)).json()
    delivery = (await owner.post(f"/api/webhooks/{webhook['webhook']['id']}/test")).json()
    home.secrets += [webhook["secret"], (await owner.get("/api/webhooks/events")).json()["signing_secret"]]
    person = {"key": mark, "name": mark, "lists": [mark]}
    contact = (await owner.post("/api/contacts", person)).json()
    place = {"name": mark, "kind": "postgresql", "host": "db.example.org", "database": mark, "test": False}
    database = (await owner.post("/api/databases", place)).json()
    home.ids = {
        **await campaign(owner, mark, contact["list_ids"][0]),
        "contact_id": contact["id"],
        "list_id": contact["list_ids"][0],
        "database_id": database["id"],
        "webhook_id": webhook["webhook"]["id"],
        "delivery_id": delivery["id"],
        "schedule_id": schedule["id"],
        "tenant_id": owner.tenant,
        "document_id": uploaded["document"]["id"],
        "collection_id": collection["id"],
        "invitation_id": offer["invitation"]["id"],
        "source_id": source["id"],
        "generation_id": "gen_none",
        "number": "1",
        **await things(owner, mark, home),
    }
    home.ids["subject"] = f"user:{owner.id}"
    assert (await owner.put(f"/api/limits/user:{owner.id}", {"documents": 1000})).status_code == 200
    home.private = await things(member, mark, home)
    home.secrets.append(offer["token"])
    await at_rest(owner)
    return home


async def at_rest(owner: Person) -> None:
    """Until no job of the tenant goes on, by one look at all of them: what is read twice must be the same."""
    jobs = "/api/jobs?limit=200"
    async with asyncio.timeout(30):
        while any(not job["finished_at"] for job in lasting((await owner.get(jobs)).text)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def lasting(jobs: str) -> list[Any]:
    """Without the couriers: a webhook is tried again for a day."""
    return [job for job in json.loads(jobs)["items"] if job["kind"] != "webhooks.deliver"]


async def campaign(owner: Person, mark: str, list_id: str) -> dict[str, str]:
    """A template, a campaign with it that is over, and its message."""
    text = {"name": mark, "body": f"{mark} for {{{{contact.name}}}}", "mode": "fill"}
    template = (await owner.post("/api/templates", text)).json()
    wanted = {"list_id": list_id, "template_id": template["id"], "name": mark}
    path = f"/api/campaigns/{(await owner.post('/api/campaigns', wanted)).json()['id']}"
    await owner.post(f"{path}/start")
    for _ in range(1000):
        told = (await owner.get(path)).json()
        if told["state"] == "finished":
            break
        await asyncio.sleep(0.02)
    [message] = (await owner.get(f"{path}/messages")).json()["items"]
    return {"template_id": template["id"], "campaign_id": told["id"], "message_id": message["id"]}


async def things(person: Person, mark: str, home: Home) -> dict[str, str]:
    """What somebody has for themselves."""
    told = (await person.post("/api/chat", {"message": f"What of {mark}?"})).json()
    asked = (await person.post("/api/questions", {"question": f"Why {mark}?"})).json()
    files = {"file": (f"{mark}.txt", f"Lines about {mark}.".encode())}
    sent = (await person.post("/api/analyses", files=files)).json()
    key = (await person.post("/api/keys", {"name": f"{mark} key"})).json()
    home.messages[person.id] = told["message_id"]
    home.secrets.append(key["secret"])
    headers = {"authorization": f"Bearer {key['secret']}"}
    body = {"model": "auto", "messages": [{"role": "user", "content": mark}]}
    assert (await person.client.post("/v1/chat/completions", json=body, headers=headers)).status_code == 200
    sessions = (await person.get("/api/auth/sessions")).json()["items"]
    return {
        "user_id": person.id,
        "conversation_id": told["conversation_id"],
        "job_id": told["job_id"],
        "question_id": asked["id"],
        "analysis_id": sent["id"],
        "file_id": sent["id"],
        "key_id": key["key"]["id"],
        "session_id": next(each["id"] for each in sessions if each["current"]),
        "subject": f"key:{key['key']['id']}",
    }


@dataclass
class World:
    """Two tenants that have nothing to do with each other, and a member of the first who is nobody's friend."""

    operator: Person
    acme: Home
    globex: Home
    eve: Person


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, shared_storage: dict[str, str]) -> AsyncIterator[World]:
    settings = in_folder(tmp_path_factory.mktemp("data")).model_copy(update={"storage": Storage(**shared_storage)})
    async with served(settings) as client:
        operator = await register(client, "Root")
        acme = await furnished(await tenant(operator, "AcmeMark", "AcmeMarkOwner"), "AcmeMark")
        globex = await furnished(await tenant(operator, "GlobexMark", "GlobexMarkOwner"), "GlobexMark")
        yield World(operator, acme, globex, await invited(acme.owner, "Eve", "member"))


together = pytest.mark.asyncio(loop_scope="module")
"""All that is tried here is refused, so one world serves all tests."""


async def call(person: Person, route: Call, values: dict[str, str]) -> tuple[int, str]:
    """(status, what was said), a stream read to its end."""
    body = BODIES.get(route.canonical)
    path = route.at(values) + QUERIES.get(route.canonical, "")
    async with asyncio.timeout(20):
        answer = await person.request(route.method, path, **({} if body is None else {"json": body}))
    return answer.status_code, answer.text


async def state_of(home: Home) -> str:
    """All that a home's owner can read of it."""
    seen: list[Any] = []
    for route in every():
        if route.method == "GET" and route.rule not in ("public", "operator") and str(route) not in ENDLESS:
            if not set(route.names) <= home.ids.keys() or route.canonical in CHANGING:
                continue
            status, text = await call(home.owner, route, home.ids)
            if route.canonical == "GET /api/jobs" and status == 200:
                text = json.dumps(lasting(text))
            seen.append((str(route), status, text if status == 200 else ""))
    return json.dumps(seen)


CHANGING = {"GET /api/usage", "GET /api/usage/calls", "GET /api/audit", "GET /api/status", "GET /api/limits",
            "GET /api/tenant", "GET /api/tenant/export", "GET /api/auth/sessions", "GET /api/keys",
            "GET /api/keys/{key_id}", "GET /api/users/{user_id}", "GET /api/models", "GET /api/webhooks",
            "GET /api/webhooks/{webhook_id}", "GET /api/webhooks/{webhook_id}/deliveries",
            "GET /api/webhooks/{webhook_id}/deliveries/{delivery_id}"}  # fmt: skip
"""Answers that differ from one reading to the next: times and counts of their own."""


@together
async def test_anothers_ids_do_not_exist(world: World) -> None:
    acme, globex = world.acme, world.globex
    before = await state_of(globex)
    wrong: list[tuple[Any, ...]] = []
    for route in every():
        if not route.names or set(route.names) <= PUBLIC_NAMES:
            continue
        status, text = await call(acme.owner, route, globex.ids)
        expected = 403 if route.rule == "operator" else 404
        if status != expected or any(trace in text for trace in globex.traces() - set(globex.ids.values())):
            wrong.append((str(route), status, expected, text[:300]))
    assert wrong == []
    assert await state_of(globex) == before


@together
async def test_lists_hold_nothing_of_another_tenant(world: World) -> None:
    acme, globex = world.acme, world.globex
    wrong: list[tuple[Any, ...]] = []
    for route in every():
        if route.method != "GET" or route.names or str(route) in ENDLESS:
            continue
        status, text = await call(acme.owner, route, {})
        expected = (403,) if route.rule == "operator" else (200,)
        found = [trace for trace in globex.traces() if trace in text]
        if status not in expected or found:
            wrong.append((str(route), status, found))
    assert wrong == []
    own = (await call(acme.owner, Call("GET", "/api/conversations", "anyone", (), ()), {}))[1]
    assert "AcmeMark" in own  # the marks would show


@together
async def test_ids_elsewhere_than_in_the_path(world: World) -> None:
    """In bodies and queries."""
    acme, globex = world.acme, world.globex
    ids, me = globex.ids, acme.owner
    own = acme.ids["conversation_id"]
    refused: list[tuple[str, str, Any]] = [
        ("POST", "/api/chat", {"message": "x", "conversation_id": ids["conversation_id"]}),
        ("POST", "/api/chat", {"message": "x", "conversation_id": own, "parent_id": globex.messages[globex.owner.id]}),
        ("POST", "/api/chat", {"message": "x", "collections": [ids["collection_id"]]}),
        ("POST", "/api/chat", {"message": "x", "collections": ["GlobexMark"]}),
        ("PATCH", f"/api/conversations/{own}", {"head_id": globex.messages[globex.owner.id]}),
        ("POST", f"/api/conversations/{own}/regenerate", {"message_id": globex.messages[globex.owner.id]}),
        ("POST", "/jobs/process-document", {"document_id": ids["document_id"]}),
        ("POST", "/api/search", {"query": "words", "collections": [ids["collection_id"]]}),
        ("POST", "/api/campaigns", {"list_id": ids["list_id"], "template_id": acme.ids["template_id"]}),
        ("POST", "/api/campaigns", {"list_id": acme.ids["list_id"], "template_id": ids["template_id"]}),
        ("POST", "/api/templates/check", {"body": "{{contact.name}}", "list_id": ids["list_id"]}),
        ("POST", "/api/auth/switch", {"tenant": ids["tenant_id"]}),
        ("PUT", f"/api/limits/{ids['subject']}", {"documents": 1}),
    ]
    for method, path, body in refused:
        answer = await me.request(method, path, json=body)
        assert answer.status_code == 404, (path, body, answer.status_code, answer.text)
    for somebody in (ids["user_id"], "usr_nobody"):
        assert (await me.post("/api/keys", {"name": "x", "user_id": somebody})).status_code == 403
    entered = await me.client.post(
        "/api/auth/login", json={"email": me.email, "password": PASSWORD, "tenant": ids["tenant_id"]}
    )
    assert entered.status_code in (401, 403, 404)
    searched = await me.post("/api/search", {"query": "Words about", "documents": [ids["document_id"]]})
    assert searched.json()["hits"] == []
    for path in (
        f"/api/documents?collection={ids['collection_id']}", "/api/documents?collection=GlobexMark",
        "/api/documents?tag=GlobexMark", f"/api/jobs?parent_id={ids['job_id']}",
        f"/api/usage?by=user&user={ids['user_id']}", f"/api/usage?by=key&key={ids['key_id']}",
        f"/api/usage/calls?user={ids['user_id']}", f"/api/usage/calls?key={ids['key_id']}",
        f"/api/members?cursor={ids['user_id']}", f"/api/keys?all=true&cursor={ids['key_id']}",
        "/api/conversations?q=GlobexMark",
    ):  # fmt: skip
        answer = await me.get(path)
        assert answer.status_code in (200, 404, 422), path
        calls = answer.json().get("total", {}).get("calls", 0)
        assert not calls, path
        assert not any(trace in answer.text for trace in globex.traces()), (path, answer.text[:500])
    moved = await me.patch(f"/api/documents/{acme.ids['document_id']}", {"collection": ids["collection_id"]})
    assert (await globex.owner.get(f"/api/documents?collection={ids['collection_id']}")).text.count('"id":"doc_') == 1
    assert moved.status_code in (200, 404)


@together
async def test_changes_of_jobs_are_told_to_their_own_tenant_alone(world: World) -> None:
    acme, globex = world.acme, world.globex
    seen: list[str] = []
    listening = asyncio.Event()

    async def listen() -> None:
        headers = {"authorization": f"Bearer {acme.owner.access}"}
        async with acme.owner.client.stream("GET", "/api/jobs/events", headers=headers) as stream:
            async for line in stream.aiter_lines():
                listening.set()
                seen.append(line)
                if acme.owner.id in line and '"succeeded"' in line:
                    return

    task = asyncio.create_task(listen())
    await asyncio.wait_for(listening.wait(), 20)
    told = (await globex.owner.post("/api/chat", {"message": "GlobexMark again?"})).json()
    await acme.owner.post("/api/chat", {"message": "AcmeMark again?"})
    await asyncio.wait_for(task, 20)
    assert told["job_id"] not in "".join(seen)
    assert globex.owner.tenant not in "".join(seen)


@together
async def test_what_is_a_persons_alone_is_hidden_from_colleagues(world: World) -> None:
    home, eve = world.acme, world.eve
    may = set((await eve.get("/api/auth/session")).json()["permissions"])
    wrong: list[tuple[Any, ...]] = []
    for route in every():
        if not route.names or not set(route.names) <= home.private.keys():
            continue
        status, text = await call(eve, route, home.private)
        expected = 404 if route.rule in may | {"anyone"} else 403
        if status != expected:
            wrong.append((str(route), status, expected, text[:300]))
    for route in every():
        if route.method == "GET" and not route.names and route.rule in may | {"anyone"} and str(route) not in ENDLESS:
            _, text = await call(eve, route, {})
            found = [value for value in home.private.values() if value in text]
            if found:
                wrong.append((str(route), 200, 0, found))
    assert wrong == []
    for name in SHARED:  # documents are everybody's
        assert name in home.ids


@together
async def test_somebody_of_two_tenants_has_in_each_what_is_of_it(world: World) -> None:
    here = await invited(world.acme.owner, "Janus", "member")
    offer = (await world.globex.owner.post("/api/invitations", {"role": "owner"})).json()
    assert (await here.post("/api/auth/accept", {"token": offer["token"]})).status_code == 200
    login = {"email": here.email, "password": PASSWORD, "tenant": world.globex.owner.tenant}
    there = person(here.client, (await here.client.post("/api/auth/login", json=login)).json())
    assert (here.id, here.tenant) != (there.id, there.tenant)
    made = await things(here, "JanusMark", world.acme)
    wrong: list[tuple[Any, ...]] = []
    for route in every():
        if route.names and set(route.names) <= made.keys() - {"user_id", "session_id"}:
            status, text = await call(there, route, made)
            if status != 404:
                wrong.append((str(route), status, text[:300]))
        elif route.method == "GET" and not route.names and route.rule != "operator" and str(route) not in ENDLESS:
            _, text = await call(there, route, {})
            mine = {name for name, value in made.items() if value in text and name not in ("user_id", "session_id")}
            if mine or "JanusMark" in text:
                wrong.append((str(route), 200, mine))
    assert wrong == []
    assert (await there.get(f"/api/users/{here.id}/questions")).json()["items"] == []


@together
async def test_even_owners_do_not_read_what_others_asked(world: World) -> None:
    home = world.acme
    for reader in (home.owner, world.operator):
        for path in (
            f"/api/conversations/{home.private['conversation_id']}",
            f"/api/conversations/{home.private['conversation_id']}/export",
            f"/api/questions/{home.private['question_id']}",
            f"/api/users/{home.member.id}/questions",
        ):
            assert (await reader.get(path)).status_code == 404, path


def test_every_name_in_a_path_has_an_example() -> None:
    known = {
        "tenant_id", "document_id", "collection_id", "invitation_id", "number", "user_id", "conversation_id", "job_id",
        "question_id", "key_id", "session_id", "subject", "analysis_id", "file_id",
        "webhook_id", "delivery_id",
        "contact_id", "list_id", "database_id", "template_id", "campaign_id", "message_id",
        "source_id", "generation_id", "schedule_id",
    }  # fmt: skip
    assert {name for route in every() for name in route.names} - PUBLIC_NAMES == known


def test_every_name_of_an_id_in_bodies_and_queries_has_an_example() -> None:
    from terrace import assembly

    document = assembly.openapi()
    operations = [each for path in document["paths"].values() for each in path.values()]
    bodies = json.dumps([each.get("requestBody") for each in operations])
    fields = {
        name
        for title, schema in document["components"]["schemas"].items()
        if f'schemas/{title}"' in bodies
        for name in schema.get("properties", {})
    }
    parameters = {
        each["name"] for operation in operations for each in operation.get("parameters", ()) if each["in"] == "query"
    }
    pointing = {name for name in fields | parameters if name.endswith("_id") or name in BODY_IDS}
    assert pointing <= BODY_IDS
