"""Ollama by its own API: it tells more than its OpenAI-compatible one (context, sizes, thinking) and takes more.

Ollama cuts a prompt that exceeds its `num_ctx` without a word, and a model is loaded anew whenever that number
changes. So we always send it: 8,192, doubled until the request fits, up to what the model can and `MAX_CONTEXT`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from terrace.errors import Missing, TerraceError, Unavailable
from terrace.models.base import (
    ChatRequest,
    Delta,
    Embeddings,
    ModelInfo,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from terrace.models.names import is_embedding, sees
from terrace.models.ndjson import objects
from terrace.models.providers.ending import Ending
from terrace.models.providers.ollama_request import body
from terrace.models.providers.parts import answer_limit, count, dicts
from terrace.models.providers.upstream import Upstream
from terrace.models.tokens import estimate, estimate_messages
from terrace.types import new_id

USUAL_CONTEXT = 8192
MAX_CONTEXT = 32_768  # tokens; beyond this the memory a context takes is the user's decision (options.num_ctx)
ANSWER_TOKENS = 1024  # kept free when a request does not say how long its answer may be
PULL_IDLE_SECONDS = 300.0  # checking a large file's hash takes a while without a word

EMBEDDING_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe", "xlm-roberta"}
VISION_FAMILIES = {"clip", "mllama"}


class Ollama:
    def __init__(self, name: str, upstream: Upstream) -> None:
        self._name = name
        self.upstream = upstream
        self._shown: dict[str, dict[str, Any]] = {}  # model -> /api/show

    @property
    def name(self) -> str:
        return self._name

    async def models(self) -> list[ModelInfo]:
        answer = await self.upstream.json("GET", "/api/tags")
        listed = answer.get("models")
        if not isinstance(listed, list):
            raise self.upstream.nonsense("it lists no models")
        self._shown.clear()  # a model may have been fetched anew under its old name
        named = [each for each in listed if isinstance(each, dict) and isinstance(each.get("name"), str)]
        named.sort(key=lambda each: str(each.get("modified_at")), reverse=True)
        return [self._info(each) for each in named]

    async def context_tokens(self, model: str) -> int | None:
        """What we let a request to `model` fill: the model's own limit, or `MAX_CONTEXT` if that is less and the
        model's file does not say more."""
        shown = await self._show(model)
        length = _context_length(shown)
        return min(length, max(MAX_CONTEXT, _chosen_context(shown))) if length else None

    async def vision(self, model: str) -> bool | None:
        """By what Ollama tells of it, else by its name."""
        able = (await self._show(model)).get("capabilities")
        return "vision" in able if isinstance(able, list) else sees(model)

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending = Ending(request)
        sent = body(request, self.upstream.label)
        sent["options"].setdefault("num_ctx", await self._context(request))
        async with (
            self.upstream.open("POST", "/api/chat", sent, model=request.model) as response,
            aclosing(objects(aiter(response))) as steps,
        ):
            try:
                async for step in steps:
                    for delta in self._deltas(step, ending):
                        ending.saw(delta)
                        yield delta
                    if ending.reason is not None:
                        break
            except TerraceError as error:
                raise self.upstream.named(error) from error
        if ending.reason is None:
            raise self.upstream.broke()
        for last in ending.deltas():
            yield last

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        answer = await self.upstream.json("POST", "/api/embed", {"model": model, "input": list(texts)}, model=model)
        vectors = answer.get("embeddings")
        if not isinstance(vectors, list) or len(vectors) != len(texts):
            raise self.upstream.nonsense("it sent no embeddings, or not one for each text")
        counted = answer.get("prompt_eval_count")
        usage = Usage(counted, 0) if isinstance(counted, int) else None
        try:
            rows = [[float(number) for number in vector] for vector in vectors]
        except (TypeError, ValueError):
            raise self.upstream.nonsense("its embeddings are no numbers") from None
        return Embeddings(rows, usage or Usage(sum(map(estimate, texts)), 0, estimated=True))

    async def pull(self, model: str) -> AsyncIterator[dict[str, Any]]:
        """Fetch a model: {status, completed?, total?} (bytes of the file under way). Missing if there is none."""
        wanted = {"model": model, "stream": True}
        async with self.upstream.open("POST", "/api/pull", wanted, model=model, timeout=PULL_IDLE_SECONDS) as response:
            finished = False
            try:
                async for step in objects(aiter(response)):
                    if step.get("error"):
                        raise self._unfetchable(step["error"], model)
                    finished = step.get("status") == "success"
                    yield {key: step[key] for key in ("status", "completed", "total") if key in step}
            except TerraceError as error:
                raise self.upstream.named(error) from error
        if not finished:
            raise self.upstream.broke()

    async def close(self) -> None:
        """Nothing of its own: the transport is shared."""

    def _unfetchable(self, error: object, model: str) -> TerraceError:
        """A fetch's error; a name that is in no library comes as text alone."""
        reported = self.upstream.reported(error, model)
        if "does not exist" in reported.message or "not found" in reported.message:
            return Missing(f"Ollama's library has no model `{model}`. ({reported.message})", code="model_unknown")
        return reported

    def _deltas(self, step: dict[str, Any], ending: Ending) -> Iterator[Delta]:
        if step.get("error"):
            raise self.upstream.reported(step["error"])
        message = step.get("message")
        if isinstance(message, dict):
            if thought := message.get("thinking"):
                yield ReasoningDelta(str(thought))
            if text := message.get("content"):
                yield TextDelta(str(text))
            for call in dicts(message.get("tool_calls")):
                yield ToolCallDelta(_call(call, ending.calls))
                ending.calls += 1
        if step.get("done"):
            cut = step.get("done_reason") == "length"
            ending.reason = "length" if cut else "tool_calls" if ending.calls else "stop"
            if isinstance(step.get("eval_count"), int):
                ending.usage = Usage(count(step.get("prompt_eval_count")), count(step["eval_count"]))

    async def _context(self, request: ChatRequest) -> int:
        needed = estimate_messages(request.messages) + (answer_limit(request.options) or ANSWER_TOKENS)
        needed += estimate(str(request.options.get("tools") or ""))
        context = USUAL_CONTEXT
        while context < needed and context < MAX_CONTEXT:
            context *= 2
        shown = await self._show(request.model)
        length, chosen = _context_length(shown), _chosen_context(shown)
        return max(chosen, context) if length is None else min(max(chosen, context), length)

    async def _show(self, model: str) -> dict[str, Any]:
        """What Ollama says about a model, once; nothing if it won't say."""
        if model not in self._shown:
            try:
                self._shown[model] = await self.upstream.json("POST", "/api/show", {"model": model}, model=model)
            except Unavailable as error:
                if error.code in ("upstream_unreachable", "upstream_timeout"):
                    raise
                return {}
        return self._shown[model]

    def _info(self, model: dict[str, Any]) -> ModelInfo:
        details = model.get("details")
        family = details.get("family") if isinstance(details, dict) else None
        families = details.get("families") if isinstance(details, dict) else None
        name, size = model["name"], model.get("size")
        eyed = isinstance(families, list) and not VISION_FAMILIES.isdisjoint(map(str, families))
        return ModelInfo(
            id=f"{self._name}/{name}",
            provider=self._name,
            name=name,
            kind="embedding" if family in EMBEDDING_FAMILIES or is_embedding(name) else "chat",
            vision=True if eyed else sees(name),
            size_bytes=size if isinstance(size, int) else None,
        )


def _call(call: dict[str, Any], index: int) -> dict[str, Any]:
    """Ollama sends a tool call whole, its arguments as an object and mostly without an id."""
    said = call.get("function")
    function = said if isinstance(said, dict) else {}
    text = msgspec.json.encode(function.get("arguments") or {}).decode()
    return {
        "index": index,
        "id": str(call.get("id") or new_id("call")),
        "type": "function",
        "function": {"name": str(function.get("name") or ""), "arguments": text},
    }


def _context_length(shown: dict[str, Any]) -> int | None:
    info = shown.get("model_info")
    lengths = (info[key] for key in info if str(key).endswith(".context_length")) if isinstance(info, dict) else ()
    return next((length for length in lengths if isinstance(length, int) and length > 0), None)


def _chosen_context(shown: dict[str, Any]) -> int:
    """`num_ctx` as the model's own file sets it, 0 if it does not."""
    for line in str(shown.get("parameters") or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "num_ctx" and value.strip().isdigit():
            return int(value)
    return 0
