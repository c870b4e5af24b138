"""POST /v1/embeddings with the built-in model, or whichever `knowledge.embedding` names."""

import time
from array import array
from base64 import b64encode
from sys import byteorder
from typing import Any

import msgspec

from terrace.errors import Invalid, TerraceError
from terrace.inference.caller import Caller
from terrace.inference.measures import Measures
from terrace.inference.writing import PROVIDER
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.telemetry.calls import Call, Usage

MAX_INPUTS = 2048  # as OpenAI


class Wanted(msgspec.Struct):
    input: str | list[str]
    model: str = ""
    encoding_format: str = "float"
    dimensions: int | None = None


class Vectors:
    def __init__(self, embedder: StatefulEmbedder, measures: Measures) -> None:
        self.embedder = embedder
        self._measures = measures

    @property
    def name(self) -> str:
        """The model's, without its precision."""
        return self.embedder.name.rpartition("/")[0] or self.embedder.name

    async def run(self, caller: Caller, body: bytes) -> None:
        wanted, texts = _read(body)
        began = time.monotonic()
        usage, code = None, "internal"
        try:
            vectors = await self.embedder.embed(texts)
            usage, code = Usage(sum(await self.embedder.count_tokens(texts)), 0), ""
        except TerraceError as error:
            code = error.code
            raise
        finally:
            took = time.monotonic() - began
            call = Call(PROVIDER, self.name, "embed", "error" if code else "ok", code, took, None, usage, None)
            self._measures.metrics.record(call)
        if wanted.dimensions not in (None, len(vectors[0])):
            raise Invalid(
                f"This model's vectors have {len(vectors[0])} dimensions and can't be shortened. Leave `dimensions` "
                "out.",
                code="unsupported_parameter",
                param="dimensions",
            )
        data = [
            {"object": "embedding", "index": index, "embedding": _written(vector, wanted.encoding_format)}
            for index, vector in enumerate(vectors)
        ]
        counted = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
        await caller.say({"object": "list", "data": data, "model": wanted.model or self.name, "usage": counted})


def _read(body: bytes) -> tuple[Wanted, list[str]]:
    try:
        wanted = msgspec.json.decode(body, type=Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The body is no request for embeddings: {error}.", code="invalid_parameter") from None
    texts = [wanted.input] if isinstance(wanted.input, str) else wanted.input
    if not 1 <= len(texts) <= MAX_INPUTS or not all(texts):
        raise Invalid(
            f"`input` holds from 1 to {MAX_INPUTS:,} texts, none of them empty.",
            code="invalid_parameter",
            param="input",
        )
    if wanted.encoding_format not in ("float", "base64"):
        raise Invalid(
            '`encoding_format` must be "float" or "base64".', code="invalid_parameter", param="encoding_format"
        )
    return wanted, texts


def _written(vector: Any, form: str) -> list[float] | str:
    """Numbers, or float32 little-endian in base64 (what OpenAI's SDK asks for by itself)."""
    if form == "float":
        return vector.tolist()  # type: ignore[no-any-return]
    numbers = array("f", vector)
    if byteorder == "big":
        numbers.byteswap()
    return b64encode(numbers.tobytes()).decode()
