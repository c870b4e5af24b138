"""Cold start to the first 200, idle memory, and what ingestion does to `/health`.

`python -m benchmarks.start` against the budgets: 2 s of CPU, 150 MB idle, p99 under 50 ms while 100 files go in.
The reference is the bare interpreter importing FastAPI and SQLModel, measured in the same run. Ends with 1 when a
budget is missed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
DOCUMENTS = 100


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and the children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended since it was listed
        return 0.0
    return sum(int(value) for value in fields[11:15]) / TICK


def tree(pid: int) -> list[int]:
    children: set[str] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):  # a child belongs to the thread that started it
        with suppress(FileNotFoundError, ProcessLookupError):
            children.update(task.read_text().split())
    return [pid, *(each for child in children for each in tree(int(child)))]


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants: shared pages count once."""
    return sum(proportional_kb(each) for each in tree(pid)) / 1000


def proportional_kb(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
        return 0
    return next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Server:
    """`terrace serve` on a free port and an empty folder."""

    def __init__(self, folder: str) -> None:
        environment = {
            **os.environ, "TERRACE_DATA": folder, "TERRACE_PORT": "0", "TERRACE_MODELS__DISCOVER": "false",
        }  # fmt: skip
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "terrace", "serve"], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.url = line.split(" at ")[1].split()[0]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            data: bytes = response.read()
        return data

    def post(self, path: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(self.url + path, body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=30) as response:
            data: bytes = response.read()
        return data

    def upload(self, name: str, text: str) -> None:
        body = (
            f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n{text}\r\n--cut--\r\n'
        ).encode()
        self.post("/api/documents/upload", body, "multipart/form-data; boundary=cut")

    def search(self) -> None:
        self.post(
            "/api/search", json.dumps({"query": "how deep is the water at the quay"}).encode(), "application/json"
        )

    def working(self) -> bool:
        jobs = json.loads(self.get("/api/status"))["jobs"]
        return bool(jobs["queued"] or jobs["running"])

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def reference() -> float:
    before = os.times()
    subprocess.run([sys.executable, "-c", "import fastapi, sqlmodel"], check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def text(number: int) -> str:
    """About 20 passages that differ from file to file."""
    return "\n\n".join(
        f"Section {part} of report {number}. Gauge {number * 37 + part} read {part * 1.7:.1f} metres at the quay "
        f"on day {number + part}. "
        + f"The keeper noted wind from quarter {part % 8} and a swell of {number % 5} feet. "
        * 9
        for part in range(20)
    )


def main() -> None:
    missed = False

    def show(what: str, value: float, budget: float | None = None, digits: int = 0) -> None:
        nonlocal missed
        over = budget is not None and value > budget
        missed |= over
        bound = "" if budget is None else f"<= {budget:g}"
        print(f"{what:48} {value:>10.{digits}f} {bound:>8}{'   MISSED' if over else ''}", flush=True)

    print(f"{'what':48} {'measured':>10} {'budget':>8}")
    with tempfile.TemporaryDirectory() as folder:
        show("imports alone (reference), CPU s", reference(), digits=2)
        server = Server(folder)
        try:
            server.get("/health")
            show("start to first 200, CPU s", cpu_seconds(server.process.pid), 2, digits=2)
            show("start to first 200, wall s", time.perf_counter() - server.begun, digits=2)
            time.sleep(1)
            show("idle memory, MB", memory_mb(server.process.pid), 150)
            quiet = [_timed(server) for _ in range(200)]
            show("/health p99 idle, ms", percentile(quiet, 0.99), digits=1)
            for number in range(DOCUMENTS):
                server.upload(f"report-{number}.txt", text(number))
            busy, peak, begun = [], 0.0, time.perf_counter()
            while server.working():
                busy += [_timed(server) for _ in range(20)]
                peak = max(peak, memory_mb(server.process.pid))
                time.sleep(0.05)
            show(f"{DOCUMENTS} documents ingested, s", time.perf_counter() - begun)
            show(f"/health p99 meanwhile, ms ({len(busy)} calls)", percentile(busy, 0.99), 50, digits=1)
            show("peak memory meanwhile, MB", peak, 400)
            server.search()
            time.sleep(65)  # parsing processes leave after a minute without work
            show("idle a minute later, model loaded, MB", memory_mb(server.process.pid), 300)
        finally:
            server.stop()
    sys.exit(missed)


def _timed(server: Server) -> float:
    begun = time.perf_counter()
    server.get("/health")
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    main()
