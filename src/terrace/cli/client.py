"""The command line speaks the public API: to a running server, or to a private one it starts for the moment."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote, urlsplit

import typer

from terrace.errors import BY_KIND, Internal, TerraceError, Unavailable
from terrace.settings import Settings

TIMEOUT = 600.0

Server = Annotated[str | None, typer.Option("--server", envvar="TERRACE_SERVER", help="Address of a running Terrace.")]


class Client:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._https = parts.scheme == "https"
        self._netloc = parts.netloc

    def get(self, path: str) -> Any:
        return self._json("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._json("POST", path, json.dumps(body or {}).encode(), {"Content-Type": "application/json"})

    def delete(self, path: str) -> None:
        self._json("DELETE", path)

    def upload(self, path: Path, fields: dict[str, str]) -> Any:
        """The file is sent piece by piece, never held in memory."""
        boundary = f"terrace-{time.time_ns():x}"
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        name = path.name.replace("\\", "\\\\").replace('"', '\\"')
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        tail = f"\r\n--{boundary}--\r\n".encode()
        encoded = head.encode()
        with path.open("rb") as file:
            length = len(encoded) + path.stat().st_size + len(tail)
            headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
            return self._json("POST", "/api/documents/upload", _pieces(encoded, file, tail), headers)

    def events(self, path: str, body: Any = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Server-sent events as (type, data). A cut stream is taken up again where it stopped."""
        after, job = "", ""
        while True:
            headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
            if after:
                headers["Last-Event-ID"] = after
            response = (
                self._open("POST", path, json.dumps(body).encode(), headers)
                if body is not None and not job
                else self._open("GET", f"/api/jobs/{job}/events" if job else path, None, headers)
            )
            try:
                for identity, kind, data in _events(response):
                    after = identity or after
                    job = data.get("job_id", job) if kind == "start" else job
                    yield kind, data
                    if kind == "done":
                        return
            except (OSError, HTTPException):
                if not after:
                    raise
            finally:
                response.close()
            time.sleep(0.5)

    def _json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        response = self._open(method, path, body, headers or {})
        data = response.read()
        return json.loads(data) if data else None

    def _open(self, method: str, path: str, body: Any, headers: dict[str, str]) -> HTTPResponse:
        connection = (HTTPSConnection if self._https else HTTPConnection)(self._netloc, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{self.url} does not answer: {error}") from error
        if response.status >= 400:
            raise _told(response)
        return response


def _pieces(head: bytes, file: BinaryIO, tail: bytes) -> Iterator[bytes]:
    yield head
    while piece := file.read(1 << 18):
        yield piece
    yield tail


def _events(response: HTTPResponse) -> Iterator[tuple[str, str, dict[str, Any]]]:
    fields: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line.startswith(":"):
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
        return BY_KIND[problem["kind"]](problem["detail"], code=problem["code"])
    except (ValueError, KeyError, TypeError):
        return Internal(f"The server answered {response.status} {response.reason}.")


@contextmanager
def connect(server: str | None) -> Iterator[Client]:
    """A client of `server`, else of the server running on our data folder, else of one of our own."""
    if server:
        yield Client(server)
        return
    from terrace import assembly  # late: it takes a second, and --help or --server can do without

    settings = Settings.load()
    running = assembly.running(settings)
    if running:
        yield Client(running)
        return
    with _private(settings) as url:
        yield Client(url)


@contextmanager
def _private(settings: Settings) -> Iterator[str]:
    """A server on a free loopback port in a thread of ours; drained when the command is done."""
    from terrace import assembly

    settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
    address: list[str] = []
    failure: list[BaseException] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    def started(url: str) -> None:
        address.append(url)
        up.set()

    def run() -> None:
        try:
            loop.run_until_complete(assembly.serve(settings, started=started, stop=stop))
        except BaseException as error:
            failure.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=run, name="terrace")
    thread.start()
    up.wait()
    try:
        if failure:
            raise failure[0]
        yield address[0]
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def path(*parts: str) -> str:
    """`/api/...` with each part safely quoted."""
    return "/api/" + "/".join(quote(part, safe="") for part in parts)
