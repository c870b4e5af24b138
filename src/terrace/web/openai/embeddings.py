"""POST /v1/embeddings with the built-in model or a provider's."""

import asyncio
from array import array
from base64 import b64encode
from collections.abc import Sequence
from sys import byteorder
from typing import Any

import msgspec

from terrace.errors import Invalid, TerraceError
from terrace.models.base import Embedder
from terrace.models.walls import denied, permits
from terrace.telemetry.calls import Call, Demand, Outcome, Usage
from terrace.web.openai.base import Limits, Models
from terrace.web.openai.request import Fields, Request, text_field, typed_field

MAX_INPUTS = 2048  # as OpenAI
Vectors = Sequence[Any]  # rows: lists of floats, or arrays that know tolist and tobytes

_encode = msgspec.json.Encoder().encode


class EmbeddingsDoor:
    def __init__(self, models: Models, embedder: Embedder | None, limits: Limits) -> None:
        self._models = models
        self._embedder = embedder
        self._limits = limits

    @property
    def built_in(self) -> str | None:
        """The id of the built-in model: its name without the precision."""
        return self._embedder.name.rpartition("/")[0] or self._embedder.name if self._embedder else None

    def serves(self, model: str) -> bool:
        return self._embedder is not None and model in (self.built_in, self._embedder.name)

    async def run(self, request: Request, fields: Fields) -> None:
        model = text_field(fields, "model")
        texts = _inputs(fields)
        form = typed_field(fields, "encoding_format", str, '"float" or "base64"') or "float"
        if form not in ("float", "base64"):
            raise Invalid('`encoding_format` must be "float" or "base64".', code="invalid_parameter",
                          param="encoding_format")  # fmt: skip
        vectors, tokens = await self._embed(request, model, texts)
        _check_dimensions(fields, len(vectors[0]))
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, form)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        await request.answer(_encode({"object": "list", "data": data, "model": model, "usage": usage}))

    async def _embed(self, request: Request, model: str, texts: list[str]) -> tuple[Vectors, int]:
        if self._embedder is not None and self.serves(model):
            return await self._embed_here(request, self._embedder, texts)
        requests = 0 if request.counted else 1
        answer = await self._models.embed(model, texts, request.owner, patience=request.patience, requests=requests)
        return answer.vectors, answer.usage.input_tokens

    async def _embed_here(self, request: Request, embedder: Embedder, texts: list[str]) -> tuple[Vectors, int]:
        """With the built-in model: it costs no money, but its tokens count as any."""
        owner, name = request.owner, self.built_in or embedder.name
        if not permits(owner, name):
            raise denied(owner, name)
        demand = Demand("builtin", "builtin", name, "embed", request.bound, None, 1)
        opened = await self._limits.wait(owner, demand, request.patience)
        begun = request.elapsed()
        outcome: Outcome = "error"
        code, usage = "internal", None
        try:
            vectors = await embedder.embed(texts)
            tokens = sum(await embedder.count_tokens(texts))
            outcome, code, usage = "ok", "", Usage(tokens, 0)
        except asyncio.CancelledError:
            outcome, code = "cancelled", ""
            raise
        except TerraceError as error:
            code = error.code
            raise
        finally:
            took = request.elapsed() - begun
            opened.end(Call("builtin", name, "embed", outcome, code, took, None, usage, owner.tenant))
        return vectors, tokens


def _inputs(fields: Fields) -> list[str]:
    given = typed_field(fields, "input", str | list[Any], "a string or a list of strings")
    texts = [given] if isinstance(given, str) else given or []
    if any(isinstance(each, int | list) for each in texts):
        raise Invalid(
            "`input` holds token numbers, which belong to another model's tokenizer. Send the text itself.",
            code="tokens_unsupported",
            param="input",
        )
    if not all(isinstance(each, str) for each in texts):
        raise Invalid("`input` must be a string or a list of strings.", code="invalid_parameter", param="input")
    if not 1 <= len(texts) <= MAX_INPUTS or not all(texts):
        raise Invalid(f"`input` holds from 1 to {MAX_INPUTS:,} texts, none of them empty.", code="invalid_parameter",
                      param="input")  # fmt: skip
    return texts


def _check_dimensions(fields: Fields, have: int) -> None:
    """A vector cut short means something only with a model trained for it, which the served ones are not."""
    wanted = typed_field(fields, "dimensions", int, "a whole number")
    if wanted not in (None, have):
        raise Invalid(
            f"This model's vectors have {have} dimensions and can't be shortened. Leave `dimensions` out.",
            code="unsupported_parameter",
            param="dimensions",
        )


def _written(vector: Any, form: str) -> list[float] | str:
    """Numbers, or float32 little-endian in base64 (what OpenAI's SDK asks for by itself)."""
    if form == "float":
        return vector.tolist() if hasattr(vector, "tolist") else vector  # type: ignore[no-any-return]
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
