"""A request that nobody waits for at a connection: one line of a batch."""

from collections.abc import MutableMapping
from typing import Any

from terrace.batches.base import Answer
from terrace.models.tokens import bound
from terrace.types import Scope, new_id
from terrace.web.openai.base import Message
from terrace.web.openai.request import Request


class Alone:
    """A `Request` whose answer is collected."""

    def __init__(self, scope: Scope, path: str, body: bytes) -> None:
        self._identity = new_id("req")
        self._status = 0
        self._pieces: list[bytes] = []
        asgi: MutableMapping[str, Any] = {
            "type": "http", "method": "POST", "path": path, "headers": [], "state": {"request_id": self._identity},
        }  # fmt: skip
        self.request = Request(asgi, self._receive, self._send)
        self.request.owner = scope
        self.request.bound = bound(body)

    @property
    def answer(self) -> Answer:
        return Answer(self._status, self._identity, b"".join(self._pieces))

    async def _receive(self) -> Message:
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._pieces.append(message.get("body", b""))
