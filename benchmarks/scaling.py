"""Two API processes against one, on PostgreSQL: `python -m benchmarks.scaling [--requests 2000] [--rounds 5]`.

Two installations stand side by side on one private PostgreSQL that keeps what is committed, each with its own database
and its own worker: one has one `terrace serve --role api`, the other has two, whose clients take them in turns. They are
asked the same one after the other, round by round.

A process keeps one core busy at most, so two give 2 x (CPU a request with one / CPU a request with two) times as much
where there are two cores to spare. What is counted is the CPU of the API processes and of PostgreSQL together; what a
worker uses is shown beside it. Prints a table with the budget and ends with 1 if it is missed.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.postgres import Postgres

from benchmarks import gateway_servers as servers
from benchmarks.gateway_accounts import key_with_limits
from benchmarks.gateway_load import closed_loop, request_bytes
from benchmarks.gateway_servers import Process
from benchmarks.jobs import private_postgresql
from benchmarks.start import cpu_seconds, tree

BUDGET = 1.8
CONCURRENCY = 32
KNOWN_SECONDS = 6.0  # until every process knows the key, its price and its limits
SETTLE_SECONDS = 1.0  # for what is booked after the last answer
QUESTION = "How many days of leave does somebody get who joined in March?"


class Cost(NamedTuple):
    """CPU milliseconds a request."""

    api: float
    database: float
    worker: float

    @property
    def counted(self) -> float:
        return self.api + self.database


@dataclass
class Installation:
    """Some API processes and a worker on a database of their own."""

    postgres: Postgres
    processes: list[Process]
    worker: Process
    key: str = ""

    def cpu(self) -> Cost:
        """CPU seconds so far; those of PostgreSQL are everybody's."""
        return Cost(
            sum(each.cpu() for each in self.processes),
            sum(cpu_seconds(each) for each in tree(self.postgres.pid)),
            self.worker.cpu(),
        )

    async def ask(self, request: bytes, requests: int) -> Cost:
        """So many requests, spread evenly over the processes."""
        before, share = self.cpu(), len(self.processes)
        await asyncio.gather(
            *(
                closed_loop(each.port, request, concurrency=CONCURRENCY // share, requests=requests // share)
                for each in self.processes
            )
        )
        await asyncio.sleep(SETTLE_SECONDS)
        after = self.cpu()
        return Cost(*((now - then) / requests * 1000 for then, now in zip(before, after, strict=True)))


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
        made = Installation(postgres, processes, stack.enter_context(_serving("worker", environ)))
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
    """What is asked, and how many times as often as --requests says."""
    messages = [{"role": "user", "content": QUESTION}]
    completion = post("/v1/chat/completions", {"model": "mock/mock", "messages": messages}, key)
    question = post("/api/chat", {"message": QUESTION, "model": "mock/mock", "use_rag": False}, key)
    return {
        "POST /v1/chat/completions": (completion, 2),
        "GET /api/models": (get("/api/models", key), 1),
        "GET /api/conversations": (get("/api/conversations?limit=5", key), 1),
        "POST /api/chat": (question, 0.25),
    }


async def measure(what: str, pair: Sequence[Installation], requests: int, rounds: int) -> tuple[Cost, Cost]:
    """The medians for one process and for two; the first round warms up."""
    costs: tuple[list[Cost], ...] = ([], [])
    for turn in range(rounds + 1):
        for each, seen in zip(pair, costs, strict=True):
            request, times = asked(each.key)[what]
            cost = await each.ask(request, round(requests * times))
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


async def compare(folder: Path, requests: int, rounds: int) -> bool:
    with ExitStack() as stack:
        postgres = stack.enter_context(private_postgresql())
        mock = stack.enter_context(servers.upstream())
        pair = [
            stack.enter_context(installation(postgres, folder / f"of-{count}", mock.port, count)) for count in (1, 2)
        ]
        await asyncio.sleep(KNOWN_SECONDS)
        print("CPU ms a request: API + PostgreSQL (worker)")
        print(f"{'':26}{'one process':>25}{'two processes':>25}{'API':>9}{'both':>9}")
        kept = []
        for what in asked(""):
            one, two = await measure(what, pair, requests, rounds)
            kept.append(show(what, one, two))
        return all(kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(compare(Path(folder), arguments.requests, arguments.rounds)) else 1


if __name__ == "__main__":
    sys.exit(main())
