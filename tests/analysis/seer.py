"""A vision model on loopback, in three wire formats: it decodes every picture it gets and says what it sees."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.analysis.sheets import Seen, see
from tests.models.upstream import Reply, Upstream
from tests.models.wires import OpenAIWire, Wire

Say = Callable[["Asked"], str | Reply]


class Asked:
    """One call, as the model understands it."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.text = "\n".join(_texts(body))
        self.pictures: list[Seen] = [see(data) for data in _pictures(body)]
        self.numbers = [int(each) for each in re.findall(r"^\[(\d+)\] ", self.text, re.M)]
        self.turns = len(body["messages"])


def answered(fields: Any = None, markdown: str | None = None) -> Say:
    """An answer in form: what is seen on each page, and these fields."""

    def say(asked: Asked) -> str:
        told = [
            f"{each.bars} bars on {each.colour}, {each.width}x{each.height} {each.format}" for each in asked.pictures
        ]
        pages = [{"page": number, "note": note} for number, note in zip(asked.numbers, told, strict=False)]
        value: dict[str, Any] = {"markdown": markdown or "; ".join(told) or "put together", "pages": pages}
        return json.dumps(value | ({} if fields is None else {"fields": fields}))

    return say


class _Replies(dict[str, list[Reply]]):
    def __init__(self, seer: "Seer") -> None:
        super().__init__()
        self._seer = seer

    def get(self, path: str, default: Any = None) -> Any:  # type: ignore[override]
        return self._seer.reply(path) or super().get(path, default)


class Seer(Upstream):
    """Says what `says` returns for each call; `asked` are the calls."""

    def __init__(self, says: Say | None = None, wire: Wire | None = None) -> None:
        super().__init__()
        self.says = says or answered()
        self.wire = wire or OpenAIWire()
        self.asked: list[Asked] = []
        self.replies = _Replies(self)

    def reply(self, path: str) -> list[Reply] | None:
        if path != self.wire.chat:
            return None
        asked = Asked(self.seen[-1].body)
        self.asked.append(asked)
        said = self.says(asked)
        return [said if isinstance(said, Reply) else self.wire.answer(said)]

    def provider(self, *names: str) -> dict[str, Any]:
        """Its settings."""
        return {"kind": self.wire.kind, "base_url": self.url + self.wire.prefix, "api_key": "k", "models": list(names)}


def _texts(body: dict[str, Any]) -> Iterator[str]:
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            yield content
            continue
        yield from (part["text"] for part in content if part["type"] == "text")


def _pictures(body: dict[str, Any]) -> Iterator[bytes]:
    for message in body["messages"]:
        for data in message.get("images", ()):  # Ollama
            yield base64.b64decode(data, validate=True)
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url":
                head, _, data = part["image_url"]["url"].partition(",")
                assert re.fullmatch(r"data:image/(png|jpeg);base64", head), head
                yield base64.b64decode(data, validate=True)
            elif part["type"] == "image":  # Anthropic
                yield base64.b64decode(part["source"]["data"], validate=True)
