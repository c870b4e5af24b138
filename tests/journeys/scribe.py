"""A model server in OpenAI's form that writes one short letter for each permission it has."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


class Scribe:
    """`url` is its base URL. Each answer takes one of what `permit` gave; `free` lets it write without."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.answers = 0
        self._permits = threading.Semaphore(0)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def permit(self, answers: int) -> None:
        self._permits.release(answers)

    def close(self) -> None:
        self.free.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def wait(self) -> bool:
        """For a permission, a moment at most."""
        return self.free.is_set() or self._permits.acquire(timeout=0.05)

    def _handler(scribe) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"object": "list", "data": [{"id": "scribe", "object": "model"}]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    self._answer(asked)
                except (BrokenPipeError, ConnectionResetError):
                    return  # nobody waits for it any more

            def _answer(self, asked: str) -> None:
                while not scribe.wait():
                    self._write(b": waiting\n\n")
                scribe.answers += 1
                town = re.search(r"Basel|Lugano|Zürich|Z\\u00fcrich", asked)
                where = json.loads(f'"{town[0]}"') if town else "your town"
                self._chunk(choices=[{"index": 0, "delta": {"content": f"Warm greetings to {where}."}}])
                self._chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
                self._chunk(choices=[], usage=USAGE)
                self._write(b"data: [DONE]\n\n")

            def _chunk(self, **given: object) -> None:
                chunk = {"id": "1", "object": "chat.completion.chunk", "model": "scribe", **given}
                self._write(f"data: {json.dumps(chunk)}\n\n".encode())

            def _write(self, data: bytes) -> None:
                self.wfile.write(data)
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        return Handler
