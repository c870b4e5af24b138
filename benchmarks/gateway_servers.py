"""The processes a gateway benchmark compares: the upstream, nginx, Terrace; and what the kernel says they used."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.gateway_accounts import key_with_limits

TICKS = os.sysconf("SC_CLK_TCK")
NGINX = """
worker_processes 1;
worker_rlimit_nofile 40000;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
daemon off;
events {{ worker_connections 30000; multi_accept on; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 10000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 4096; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass {scheme}://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer sk-upstream";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


class Process:
    """A started server; `cpu` and `memory` add up its whole family."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.name = name
        self.port = port
        self.pid = process.pid
        self.key = "sk-benchmark"  # what clients send
        self._process = process

    def _family(self) -> list[int]:
        family = [self._process.pid]
        for pid in family:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                family += map(int, task.read_text().split())
        return family

    def cpu(self) -> float:
        """CPU seconds so far, user and system."""
        used = 0
        for pid in self._family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            used += int(fields[11]) + int(fields[12])
        return used / TICKS

    def memory(self) -> int:
        """Resident bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._family())
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    port: int,
    *,
    environ: dict[str, str] | None = None,
    ready: str = "",
    patience: float = 60,
) -> Iterator[Process]:
    """A server, once it accepts connections (and answers `ready` with 200)."""
    with open(os.devnull, "wb") as nowhere:
        started = subprocess.Popen(command, env={**os.environ, **(environ or {})}, stdout=nowhere)
    process = Process(name, started, port)
    try:
        _wait(started, port, ready, patience)
        yield process
    finally:
        process.stop()


def _wait(process: "subprocess.Popen[bytes]", port: int, ready: str, patience: float) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}")
        try:
            if ready:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=2).close()
            else:
                socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{process.args!r} did not start within {patience} s")


def upstream(certificate: Path | None = None) -> AbstractContextManager[Process]:
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.upstream", "--port", str(port)]
    if certificate:
        command += ["--certificate", str(certificate)]
    return running("upstream", command, port)


def nginx(folder: Path, upstream_port: int, *, tls: bool = False) -> AbstractContextManager[Process]:
    found = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(found).exists():
        raise SystemExit("The reference is nginx: install Debian's `nginx-light` first.")
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    conf = folder / "nginx.conf"
    scheme = "https" if tls else "http"
    conf.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port, scheme=scheme))
    return running("nginx", [found, "-c", str(conf), "-e", str(folder / "error.log")], port)


@contextmanager
def terrace(
    folder: Path, upstream_port: int, *, certificate: Path | None = None, door_only: bool = False, alone: bool = False
) -> Iterator[Process]:
    """`terrace serve` as a person starts it, with one provider added, an account, and a key with five limits. `alone`:
    before the first account, when nobody is asked and nothing limited. Or the door by itself."""
    port = free_port()
    scheme = "https" if certificate else "http"
    environ = {
        "TERRACE_DATA": str(folder),
        "TERRACE_PORT": str(port),
        "TERRACE_LOGS__LEVEL": "warning",
        "TERRACE_MODELS__DISCOVER": "false",
        "TERRACE_MODELS__CONCURRENCY": "20000",
        "TERRACE_MODELS__PROVIDERS__MOCK__KIND": "openai",
        "TERRACE_MODELS__PROVIDERS__MOCK__BASE_URL": f"{scheme}://localhost:{upstream_port}/v1",
        "TERRACE_MODELS__PROVIDERS__MOCK__API_KEY": "sk-upstream",
    }
    if certificate:
        environ["SSL_CERT_FILE"] = str(certificate)
    module = ["-m", "benchmarks.gateway_door"] if door_only else ["-m", "terrace", "serve"]
    name = "door" if door_only else "alone" if alone else "terrace"
    with running(name, [sys.executable, *module], port, environ=environ) as process:
        if not (door_only or alone):
            process.key = key_with_limits(port)
        yield process
