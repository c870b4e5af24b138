"""Two API processes against one, on PostgreSQL: `python -m benchmarks.scaling [--seconds 1.2] [--rounds 8]`.

Two installations stand side by side on one private PostgreSQL that keeps what is committed, each with its own database
and its own worker: one has one `terrace serve --role api`, the other has two. Each process is asked equally often, so
that two are asked twice as much; the installations are asked one after the other, round by round. (Half as much for
each of two would say something else: what a process gathers for some milliseconds costs less the more there is of it.)

A process keeps one core busy at most, so two give 2 x (CPU a request with one / CPU a request with two) times as much
where there are two cores to spare. What is counted is the CPU of the API processes and of PostgreSQL together, less
what they use while nobody asks; what a worker uses is shown beside it. Prints a table with the budget and ends with 1
if it is missed. It takes some three minutes. How often is asked leaves half of two cores free: where requests have to
wait for a core, nobody can tell what one costs. Many short rounds say more than a few long ones: a machine's neighbours
come and go by the second.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.postgres import Postgres

from benchmarks import gateway_servers as servers
from benchmarks.gateway_accounts import key_with_limits
from benchmarks.gateway_load import open_loop, request_bytes
from benchmarks.gateway_servers import Process
from benchmarks.jobs import private_postgresql
from benchmarks.start import tree

BUDGET = 1.8
KNOWN_SECONDS = 6.0  # until every process knows the key, its price and its limits
WARM_SECONDS = 1.0  # asked beforehand, and not counted
SETTLE_SECONDS = 1.0  # for what is booked after the last answer
LATE_SECONDS = 30.0  # after which an answer will not come
IDLE_SECONDS = 5.0  # watched, to tell what requests cost from what a process costs that nobody asks
QUESTION = "How many days of leave does somebody get who joined in March?"


class Cost(NamedTuple):
    """CPU: seconds so far, or milliseconds a request."""

    api: float
    database: float
    worker: float

    @property
    def counted(self) -> float:
        return self.api + self.database

    def since(self, before: "Cost") -> "Cost":
        return Cost(*(now - then for then, now in zip(before, self, strict=True)))

    def times(self, factor: float) -> "Cost":
        return Cost(*(each * factor for each in self))


NOTHING = Cost(0, 0, 0)


@dataclass
class Family:
    """A process and all it starts. Told to the nanosecond: the usual count is of hundredths of a second, and PostgreSQL
    is many processes. Who ended counts as far as we saw."""

    pid: int
    _threads: dict[str, int] = field(default_factory=dict)

    def cpu(self) -> float:
        """Seconds so far."""
        for pid in tree(self.pid):
            for told in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(FileNotFoundError, ProcessLookupError):
                    self._threads[told.parent.name] = int(told.read_text().split()[0])
        return sum(self._threads.values()) / 1e9


@dataclass
class Installation:
    """Some API processes and a worker on a database of their own."""

    database: Family  # everybody's
    processes: list[Process]
    worker: Family
    key: str = ""
    idle: Cost = NOTHING  # of a second in which nobody asks

    def __post_init__(self) -> None:
        self._families = [Family(each.pid) for each in self.processes]

    def cpu(self) -> Cost:
        """So far; PostgreSQL's is everybody's."""
        return Cost(sum(each.cpu() for each in self._families), self.database.cpu(), self.worker.cpu())

    async def ask(self, request: bytes, rate: float, seconds: float) -> Cost:
        """Each process so many times a second."""
        before, began = self.cpu(), time.monotonic()
        try:
            async with asyncio.timeout(seconds + LATE_SECONDS):
                took = await asyncio.gather(
                    *(open_loop(each.port, request, rate=rate, seconds=seconds) for each in self.processes)
                )
        except TimeoutError:
            raise SystemExit(f"{LATE_SECONDS:.0f} s after the last request some are not answered") from None
        await asyncio.sleep(SETTLE_SECONDS)
        used = self.cpu().since(before).since(self.idle.times(time.monotonic() - began))
        return used.times(1000 / sum(map(len, took)))


async def watch_idle(pair: Sequence[Installation]) -> None:
    before = [each.cpu() for each in pair]
    await asyncio.sleep(IDLE_SECONDS)
    for each, then in zip(pair, before, strict=True):
        each.idle = each.cpu().since(then).times(1 / IDLE_SECONDS)


@contextmanager
def installation(postgres: Postgres, data: Path, upstream_port: int, count: int) -> Iterator[Installation]:
    """`count` API processes with one provider, an account, and a key with five limits."""
    environ = {
        "TERRACE_DATA": str(data),
        "TERRACE_STORAGE__URL": postgres.create(),
        "TERRACE_LOGS__LEVEL": "warning",
        "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none",
        "TERRACE_MODELS__DISCOVER": "false",
        "TERRACE_MODELS__CONCURRENCY": "20000",
        "TERRACE_MODELS__PROVIDERS__MOCK__KIND": "openai",
        "TERRACE_MODELS__PROVIDERS__MOCK__BASE_URL": f"http://localhost:{upstream_port}/v1",
        "TERRACE_MODELS__PROVIDERS__MOCK__API_KEY": "sk-upstream",
    }
    with ExitStack() as stack:
        processes = [stack.enter_context(_serving("api", environ)) for _ in range(count)]
        worker = stack.enter_context(_serving("worker", environ))
        made = Installation(Family(postgres.pid), processes, Family(worker.pid))
        made.key = key_with_limits(processes[0].port)
        yield made


def _serving(role: str, environ: dict[str, str]) -> AbstractContextManager[Process]:
    port = servers.free_port()
    command = [sys.executable, "-m", "terrace", "serve", "--role", role]
    return servers.running(role, command, port, environ={**environ, "TERRACE_PORT": str(port)})


def get(path: str, key: str) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\naccept: application/json\r\n\r\n"
    return head.encode()


def post(path: str, body: dict[str, object], key: str) -> bytes:
    return request_bytes(path, json.dumps(body).encode(), key)


def asked(key: str) -> dict[str, tuple[bytes, float]]:
    """What is asked, and how often a second."""
    messages = [{"role": "user", "content": QUESTION}]
    completion = post("/v1/chat/completions", {"model": "mock/mock", "messages": messages}, key)
    question = post("/api/chat", {"message": QUESTION, "model": "mock/mock", "use_rag": False}, key)
    return {
        "POST /v1/chat/completions": (completion, 250),
        "GET /api/models": (get("/api/models", key), 100),
        "GET /api/conversations": (get("/api/conversations?limit=5", key), 60),
        "POST /api/chat": (question, 4),
    }


async def measure(what: str, pair: Sequence[Installation], seconds: float, rounds: int) -> tuple[Cost, Cost]:
    """The medians for one process and for two."""
    costs: tuple[list[Cost], ...] = ([], [])
    for turn in range(rounds + 1):
        for each, seen in zip(pair, costs, strict=True):
            request, rate = asked(each.key)[what]
            cost = await each.ask(request, rate, seconds if turn else WARM_SECONDS)
            if turn:
                seen.append(cost)
    one, two = (Cost(*map(statistics.median, zip(*seen, strict=True))) for seen in costs)
    return one, two


def show(what: str, one: Cost, two: Cost) -> bool:
    """A line of the table; whether the budget is kept."""
    times = 2 * one.counted / two.counted
    alone = 2 * one.api / two.api
    fine = times >= BUDGET
    figures = "".join(f"{cost.api:9.3f} + {cost.database:5.3f} ({cost.worker:5.2f})" for cost in (one, two))
    print(f"{what:26}{figures}{alone:8.2f}x{times:8.2f}x  >= {BUDGET}x  {'ok' if fine else 'MISSED'}", flush=True)
    return fine


async def compare(folder: Path, seconds: float, rounds: int) -> bool:
    with ExitStack() as stack:
        postgres = stack.enter_context(private_postgresql())
        mock = stack.enter_context(servers.upstream())
        pair = [
            stack.enter_context(installation(postgres, folder / f"of-{count}", mock.port, count)) for count in (1, 2)
        ]
        await asyncio.sleep(KNOWN_SECONDS)
        await watch_idle(pair)
        print("CPU ms a request: API + PostgreSQL (worker)")
        print(f"{'':26}{'one process':>25}{'two processes':>25}{'API':>9}{'both':>9}")
        kept = []
        for what in asked(""):
            one, two = await measure(what, pair, seconds, rounds)
            kept.append(show(what, one, two))
        return all(kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(compare(Path(folder), arguments.seconds, arguments.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
