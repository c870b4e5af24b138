"""One upstream over HTTP: where it is, who we are to it, and what its refusals mean in our words."""

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from terrace.errors import Invalid, Limited, Missing, TerraceError, Unavailable
from terrace.models.decoding import decode
from terrace.models.names import shortened
from terrace.models.transport.base import Headers, Response, Transport
from terrace.types import now

MAX_JSON_BYTES = 64 * 1024 * 1024  # a model list or a batch of embeddings
MAX_ERROR_BYTES = 64 * 1024
MAX_ERROR_CHARS = 400
MAX_DRAINED_BYTES = 64 * 1024
DRAIN_SECONDS = 0.2
MAX_RETRY_AFTER = 3600.0

_KEYLIKE = re.compile(r"\b(?:sk|pk|gsk|hf|xai)[-_][\w*.\-]{6,}|\bBearer\s+\S+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL taken apart, so that no secret in it is ever shown."""

    url: str
    authorization: str

    @classmethod
    def of(cls, name: str, base_url: str) -> "Address":
        """Raises Invalid unless it is an http(s) URL. `user:password@` becomes a header."""
        try:
            parts = urlsplit(base_url.strip())
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in ("http", "https"):
            raise Invalid(f"The base_url of the provider `{name}` must look like http://host:port/path.")
        at = f"[{host}]" if ":" in host else host
        url = urlunsplit((parts.scheme, f"{at}:{port}" if port else at, parts.path.rstrip("/"), "", ""))
        if parts.username is None:
            return cls(url, "")
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return cls(url, f"Basic {b64encode(login.encode()).decode()}")


@dataclass(frozen=True, slots=True)
class Upstream:
    """`label` names it in sentences; `secrets` never leave it."""

    label: str
    base_url: str
    headers: Headers
    transport: Transport
    secrets: tuple[str, ...] = ()
    first_byte_timeout: float = 120.0
    idle_timeout: float = 120.0
    repeats: int = 0  # of what broke off before its head came; each may be billed

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: object = None, *, model: str = "", timeout: float | None = None
    ) -> AsyncIterator[Response]:
        """Send JSON and yield a good response; a bad status raises what it means. Leaving drops the connection
        unless the answer was read to its end. `timeout` seconds for the head and between pieces."""
        headers = (*self.headers, (b"content-type", b"application/json")) if body is not None else self.headers
        content = msgspec.json.encode(body) if body is not None else b""
        response = await self._send(method, path, headers, content, timeout)
        try:
            if response.status != 200:
                raise await self._refusal(response, model)
            yield response
            await _drain(response)
        finally:
            response.close()

    async def json(
        self, method: str, path: str, body: object = None, *, model: str = "", timeout: float | None = None
    ) -> dict[str, Any]:
        """The answer's JSON object. Unavailable (`upstream_nonsense`) when it is none."""
        async with self.open(method, path, body, model=model, timeout=timeout) as response:
            try:
                content = await response.read(MAX_JSON_BYTES)
            except TerraceError as error:
                raise self.named(error) from error
        try:
            answer = decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            answer = None
        if not isinstance(answer, dict):
            raise self.nonsense()
        return answer

    def named(self, error: TerraceError) -> TerraceError:
        """A transport's error, which knows only an address, with our name for the upstream in front."""
        if self.label in error.message:
            return error
        message = self.clean(error.message)
        what = {
            "upstream_unreachable": "can't be reached. Is it running, and is its base_url right?",
            "upstream_timeout": "did not answer in time. It may be busy or loading the model; try again.",
            "upstream_stalled": "stopped in the middle of its answer. Try again.",
            "upstream_broke": "broke off its answer. Try again.",
            "upstream_too_large": "sent more than an answer may hold.",
        }.get(error.code, "failed.")
        return type(error)(
            f"{self.label} {what} ({message})", code=error.code, status=error.status, retry_after=error.retry_after
        )

    def nonsense(self, why: str = "what it sent is not what this kind of provider speaks") -> Unavailable:
        return Unavailable(
            f"{self.label} can't be understood: {why}. Check its kind and base_url.", code="upstream_nonsense"
        )

    def broke(self) -> Unavailable:
        return Unavailable(f"{self.label} broke off in the middle of its answer. Try again.", code="upstream_broke")

    def reported(self, error: object, model: str = "") -> TerraceError:
        """An error object that came inside a stream which had begun well."""
        message = self.clean(_message(error)) or "no reason given"
        status = error.get("code") or error.get("status_code") if isinstance(error, dict) else None
        if isinstance(status, int) and 400 <= status < 500:
            return self._meaning(status, message, None, model)
        return Unavailable(f"{self.label} reports an error: {message}", code="upstream_error")

    def clean(self, text: str) -> str:
        """Without keys, and short."""
        for secret in self.secrets:
            text = text.replace(secret, "[key]")
        text = " ".join(_KEYLIKE.sub("[key]", text).split())
        return text if len(text) <= MAX_ERROR_CHARS else text[: MAX_ERROR_CHARS - 1] + "…"

    async def _send(
        self, method: str, path: str, headers: Headers, content: bytes, timeout: float | None, tried: int = 0
    ) -> Response:
        """The response's head. A connection that closes before it is repeated at once where that costs nothing: some
        servers (llama.cpp's) promise to keep one alive and close it all the same."""
        try:
            return await self.transport.send(
                method,
                self.base_url + path,
                headers,
                content,
                first_byte_timeout=timeout or self.first_byte_timeout,
                idle_timeout=timeout or self.idle_timeout,
            )
        except TerraceError as error:
            if error.code != "upstream_broke" or tried >= self.repeats:
                raise self.named(error) from error
        return await self._send(method, path, headers, content, timeout, tried + 1)

    async def _refusal(self, response: Response, model: str) -> TerraceError:
        try:
            content = await response.read(MAX_ERROR_BYTES)
        except TerraceError:
            content = b""  # the status says enough
        return self._meaning(response.status, self.clean(_said(content)), retry_after(response.headers), model)

    def _meaning(self, status: int, said: str, after: float | None, model: str) -> TerraceError:
        label, because = self.label, f": {said}" if said else "."
        if status in (401, 403):
            return Unavailable(
                f"{label} does not accept our key ({status}). Check its api_key{because}", code="upstream_denied"
            )
        if status == 404 and said and model:
            return Missing(f"{label} has no model `{shortened(model)}`{because}", code="model_unknown")
        if status == 404 or 300 <= status < 400 or status == 405:
            return Unavailable(
                f"{label} has nothing at that address ({status}). Check its base_url{because}",
                code="upstream_wrong_url",
            )
        if status == 429:
            wait = f" Try again in {after:.0f} s." if after else " Try again later or choose another model."
            return Limited(f"{label} allows no more calls for now{because}{wait}", code="upstream_limited",
                           retry_after=after)  # fmt: skip
        if status in (400, 402, 413, 422):
            return Invalid(f"{label} refused the request{because}", code="upstream_refused",
                           status=413 if status == 413 else None)  # fmt: skip
        return Unavailable(f"{label} failed ({status}){because}", code="upstream_error", retry_after=after)


async def _drain(response: Response) -> None:
    """Read what little may be left of a body whose content is complete, so that its connection can serve again."""
    with suppress(TimeoutError, TerraceError):  # then the connection is dropped
        async with asyncio.timeout(DRAIN_SECONDS):
            await response.read(MAX_DRAINED_BYTES)


def retry_after(headers: Headers) -> float | None:
    """Seconds from `Retry-After` (seconds or a date) or `retry-after-ms`, at most an hour; None when unsaid."""
    found = dict(headers)
    try:
        if b"retry-after-ms" in found:
            seconds = float(found[b"retry-after-ms"]) / 1000
        elif b"retry-after" in found:
            value = found[b"retry-after"].decode("latin-1").strip()
            is_number = value.replace(".", "", 1).isdigit()
            seconds = float(value) if is_number else parsedate_to_datetime(value).timestamp() - now()
        else:
            return None
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _said(content: bytes) -> str:
    """What an error body says, if it says it in JSON; a web page says nothing."""
    try:
        return _message(msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def _message(error: object) -> str:
    """The sentence in an error of any of the usual shapes."""
    if isinstance(error, str):
        return error
    if isinstance(error, list):
        return "; ".join(filter(None, map(_message, error[:5])))
    if isinstance(error, dict):
        for key in ("error", "message", "msg", "detail"):
            if found := _message(error.get(key)):
                return found
    return ""
