"""The command line speaks the public API: JSON, uploads, and event streams that go on after a cut."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from terrace.errors import BY_KIND, Internal, Invalid, TerraceError, Unavailable

TIMEOUT = 600.0  # seconds for one answer; the server bounds its own work
RESUME = 30.0  # seconds a server may be away before a stream that was cut is given up


class Client:
    """One server. Safe to use from several threads: each request has its own connection."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise Invalid(f"A server's address looks like http://localhost:8000; {url} does not.", code="bad_address")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._netloc = parts.netloc.rpartition("@")[2]
        self._prefix = parts.path.rstrip("/")

    def get(self, path: str) -> Any:
        return self._json("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._json("POST", path, json.dumps(body or {}).encode(), {"Content-Type": "application/json"})

    def upload(self, path: Path, fields: dict[str, str]) -> Any:
        """The file is sent piece by piece, never held in memory. Raises OSError when it can't be read."""
        return self._send("/api/documents/upload", "file", path, fields)

    def upload_zip(self, path: Path, fields: dict[str, str]) -> Any:
        """Each file in it becomes a document. Raises OSError when it can't be read."""
        return self._send("/api/documents/batch-upload", "files", path, fields)

    def _send(self, to: str, field: str, path: Path, fields: dict[str, str]) -> Any:
        boundary = f"terrace-{secrets.token_hex(16)}"
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{_filename(path)}"\r\n\r\n'
        encoded, tail = head.encode(), f"\r\n--{boundary}--\r\n".encode()
        with path.open("rb") as file:
            size = path.stat().st_size
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(encoded) + size + len(tail)),
            }
            return self._json("POST", to, _pieces(encoded, file, size, tail), headers)

    def events(
        self, path: str, body: Any = None, *, on_job: Callable[[str], None] | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as (type, data), to the last. A cut stream is taken up again where it stopped.

        With a body the stream begins with a POST that makes a job; `on_job` is told its id. What is repeated after a
        cut is a GET of that job's events, never the POST.
        """
        after, deadline = "", 0.0
        encoded = None if body is None else json.dumps(body).encode()
        while True:
            headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
            if after:
                headers["Last-Event-ID"] = after
            try:
                with self._open("GET" if encoded is None else "POST", path, encoded, headers) as response:
                    if job := response.getheader("X-Job-Id"):
                        path, encoded = f"/api/jobs/{job}/events", None
                        if on_job:
                            on_job(job)
                    for identity, kind, data in _events(response):
                        after, deadline = identity or after, 0.0
                        yield kind, data
                        if kind == "done":
                            return
            except (_Away, OSError, HTTPException) as error:
                deadline = deadline or time.monotonic() + RESUME
                if encoded is not None or (isinstance(error, _Away) and (not after or time.monotonic() > deadline)):
                    raise _away(self.url, error) from error
            time.sleep(0.3)

    def _json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        with self._open(method, path, body, headers or {}) as response:
            try:
                data = response.read()
                return json.loads(data) if data else None
            except ValueError as error:
                raise Internal(f"{self.url} answers, but not as Terrace does.") from error
            except (OSError, HTTPException) as error:
                raise _away(self.url, error) from error

    @contextmanager
    def _open(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        with closing(self._connection(self._netloc, timeout=TIMEOUT)) as connection:
            try:
                response = _asked(connection, method, self._prefix + path, body, headers)
            except (OSError, HTTPException) as error:
                raise _away(self.url, error) from error
            if response.status >= 400:
                raise _told(response)
            yield response


class _Away(Unavailable):
    """No answer came: the server is not there, or went."""


def _away(url: str, error: Exception) -> TerraceError:
    if isinstance(error, _ReadError):
        raise error.cause
    return error if isinstance(error, _Away) else _Away(f"{url} does not answer: {_why(error)}.")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class _ReadError(OSError):
    """The file that is sent could not be read; not the connection's fault."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _asked(connection: HTTPConnection, method: str, path: str, body: Any, headers: dict[str, str]) -> HTTPResponse:
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent: the reason may still come
        connection.request(method, path, body, headers)
    return connection.getresponse()


def _filename(path: Path) -> str:
    """As a quoted string (RFC 2183) without line breaks; what is no UTF-8 is shown as such."""
    name = path.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r'["\\]', r"\\\g<0>", re.sub(r"[\r\n]", " ", name))


def _pieces(head: bytes, file: BinaryIO, size: int, tail: bytes) -> Iterator[bytes]:
    """Exactly what Content-Length promised, though the file may be growing."""
    yield head
    while size:
        try:
            piece = file.read(min(size, 1 << 18))
        except OSError as error:
            raise _ReadError(error) from error
        if not piece:
            raise _ReadError(OSError("it became shorter while it was sent"))
        size -= len(piece)
        yield piece
    yield tail


def _events(response: HTTPResponse) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Whole events as (id, type, data); one that was cut off in the middle does not count."""
    fields: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line.startswith(":") or not raw.endswith(b"\n"):
            continue
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif fields:
            yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields.get("data", "{}"))
            fields = {}


def _told(response: HTTPResponse) -> TerraceError:
    """The server's problem document as the error it was."""
    try:
        problem = json.loads(response.read())
        return BY_KIND[problem["kind"]](problem["detail"], code=problem["code"], status=response.status)
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return Internal(f"The server answered {response.status} {response.reason}; it may not be Terrace.")


def path(*parts: str) -> str:
    """`/api/...` with each part safely quoted."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)
