"""A stand-in that answers as Terrace does, and the connection to it. Airflow has a folder of its own."""

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="terrace-airflow-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")


class Terrace:
    """`answers[method, path]`: (status, JSON), or many of them for one call after the other. `asked` is what came."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, Any]]] = {}
        self.asked: list[tuple[str, str, str | None, bytes]] = []

    def answer(self, method: str, path: str, *answers: tuple[int, Any]) -> None:
        self.answers[method, path] = list(answers)

    def next(self, method: str, path: str) -> tuple[int, Any]:
        known = self.answers.get((method, path.partition("?")[0]))
        if not known:
            return 404, {"detail": "There is no such thing.", "code": "missing"}
        return known.pop(0) if len(known) > 1 else known[0]


@pytest.fixture
def terrace() -> Iterator[Terrace]:
    state = Terrace()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.append((self.command, self.path, self.headers.get("Authorization"), body))
            status, told = state.next(self.command, self.path)
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = {"conn_type": "terrace", "host": "127.0.0.1", "port": server.server_port, "password": "tk_secret"}
    os.environ["AIRFLOW_CONN_TERRACE_DEFAULT"] = json.dumps(connection)
    yield state
    server.shutdown()
    server.server_close()
    del os.environ["AIRFLOW_CONN_TERRACE_DEFAULT"]
