"""People, keys and tenants by what a person calls them, or by id."""

from collections.abc import Iterable
from typing import Any

from terrace.cli.client import Client
from terrace.errors import Conflict, Missing


def user_id(client: Client, given: str) -> str:
    """By id or e-mail address, among the members of the tenant; `me` is whoever is logged in."""
    if given == "me" or given.startswith("usr_"):
        return given
    people = (each["user"] for each in client.items("/api/members"))
    found = (each for each in people if each["email"].casefold() == given.strip().casefold())
    return _one(found, f"No member has the e-mail address {given}.", given)


def key_id(client: Client, given: str) -> str:
    """By id or name, among the keys that are still good; one's own first."""
    if given.startswith("key_"):
        return given
    for scope in ({}, {"all": "true"}):
        keys = client.items("/api/keys", **scope)
        if found := [each for each in keys if each["name"] == given and not each["revoked_at"]]:
            return _one(found, "", given)
    raise Missing(f"No key is named {given}; `terrace key list` shows which there are.")


def tenant_id(client: Client, given: str) -> str:
    """By id or name."""
    if given == "default" or given.startswith("tnt_"):
        return given
    found = (each for each in client.items("/api/tenants", q=given) if each["name"] == given)
    return _one(found, f"No tenant is named {given}; `terrace tenant list` shows which there are.", given)


def _one(found: Iterable[dict[str, Any]], missing: str, given: str) -> str:
    ids = [str(each["id"]) for each in found]
    if not ids:
        raise Missing(missing)
    if len(ids) > 1:
        raise Conflict(f"Several are called {given}: say which by id: {', '.join(ids)}.", code="ambiguous")
    return ids[0]
