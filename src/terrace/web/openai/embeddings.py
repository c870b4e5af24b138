"""POST /v1/embeddings with the built-in model or a provider's."""

from array import array
from base64 import b64encode
from collections.abc import Sequence
from sys import byteorder
from typing import Any

import msgspec

from terrace.errors import Invalid
from terrace.models.base import Embedder
from terrace.web.openai.base import Models
from terrace.web.openai.request import Fields, Request, text_field, typed_field

MAX_INPUTS = 2048  # as OpenAI
Vectors = Sequence[Any]  # rows: lists of floats, or arrays that know tolist and tobytes

_encode = msgspec.json.Encoder().encode


class EmbeddingsDoor:
    def __init__(self, models: Models, embedder: Embedder | None) -> None:
        self._models = models
        self._embedder = embedder

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
        vectors, tokens = await self._embed(model, texts)
        _check_dimensions(fields, len(vectors[0]))
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, form)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        await request.answer(_encode({"object": "list", "data": data, "model": model, "usage": usage}))

    async def _embed(self, model: str, texts: list[str]) -> tuple[Vectors, int]:
        if self._embedder is not None and self.serves(model):
            vectors = await self._embedder.embed(texts)
            return vectors, sum(await self._embedder.count_tokens(texts))
        answer = await self._models.embed(model, texts)
        return answer.vectors, answer.usage.input_tokens


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
