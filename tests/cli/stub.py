"""A small server that speaks the part of the API a test needs: real HTTP, real tokens that expire and rotate."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ADA = {
    "id": "usr_ada", "name": "Ada", "email": "ada@example.org", "created_at": "2026-11-01T08:00:00Z",
    "last_login_at": None, "has_password": True, "disabled": False,
}  # fmt: skip
ACME = {"id": "tnt_acme", "name": "acme"}


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None

    @property
    def bearer(self) -> str | None:
        return self.headers.get("authorization", "").removeprefix("Bearer ") or None


@dataclass
class Answer:
    """What is sent back; `cut` bytes before its end the connection is dropped."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0


Handler = Callable[[Asked], Any]


class Stub:
    """Answers are set by the test: `stub.on("GET /api/members", {...})`. `*` in a path stands for one part."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self.open = False  # everybody may, as in local mode
        self.keys: set[str] = set()  # further tokens that are taken
        self.refresh = "trr_0"  # the only refresh token that is good
        self.access = ""  # the newest access token
        self.good: set[str] = set()  # access tokens that have not ended
        self.generation = 0
        self.revoked = False
        self.before_refresh: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._routes: list[tuple[str, re.Pattern[str], Any]] = []
        self.on("POST /api/auth/login", self._login)
        self.on("POST /api/auth/refresh", self._refresh)
        self.on("POST /api/auth/logout", self._logout)
        self.on("GET /api/auth/session", self._session)

    def on(self, route: str, answer: Any) -> None:
        method, _, path = route.partition(" ")
        pattern = re.compile(re.escape(path).replace(r"\*", "[^/]+"))
        self._routes.insert(0, (method, pattern, answer))

    def lists(self, route: str, *items: Any) -> None:
        self.on(f"GET {route}", {"items": list(items), "next": None})

    def sent(self, route: str) -> list[Any]:
        """The bodies sent to a route, in order."""
        method, _, path = route.partition(" ")
        return [each.body for each in self.asked if (each.method, each.path) == (method, path)]

    def expire(self) -> None:
        self.good.clear()

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        public = asked.path.startswith("/api/auth/") or asked.path == "/api/users"
        if not (public or self.open or self._knows(asked)):
            return problem(401, "unauthenticated", "Say who you are.")
        for method, pattern, answer in self._routes:
            if method == asked.method and pattern.fullmatch(asked.path):
                given = answer(asked) if callable(answer) else answer
                return given if isinstance(given, Answer) else Answer(given, 204 if given is None else 200)
        return problem(404, "missing", f"There is nothing at {asked.path}.")

    def _knows(self, asked: Asked) -> bool:
        return asked.bearer is not None and asked.bearer in self.keys | self.good

    def _tokens(self) -> dict[str, Any]:
        self.generation += 1
        self.refresh, self.access = f"trr_{self.generation}", f"access-{self.generation}"
        self.good.add(self.access)
        return {
            "access_token": self.access, "refresh_token": self.refresh, "token_type": "bearer", "expires_in": 900,
            "user": ADA, "tenant": ACME, "role": "admin",
        }  # fmt: skip

    def _login(self, asked: Asked) -> Any:
        if asked.body["password"] != "correct horse":
            return problem(401, "unauthenticated", "The address or the password is wrong.", code="bad_login")
        with self._lock:
            self.revoked = False
            return self._tokens()

    def _refresh(self, asked: Asked) -> Any:
        self.before_refresh()
        with self._lock:
            if self.revoked or asked.body["refresh_token"] != self.refresh:
                self.revoked = True  # used twice
                return problem(401, "unauthenticated", "This session has ended.", code="session_revoked")
            return self._tokens()

    def _logout(self, asked: Asked) -> Any:
        self.revoked = True
        return {"status": "logged out"}

    def _session(self, asked: Asked) -> Any:
        known = self._knows(asked)
        return {
            "mode": "local" if self.open else "accounts", "setup_code_needed": False, "registration": "invite",
            "user": ADA if asked.bearer in self.good else None, "tenant": ACME if known else None,
            "role": "admin" if known else None, "permissions": ["chat"] if known or self.open else [],
            "tenants": [{**ACME, "role": "admin"}] if known else [], "csrf": "hush", "operator": False,
            "mail": False, "oidc": [],
        }  # fmt: skip


def problem(status: int, kind: str, detail: str, *, code: str = "", **headers: str) -> Answer:
    body = {"status": status, "kind": kind, "detail": detail, "code": code or kind}
    return Answer(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def events(*told: tuple[int, str, dict[str, Any]]) -> bytes:
    return b"".join(f"id: {n}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode() for n, kind, data in told)


@contextmanager
def stub() -> Iterator[Stub]:
    told = Stub()

    class Door(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            parts = urlsplit(self.path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query))
            asked = Asked(self.command, unquote(parts.path), query, headers, self.rfile.read(size))
            answer = told.answer(asked)
            body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if answer.status != 204:
                self.wfile.write(body[: len(body) - answer.cut])

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield told
        server.shutdown()
        thread.join()
