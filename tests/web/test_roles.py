"""RULES x ROLES: each route as each role, refused exactly where the table says so."""

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from terrace.accounts.roles import ROLES, permissions
from terrace.web import app
from terrace.web.access import Guarded, resource
from terrace.web.rules import RULES
from tests.web.conftest import Client
from tests.web.people import Person, invited, register, tenant
from tests.web.routes import Call, every

NOTHING = {
    name: f"{name[:3]}_none"
    for name in (
        "tenant_id", "document_id", "collection_id", "invitation_id", "user_id", "conversation_id", "job_id",
        "question_id", "key_id", "session_id", "source_id", "generation_id", "schedule_id",
        "webhook_id", "delivery_id",
        "contact_id", "list_id", "database_id", "template_id", "campaign_id", "message_id",
    )
} | {
    "analysis_id": "ana_none", "file_id": f"ana_{0:026}",
} | {"number": "1", "subject": "user:usr_none", "model": "none", "name": "none"}  # fmt: skip


async def status_of(client: Client, route: Call, person: Person | None) -> tuple[int, str]:
    """(status, code) of a call that names nothing that exists and whose body says nothing: it changes nothing."""
    headers = {"authorization": f"Bearer {person.access}"} if person else {}
    content = None if route.method in ("GET", "DELETE") else b"[]"
    if content is not None:
        headers["content-type"] = "application/json"
    async with client.stream(route.method, route.at(NOTHING), headers=headers, content=content) as answer:
        if answer.status_code < 400:
            return answer.status_code, ""  # a stream may be endless
        await answer.aread()
        return answer.status_code, answer.json()["code"]


async def test_each_role_may_what_the_table_says(client: Client) -> None:
    operator = await register(client, "Root")
    owner = await tenant(operator, "Acme", "Owner")
    people = {"owner": owner} | {
        role: await invited(owner, role.capitalize(), role) for role in ROLES if role != "owner"
    }
    wrong = []
    callers = [(role, person, permissions(role)) for role, person in people.items()]  # type: ignore[arg-type]
    for role, person, may in [*callers, ("operator", operator, permissions("owner", operator=True))]:
        for route in every():
            if route.rule == "public":
                continue
            status, code = await status_of(client, route, person)
            refused = (status, code) == (403, "not_permitted")
            if refused != (route.rule != "anyone" and route.rule not in may) or status in (401, 500):
                wrong.append((role, str(route), status, code))
    assert wrong == []


async def test_without_saying_who_one_is_only_what_is_public_is_open(client: Client) -> None:
    await register(client, "Root")
    wrong = []
    for route in every():
        status, code = await status_of(client, route, None)
        if (status == 401) != (route.rule != "public"):
            wrong.append((str(route), status, code))
    assert wrong == []


@pytest.mark.parametrize("header", [{"authorization": "Bearer nonsense"}, {"x-access-token": "a.b.c"},
                                    {"x-api-key": "trc_nonsense_x"}, {"cookie": "terrace_access=a.b.c"}])  # fmt: skip
async def test_wrong_credentials_are_no_credentials(client: Client, header: dict[str, str]) -> None:
    await register(client, "Root")
    assert (await client.get("/api/documents", headers=header)).status_code == 401
    assert (await client.get("/health", headers=header)).status_code == 200
    assert (await client.get("/api/auth/session", headers=header)).json()["user"] is None


def test_every_rule_is_of_a_route_that_is_there() -> None:
    there = {
        route.canonical if route.path not in ("/health", "/ready", "/metrics") else str(route) for route in every()
    }
    assert there == set(RULES)


def test_a_route_nobody_thought_of_keeps_the_server_from_starting() -> None:
    async def handler() -> None: ...

    unknown = resource(prefix="/nowhere")
    unknown.get("/{id}")(handler)
    with pytest.raises(RuntimeError, match="no rule"):
        unknown.enter(APIRouter(), "/api")


def test_every_route_of_the_framework_is_guarded() -> None:
    routes = app._api(docs=True, max_body=0).routes
    assert all(isinstance(route, Guarded) for route in routes if isinstance(route, APIRoute))
