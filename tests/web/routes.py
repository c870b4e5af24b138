"""Every route of the application, with an example of how it is called: what the generated tests walk over."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastapi.routing import APIRoute

from terrace.web import app
from terrace.web.access import rule_of
from terrace.web.rules import SHORT, Rule


class Call(NamedTuple):
    """A route: `GET`, `/api/documents/{document_id}`, what it needs, and the names in its path and its query."""

    method: str
    path: str
    rule: Rule
    names: tuple[str, ...]
    query: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def at(self, values: Mapping[str, str]) -> str:
        """The address with these ids. KeyError for a name that has no example."""
        return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: values[found[1]], self.path)

    @property
    def canonical(self) -> str:
        """What a short path is short for."""
        name = str(self)
        return SHORT.get(name) or (name if "/api/" in name else f"{self.method} /api{self.path}")


def every() -> list[Call]:
    """Short paths too."""
    found = []
    for route in app._api(docs=False, max_body=0).routes:
        if isinstance(route, APIRoute):
            [method] = route.methods
            query = tuple(each.alias for each in route.dependant.query_params)
            found.append(Call(method, route.path, rule_of(route), tuple(re.findall(r"\{(\w+)", route.path)), query))
    return found


BODIES: dict[str, Any] = {
    "PATCH /api/users/{user_id}": {"name": "New name"},
    "PATCH /api/members/{user_id}": {"role": "viewer"},
    "PATCH /api/keys/{key_id}": {"name": "new name"},
    "POST /api/keys/{key_id}/rotate": {},
    "PUT /api/limits/{subject}": {"documents": 1},
    "PUT /api/prices/{model}": {"input": 1, "output": 1},
    "PUT /api/prices/{model:path}": {"input": 1, "output": 1},
    "PATCH /api/tenants/{tenant_id}": {"name": "New name"},
    "PUT /api/tenants/{tenant_id}/limits": {"documents": 1},
    "POST /api/tenants/{tenant_id}/invitations": {},
    "PATCH /api/conversations/{conversation_id}": {"title": "New title"},
    "POST /api/conversations/{conversation_id}/regenerate": {"message_id": "msg_0"},
    "PATCH /api/documents/{document_id}": {"name": "new.txt"},
    "PATCH /api/schedules/{schedule_id}": {"name": "new name"},
    "POST /api/analyses/{analysis_id}/document": {},
    "PATCH /api/sources/{source_id}": {"name": "New name"},
    "POST /api/sources/{source_id}/run": {},
    "PATCH /api/webhooks/{webhook_id}": {"description": "new words"},
    "POST /api/webhooks/{webhook_id}/rotate": {},
    "PATCH /api/contacts/{contact_id}": {"name": "New name"},
    "POST /api/contacts/{contact_id}/history": {"turns": []},
    "PATCH /api/templates/{template_id}": {"name": "New name"},
    "PATCH /api/campaigns/{campaign_id}": {"name": "New name"},
    "POST /api/campaigns/{campaign_id}/preview": {"dry": True},
    "PATCH /api/campaigns/{campaign_id}/messages/{message_id}": {"text": "New words"},
    "POST /api/databases/{database_id}/query": {"query": "SELECT 1"},
    "POST /api/databases/{database_id}/import": {"query": "SELECT 1", "list": "New"},
}
"""Good bodies, so that nothing but the id can be wrong."""

QUERIES = {"GET /api/documents/{document_id}/pages/{number}/marks": "?start=0&end=1"}
ENDLESS = {"GET /api/jobs/events"}
