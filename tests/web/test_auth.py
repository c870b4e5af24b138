"""Registering, logging in and out, cookies and their CSRF token, sessions, new passwords."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from terrace.settings import Settings
from tests.web.conftest import Client, served
from tests.web.people import PASSWORD, Person, invited, register, tenant


@asynccontextmanager
async def browser(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    """Keeps cookies, unlike the client of the test."""
    async with httpx.AsyncClient(base_url=client.base_url, timeout=30, verify=False) as page:
        yield page


async def login(page: httpx.AsyncClient, email: str, **more: object) -> httpx.Response:
    return await page.post("/api/auth/login", json={"email": email, "password": PASSWORD, **more})


async def test_local_mode_ends_with_the_first_account(client: Client) -> None:
    standing = (await client.get("/api/auth/session")).json()
    assert (standing["mode"], standing["user"], standing["operator"]) == ("local", None, True)
    assert (await client.get("/api/documents")).status_code == 200
    ada = await register(client, "Ada")
    assert (await client.get("/api/documents")).status_code == 401
    assert (await client.get("/api/auth/session")).json()["mode"] == "accounts"
    mine = (await ada.get("/api/auth/session")).json()
    assert (mine["user"]["id"], mine["role"], mine["operator"]) == (ada.id, "owner", True)
    assert mine["tenant"]["id"] == "default"
    assert [each["id"] for each in mine["tenants"]] == ["default"]


async def test_what_was_made_before_becomes_the_first_ones(client: Client) -> None:
    asked = (await client.post("/api/questions", json={"question": "Before?"})).json()
    told = (await client.post("/api/chat", json={"message": "Before?"})).json()
    ada = await register(client, "Ada")
    assert (await ada.get(f"/api/questions/{asked['id']}")).json()["user_id"] == ada.id
    assert (await ada.get(f"/api/conversations/{told['conversation_id']}")).status_code == 200
    assert (await ada.get(f"/api/jobs/{told['job_id']}")).status_code == 200
    bob = await register(client, "Bob")
    assert (await bob.get(f"/api/questions/{asked['id']}")).status_code == 404


async def test_a_refusal_says_how_to_log_in(client: Client) -> None:
    await register(client, "Ada")
    answer = await client.get("/api/keys")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["kind"] == "unauthenticated"


async def test_a_wrong_password_and_an_unknown_account_are_told_alike(client: Client) -> None:
    await register(client, "Ada")
    wrong = await client.post("/auth/login", json={"email": "ada@example.org", "password": "not this one"})
    unknown = await client.post("/auth/login", json={"email": "nobody@example.org", "password": "not this one"})
    assert wrong.status_code == unknown.status_code == 401
    told = [{key: value for key, value in each.json().items() if key != "request_id"} for each in (wrong, unknown)]
    assert told[0] == told[1]
    assert told[0]["code"] == "bad_login"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"password": "short"}, 422, "password_short"),
        ({"password": "password1"}, 422, "password_common"),
        ({"email": "nothing"}, 422, "bad_email"),
        ({"name": ""}, 422, "invalid"),
        ({"name": "x" * 201}, 422, "invalid"),
        ({"password": "x" * 1025}, 422, "invalid"),
    ],
)
async def test_a_registration_that_will_not_do_is_told(
    client: Client, change: dict[str, str], status: int, code: str
) -> None:
    body = {"name": "Ada", "email": "ada@example.org", "password": PASSWORD}
    answer = await client.post("/api/users", json={**body, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (await client.get("/api/auth/session")).json()["mode"] == "local"


async def test_registration_may_be_closed(settings: Settings) -> None:
    closed = Settings.model_validate({**settings.model_dump(), "accounts": {"registration": "closed"}})
    async with served(closed) as client:
        await register(client, "Ada")
        body = {"name": "Bob", "email": "bob@example.org", "password": PASSWORD}
        answer = await client.post("/api/users", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "registration_closed")
        assert (await client.get("/api/auth/session")).json()["registration"] == "closed"


async def test_through_a_proxy_the_first_account_needs_the_setup_code(settings: Settings) -> None:
    required = Settings.model_validate({**settings.model_dump(), "accounts": {"required": True}})
    far = {"x-forwarded-for": "203.0.113.9"}
    async with served(required) as client:
        standing = (await client.get("/api/auth/session", headers=far)).json()
        assert (standing["mode"], standing["setup_code_needed"]) == ("setup", True)
        assert not (await client.get("/api/auth/session")).json()["setup_code_needed"]
        body = {"name": "Eve", "email": "eve@example.org", "password": PASSWORD}
        refused = await client.post("/api/users", json={**body, "setup_code": "AAAAAAAA"}, headers=far)
        assert (refused.status_code, refused.json()["code"]) == (403, "setup_code_wrong")
        other_name = await client.post("/api/users", json=body, headers={"host": "rebound.example"})
        assert other_name.status_code in (403, 421)
        await register(client, "Ada")


async def test_refresh_tokens_are_good_once(client: Client) -> None:
    ada = await register(client, "Ada")
    first = await client.post("/auth/refresh", json={"refresh_token": ada.refresh})
    assert first.status_code == 200
    fresh = first.json()
    assert (await client.get("/api/keys", headers={"x-access-token": fresh["access_token"]})).status_code == 200
    stolen = await client.post("/auth/refresh", json={"refresh_token": ada.refresh})
    assert (stolen.status_code, stolen.json()["code"]) == (401, "session_revoked")
    assert (await client.post("/auth/refresh", json={"refresh_token": fresh["refresh_token"]})).status_code == 401
    assert (await client.get("/api/keys", headers={"x-access-token": fresh["access_token"]})).status_code == 401


@pytest.mark.parametrize("body", [None, {}, {"refresh_token": "trr_x_1_y"}, {"refresh_token": "\u0000"}])
async def test_without_a_good_refresh_token_nobody_goes_on(client: Client, body: object) -> None:
    await register(client, "Ada")
    assert (await client.post("/auth/refresh", json=body)).status_code == 401


async def test_the_page_logs_in_by_cookies(client: Client) -> None:
    await register(client, "Ada")
    async with browser(client) as page:
        answer = await login(page, "ada@example.org", cookie=True)
        body = answer.json()
        assert not {"access_token", "refresh_token"} & body.keys()
        cookies = {each.partition("=")[0]: each.lower() for each in answer.headers.get_list("set-cookie")}
        assert cookies.keys() == {"terrace_access", "terrace_refresh", "terrace_csrf"}
        assert "httponly" in cookies["terrace_access"]
        assert "samesite=lax" in cookies["terrace_access"]
        assert "httponly" in cookies["terrace_refresh"]
        assert "samesite=strict" in cookies["terrace_refresh"]
        assert "path=/api/auth" in cookies["terrace_refresh"]
        assert "httponly" not in cookies["terrace_csrf"]
        assert not any("secure" in each for each in cookies.values())  # this was http

        assert (await page.get("/api/conversations")).status_code == 200
        bare = await page.post("/api/conversations", json={})
        assert (bare.status_code, bare.json()["code"]) == (403, "csrf")
        wrong = await page.post("/api/conversations", json={}, headers={"x-csrf-token": "x" * len(body["csrf"])})
        assert (wrong.status_code, wrong.json()["code"]) == (403, "csrf")
        right = await page.post("/api/conversations", json={}, headers={"x-csrf-token": page.cookies["terrace_csrf"]})
        assert right.status_code == 201
        assert (await page.get("/api/auth/session")).json()["csrf"] == body["csrf"]

        before = page.cookies["terrace_refresh"]
        again = await page.post("/api/auth/refresh", json={})
        assert again.status_code == 200
        assert "access_token" not in again.json()
        assert page.cookies["terrace_refresh"] != before
        assert (await page.get("/api/conversations")).status_code == 200

        token = page.cookies["terrace_access"]
        assert (await page.post("/api/auth/logout", headers={"x-csrf-token": body["csrf"]})).status_code == 200
        assert not page.cookies
        assert (await client.get("/api/conversations", headers={"x-access-token": token})).status_code == 401


async def test_behind_a_trusted_proxy_with_https_cookies_are_secure(settings: Settings) -> None:
    proxied = Settings.model_validate({**settings.model_dump(), "web": {"trusted_proxies": ["127.0.0.1"]}})
    async with served(proxied) as client:
        await register(client, "Ada")
        forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "203.0.113.9"}
        async with browser(client) as page:
            page.headers.update(forwarded)
            answer = await login(page, "ada@example.org", cookie=True)
        assert all("secure" in each.lower() for each in answer.headers.get_list("set-cookie"))
        [session] = [
            each for each in (await _session_list(client, answer)).json()["items"] if each["address"] == "203.0.113.9"
        ]
        assert session["current"]


async def _session_list(client: Client, answer: httpx.Response) -> httpx.Response:
    access = next(each for each in answer.headers.get_list("set-cookie") if each.startswith("terrace_access="))
    token = access.partition("=")[2].partition(";")[0]
    return await client.get("/api/auth/sessions", headers={"x-access-token": token})


async def test_sessions_are_listed_and_ended(client: Client) -> None:
    ada = await register(client, "Ada")
    async with browser(client) as page:
        page.headers["user-agent"] = "Elsewhere/1.0"
        there = (await login(page, "ada@example.org")).json()
    sessions = (await ada.get("/api/auth/sessions")).json()["items"]
    assert {each["agent"] for each in sessions} >= {"Elsewhere/1.0"}
    assert [each["current"] for each in sessions].count(True) == 1
    other = next(each for each in sessions if not each["current"])
    token = {"x-access-token": there["access_token"]}
    assert (await client.get("/api/keys", headers=token)).status_code == 200
    assert (await ada.delete(f"/api/auth/sessions/{other['id']}")).status_code == 204
    assert (await client.get("/api/keys", headers=token)).status_code == 401
    assert (await ada.get("/api/keys")).status_code == 200


async def test_a_new_password_ends_the_other_sessions(client: Client) -> None:
    ada = await register(client, "Ada")
    other = (await client.post("/auth/login", json={"email": ada.email, "password": PASSWORD})).json()
    wrong = await ada.post("/api/auth/password", {"current": "not this one", "new": "ten lighthouses in a row"})
    assert wrong.status_code in (401, 403, 422)
    changed = await ada.post("/api/auth/password", {"current": PASSWORD, "new": "ten lighthouses in a row"})
    assert changed.status_code == 204
    assert (await ada.get("/api/keys")).status_code == 200
    assert (await client.get("/api/keys", headers={"x-access-token": other["access_token"]})).status_code == 401
    assert (await client.post("/auth/login", json={"email": ada.email, "password": PASSWORD})).status_code == 401


async def test_a_link_gives_a_new_password_once(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await register(client, "Bob")
    link = await ada.post(f"/api/users/{bob.id}/reset-link")
    assert link.status_code == 200, link.text
    assert link.json()["url"] == f"{str(client.base_url).rstrip('/')}/reset#{link.json()['token']}"
    body = {"token": link.json()["token"], "password": "ten lighthouses in a row"}
    assert (await client.post("/api/auth/reset", json=body)).status_code == 200
    assert (await bob.get("/api/keys")).status_code == 401
    entered = await client.post("/auth/login", json={"email": bob.email, "password": "ten lighthouses in a row"})
    assert entered.status_code == 200
    assert (await client.post("/api/auth/reset", json=body)).status_code in (404, 401, 409)


async def test_a_forgotten_password_is_answered_alike_for_everybody(client: Client) -> None:
    await register(client, "Ada")
    told = [
        await client.post("/api/auth/forgot", json={"email": email})
        for email in ("ada@example.org", "nobody@example.org")
    ]
    assert [each.status_code for each in told] == [202, 202]
    assert told[0].json() == told[1].json()


async def test_oneself_is_read_renamed_and_erased(client: Client) -> None:
    await register(client, "Ada")
    bob = await register(client, "Bob")
    assert (await bob.get("/users/me")).json()["name"] == "Bob"
    assert (await bob.patch(f"/api/users/{bob.id}", {"name": "Bobby"})).json()["name"] == "Bobby"
    assert (await bob.patch(f"/api/users/{bob.id}", {"disabled": True})).status_code == 403
    asked = (await bob.post("/questions", {"question": "Mine?"})).json()
    assert (await bob.delete("/api/users/me")).status_code == 204
    assert (await bob.get(f"/questions/{asked['id']}")).status_code == 401
    assert (await client.post("/auth/login", json={"email": bob.email, "password": PASSWORD})).status_code == 401


async def test_an_operator_keeps_somebody_out(client: Client) -> None:
    ada = await register(client, "Ada")
    bob = await register(client, "Bob")
    assert (await ada.patch(f"/api/users/{bob.id}", {"disabled": True})).json()["disabled"]
    assert (await bob.get("/api/keys")).status_code in (401, 403)
    assert (await client.post("/auth/login", json={"email": bob.email, "password": PASSWORD})).status_code in (401, 403)
    assert not (await ada.patch(f"/api/users/{bob.id}", {"disabled": False})).json()["disabled"]
    assert (await client.post("/auth/login", json={"email": bob.email, "password": PASSWORD})).status_code == 200


async def test_somebody_in_two_tenants_switches(client: Client) -> None:
    ada = await register(client, "Ada")
    owner: Person = await tenant(ada, "Globex", "Gina")
    bob = await invited(ada, "Bob", "member")
    token = (await owner.post("/api/invitations", {"role": "admin"})).json()["token"]
    offer = (await client.post("/api/auth/invitation", json={"token": token})).json()
    assert (offer["tenant_name"], offer["role"]) == ("Globex", "admin")
    assert (await bob.post("/api/auth/accept", {"token": token})).json()["name"] == "Globex"
    assert len((await bob.get("/api/auth/session")).json()["tenants"]) == 2
    switched = await bob.post("/api/auth/switch", {"tenant": owner.tenant})
    assert (switched.json()["tenant"]["id"], switched.json()["role"]) == (owner.tenant, "admin")
    assert (await bob.post("/api/auth/switch", {"tenant": "tnt_0"})).status_code == 404
    assert (await client.post("/api/auth/invitation", json={"token": token})).status_code == 404
