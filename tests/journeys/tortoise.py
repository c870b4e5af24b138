"""A model server in OpenAI's form that writes slowly, and waits in the middle of an answer until it is let on."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST = "Slow and steady **wins** the race"
REST = ", as the tortoise said to the hare [1].\n\n```python\nprint('patience')\n```\n\nThat is all."


class Tortoise:
    """`url` is its base URL. It says FIRST at once and REST when `gate` is set; it refuses when `refusing` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.refusing = threading.Event()
        self.answers = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(tortoise) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"object": "list", "data": [{"id": "tortoise", "object": "model"}]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if tortoise.refusing.is_set():
                    self.send_error(401)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    self._answer()
                except (BrokenPipeError, ConnectionResetError):
                    return  # the answer was stopped

            def _answer(self) -> None:
                tortoise.answers += 1
                self._say(FIRST)
                while not tortoise.gate.wait(0.05):
                    self._write(b": waiting\n\n")
                for word in REST.split(" "):
                    self._say(word + " ")
                self._chunk({}, "stop")
                self._write(b"data: [DONE]\n\n")

            def _say(self, text: str) -> None:
                self._chunk({"content": text}, None)

            def _chunk(self, delta: dict[str, str], finish: str | None) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                chunk = {"id": "1", "object": "chat.completion.chunk", "model": "tortoise", "choices": [choice]}
                self._write(f"data: {json.dumps(chunk)}\n\n".encode())

            def _write(self, data: bytes) -> None:
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
