"""Ollama by its own API: it tells more than its OpenAI-compatible one (context, sizes, thinking) and takes more.

Ollama cuts a prompt that exceeds its `num_ctx` without a word, and a model is loaded anew whenever that number
changes. So we always send it: 8,192, doubled until the request fits, up to what the model can and `MAX_CONTEXT`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import Any

import msgspec

from terrace.errors import Invalid, Missing, TerraceError, Unavailable
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
from terrace.models.names import is_embedding
from terrace.models.ndjson import objects
from terrace.models.providers.ending import Ending
from terrace.models.providers.parts import (
    answer_limit,
    arguments,
    data_url,
    image_url,
    json_schema,
    parts,
    stops,
    text_of,
    unsupported,
)
from terrace.models.providers.upstream import Upstream
from terrace.models.tokens import estimate, estimate_messages
from terrace.types import new_id

USUAL_CONTEXT = 8192
MAX_CONTEXT = 32_768  # tokens; beyond this the memory a context takes is the user's decision (options.num_ctx)
ANSWER_TOKENS = 1024  # kept free when a request does not say how long its answer may be
PULL_IDLE_SECONDS = 300.0  # checking a large file's hash takes a while without a word

# OpenAI's names and Ollama's; those that are the same in both stand once.
OPTIONS = {
    name: name
    for name in ("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty", "num_ctx")
}
EMBEDDING_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe", "xlm-roberta"}


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

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        ending = Ending(request)
        body = _body(request, self.upstream.label)
        body["options"].setdefault("num_ctx", await self._context(request))
        async with self.upstream.open("POST", "/api/chat", body, model=request.model) as response:
            try:
                async for step in objects(aiter(response)):
                    for delta in self._deltas(step, ending):
                        ending.saw(delta)
                        yield delta
            except TerraceError as error:
                if ending.reason is None:
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
        body = {"model": model, "stream": True}
        async with self.upstream.open("POST", "/api/pull", body, model=model, timeout=PULL_IDLE_SECONDS) as response:
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
            for call in message.get("tool_calls") or ():
                yield ToolCallDelta(_call(call, ending.calls))
                ending.calls += 1
        if step.get("done"):
            cut = step.get("done_reason") == "length"
            ending.reason = "length" if cut else "tool_calls" if ending.calls else "stop"
            if isinstance(step.get("eval_count"), int):
                ending.usage = Usage(int(step.get("prompt_eval_count") or 0), step["eval_count"])

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
        name, size = model["name"], model.get("size")
        return ModelInfo(
            id=f"{self._name}/{name}",
            provider=self._name,
            name=name,
            kind="embedding" if family in EMBEDDING_FAMILIES or is_embedding(name) else "chat",
            size_bytes=size if isinstance(size, int) else None,
        )


def _body(request: ChatRequest, label: str) -> dict[str, Any]:
    options = request.options
    native = {ours: options[theirs] for theirs, ours in OPTIONS.items() if options.get(theirs) is not None}
    if (limit := answer_limit(options)) is not None:
        native["num_predict"] = limit
    if stop := stops(options):
        native["stop"] = stop
    body: dict[str, Any] = {
        "model": request.model,
        "messages": list(_messages(request.messages, label)),
        "stream": True,
        "options": native,
    }
    wanted, schema = json_schema(options)
    if wanted:
        body["format"] = schema or "json"
    if options.get("tool_choice") != "none" and options.get("tools"):
        body["tools"] = options["tools"]
    return body | {name: options[name] for name in ("think", "keep_alive") if name in options}


def _messages(messages: Sequence[dict[str, Any]], label: str) -> Iterator[dict[str, Any]]:
    called: dict[str, str] = {}  # id of a tool call -> the tool, which Ollama wants named
    for message in messages:
        role = "system" if message.get("role") == "developer" else message.get("role")
        said: dict[str, Any] = {"role": role, "content": text_of(message.get("content"))}
        if images := [_image(part, label) for part in parts(message.get("content")) if part.get("type") != "text"]:
            said["images"] = images
        calls = [call for call in message.get("tool_calls") or () if isinstance(call, dict)]
        if calls:
            said["tool_calls"] = [{"function": {"name": _tool(call), "arguments": arguments(call)}} for call in calls]
            called |= {str(call.get("id")): _tool(call) for call in calls}
        if role == "tool":
            said["tool_name"] = message.get("name") or called.get(str(message.get("tool_call_id")), "")
        yield said


def _image(part: dict[str, Any], label: str) -> str:
    if part.get("type") != "image_url":
        raise unsupported(label, part)
    if (data := data_url(image_url(part))) is None:
        raise Invalid(
            f"{label} fetches no images from the web. Send the image as a data URL.", code="content_unsupported"
        )
    return data[1]


def _tool(call: dict[str, Any]) -> str:
    function = call.get("function")
    return str(function.get("name") or "") if isinstance(function, dict) else ""


def _call(call: object, index: int) -> dict[str, Any]:
    """Ollama sends a tool call whole, its arguments as an object and mostly without an id."""
    said = call.get("function") if isinstance(call, dict) else None
    function = said if isinstance(said, dict) else {}
    text = msgspec.json.encode(function.get("arguments") or {}).decode()
    known = call.get("id") if isinstance(call, dict) else None
    return {
        "index": index,
        "id": str(known) if known else new_id("call"),
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
