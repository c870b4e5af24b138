"""The command line speaks the public API: JSON, uploads, downloads, and event streams that go on after a cut."""

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote, urlencode, urlsplit

from terrace import __version__
from terrace.errors import BY_KIND, Internal, Invalid, TerraceError, Unauthenticated, Unavailable

TIMEOUT = 600.0  # seconds for one answer; the server bounds its own work
RESUME = 30.0  # seconds a server may be away before a stream that was cut is given up
AGENT = f"terrace/{__version__}"
PAGE = 200  # items of a list fetched at a time

Body = bytes | Callable[[], Iterator[bytes]] | None
"""What is sent; what is sent piece by piece can be begun again."""


class Credential(Protocol):
    """What says to a server who we are."""

    def token(self) -> str | None:
        """Sent as Bearer; None when there is nothing to say. May ask the server for a new one."""

    def renewed(self, refused: str) -> bool:
        """The server did not take `refused`: whether there is another one to try now."""

    def advice(self, url: str) -> str:
        """One sentence: what to do when the server wants to know more."""


class Nobody:
    """No credential: enough where nobody logs in, and to log in."""

    def token(self) -> str | None:
        return None

    def renewed(self, refused: str) -> bool:
        return False

    def advice(self, url: str) -> str:
        return f"{url} wants to know who you are: run `terrace login --server {url}` or set TERRACE_API_KEY."


class Client:
    """One server. Safe to use from several threads: each request has its own connection."""

    def __init__(
        self, url: str, credential: Credential | None = None, *, tenant: str | None = None, timeout: float = TIMEOUT
    ) -> None:
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
        self.credential = credential or Nobody()
        self._tenant = tenant  # an id; only the terminal may choose one
        self._timeout = timeout

    def get(self, path: str, **query: Any) -> Any:
        return self._json("GET", _with(path, query))

    def post(self, path: str, body: Any = None) -> Any:
        return self.send("POST", path, body or {})

    def send(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """Any method, with a JSON body or none. `key`: sent again with the same, it is carried out once."""
        encoded = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if body is not None else {}
        return self._json(method, path, encoded, headers | ({} if key is None else {"Idempotency-Key": key}))

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All of a list, a page at a time."""
        cursor = None
        while True:
            page = self.get(path, **{"limit": PAGE, **query, "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next")
            if not cursor:
                return

    def text(self, path: str, **query: Any) -> str:
        with self._open("GET", _with(path, query), None, {}) as response:
            return self._read(response).decode()

    def download(self, path: str, to: BinaryIO, received: Callable[[int, int | None], None]) -> None:
        """Written piece by piece, never held in memory; `received` hears how many bytes came, and of how many."""
        with self._open("GET", path, None, {}) as response:
            total = response.length
            done = 0
            while piece := self._read(response, 1 << 18):
                to.write(piece)
                done += len(piece)
                received(done, total)
            if total is not None and done < total:
                raise _Away(f"{self.url} went away after {done:,} of {total:,} bytes.")

    def upload(self, path: Path, fields: dict[str, str]) -> Any:
        """The file is sent piece by piece, never held in memory. Raises OSError when it can't be read."""
        return self._send("/api/documents/upload", "file", path, fields)

    def upload_zip(self, path: Path, fields: dict[str, str]) -> Any:
        """Each file in it becomes a document. Raises OSError when it can't be read."""
        return self._send("/api/documents/batch-upload", "files", path, fields)

    def send_file(self, to: str, path: Path, fields: dict[str, str]) -> Any:
        """A file as the field `file` of a form, piece by piece. Raises OSError when it can't be read."""
        return self._send(to, "file", path, fields)

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

            def pieces() -> Iterator[bytes]:
                file.seek(0)
                return _pieces(encoded, file, size, tail)

            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(encoded) + size + len(tail)),
            }
            return self._json("POST", to, pieces, headers)

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

    def _json(self, method: str, path: str, body: Body = None, headers: dict[str, str] | None = None) -> Any:
        with self._open(method, path, body, headers or {}) as response:
            data = self._read(response)
        try:
            return json.loads(data) if data else None
        except ValueError as error:
            raise Internal(f"{self.url} answers, but not as Terrace does.") from error

    def _read(self, response: HTTPResponse, most: int | None = None) -> bytes:
        try:
            return response.read(most)
        except (OSError, HTTPException) as error:
            raise _away(self.url, error) from error

    @contextmanager
    def _open(self, method: str, path: str, body: Body, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        with ExitStack() as connections:
            token = self.credential.token()
            response = self._sent(connections, method, path, body, headers, token)
            if response.status == 401 and token and self.credential.renewed(token):
                response = self._sent(connections, method, path, body, headers, self.credential.token())
            if response.status >= 400:
                raise self._told(path, response)
            yield response

    def _sent(
        self, open: ExitStack, method: str, path: str, body: Body, headers: dict[str, str], token: str | None
    ) -> HTTPResponse:
        connection = open.enter_context(closing(self._connection(self._netloc, timeout=self._timeout)))
        headers = {"User-Agent": AGENT, **headers}
        if token:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        if self._tenant:
            headers = {**headers, "Terrace-Tenant": self._tenant}
        try:
            content = body() if callable(body) else body
            return _asked(connection, method, self._prefix + path, content, headers)
        except (OSError, HTTPException) as error:
            raise _away(self.url, error) from error

    def _told(self, path: str, response: HTTPResponse) -> TerraceError:
        """What went wrong. Where the server wants to know who asks, what to do about it here."""
        error = _problem(response)
        if error.kind == "unauthenticated" and not path.startswith("/api/auth/"):
            return Unauthenticated(self.credential.advice(self.url), code=error.code)
        return error


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


# Of a problem document, what every one has; the rest is told by this kind of error alone.
TOLD = {"type", "title", "status", "detail", "instance", "kind", "code", "message", "retry_after"}


def _problem(response: HTTPResponse) -> TerraceError:
    """The server's problem document as the error it was."""
    waiting = response.getheader("Retry-After", "")
    try:
        problem = json.loads(response.read())
        return BY_KIND[problem["kind"]](
            problem["detail"],
            code=problem["code"],
            status=response.status,
            retry_after=float(waiting) if waiting.isdigit() else None,
            **{name: value for name, value in problem.items() if name not in TOLD},
        )
    except (ValueError, KeyError, TypeError, OSError, HTTPException):
        return Internal(f"The server answered {response.status} {response.reason}; it may not be Terrace.")


def _with(path: str, query: dict[str, Any]) -> str:
    """With what of the query has a value."""
    given = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{path}{'&' if '?' in path else '?'}{given}" if given else path


def path(*parts: str) -> str:
    """`/api/...` with each part safely quoted."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)
