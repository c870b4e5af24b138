"""What files and batches have in common at the door: paths, queries, answers."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from terrace.errors import Invalid, Missing
from terrace.web.openai.base import Limits
from terrace.web.openai.request import Request

Action = Callable[[Request, str], Awaitable[None]]
"""Answers a request about the thing of this id."""


@dataclass(frozen=True, slots=True)
class Routes:
    """A resource below /v1: what is done with the collection, with one of it, and with a part of one."""

    name: str
    collection: dict[str, Action]  # by method; the id is empty
    one: dict[str, Action]
    parts: dict[tuple[str, str], Action]  # by method and the part's name

    async def answer(self, request: Request, limits: Limits) -> None:
        """Raises Missing and Invalid (405) in OpenAI's manner, Limited for a request too many."""
        method, path = request.asgi["method"], request.asgi["path"]
        id, _, part = path.removeprefix(f"/v1/{self.name}").strip("/").partition("/")
        if part:
            actions = {wanted: action for (wanted, name), action in self.parts.items() if name == part}
        else:
            actions = self.one if id else self.collection
        if not actions:
            raise Missing(f"Unknown request URL: {method} {path}.", code="unknown_url")
        action = actions.get(method)
        if action is None:
            raise wrong_method(method, path, ", ".join(sorted(actions)))
        if method != "GET":
            await limits.count_waiting(request.owner, 0.0)
        await action(request, id)


def wrong_method(method: str, path: str, allow: str) -> Invalid:
    return Invalid(
        f"{method} is not possible at {path}; use {allow}.", code="method_not_allowed", status=405, allow=allow
    )


def query(request: Request) -> dict[str, str]:
    """The last value of each name. Raises Invalid."""
    try:
        found = parse_qs(request.asgi.get("query_string", b"").decode(), max_num_fields=20)
    except ValueError:
        raise Invalid("The query cannot be read.", code="invalid_parameter") from None
    return {name: values[-1] for name, values in found.items()}


def whole(asked: dict[str, str], name: str, otherwise: int) -> int:
    """A whole number of the query. Raises Invalid."""
    text = asked.get(name, str(otherwise))
    if not text.isdecimal() or len(text) > 9:
        raise Invalid(f"`{name}` must be a whole number.", code="invalid_parameter", param=name)
    return int(text)


async def say(request: Request, value: Any) -> None:
    await request.answer(msgspec.json.encode(value))


async def say_list(request: Request, items: list[dict[str, Any]], more: bool) -> None:
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    await say(request, {"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": more})
