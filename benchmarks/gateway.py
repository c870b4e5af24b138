"""The gateway against nginx: `python -m benchmarks.gateway [--full] [--tls] [--peers] [--door]`.

Terrace runs with everything on: a key is checked, five limits are held, usage is booked, metrics are kept.

Every figure of Terrace is read beside nginx's in the same run, in turns, against the same mock upstream. CPU is what
the kernel says the server's processes used, which holds on a busy machine; wall-clock times do not. Prints a table with
the budget of each row and ends with 1 if one is missed.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import gateway_servers as servers
from benchmarks.gateway_load import closed_loop, open_loop, open_streams, request_bytes
from benchmarks.gateway_servers import Process

CONCURRENCY = 64
ROUNDS = 5
RATE = "requests a second"
MESSAGES = [
    {"role": "system", "content": "You answer from the handbook, briefly."},
    {"role": "user", "content": "How many days of leave does somebody get who joined in March? " * 4},
]


@dataclass(frozen=True)
class Row:
    what: str
    unit: str
    reference: float
    ours: float
    budget: str
    fine: bool

    def __str__(self) -> str:
        ratio = self.ours / self.reference if self.reference else float("nan")
        verdict = "ok" if self.fine else "MISSED"
        return (
            f"{self.what:44} {self.unit:>8} {self.reference:>11,.3f} {self.ours:>11,.3f} {ratio:>7.2f}x"
            f"  {self.budget:24} {verdict}"
        )


HEADER = f"{'':44} {'unit':>8} {'nginx':>11} {'terrace':>11} {'ratio':>8}  {'budget':24}"


def chat(server: Process, **fields: object) -> bytes:
    model = "mock" if server.name in ("nginx", "upstream") else "mock/mock"
    body = json.dumps({"model": model, "messages": MESSAGES, **fields}).encode()
    return request_bytes("/v1/chat/completions", body, server.key)


@dataclass
class Bench:
    """`reference` and `ours` are measured in turns."""

    reference: Process
    ours: Process
    direct: Process  # the upstream itself, for the latency that a gateway adds
    rounds: int = ROUNDS
    alone: Process | None = None  # ours without accounts, for what they cost

    @property
    def pair(self) -> tuple[Process, Process]:
        return self.reference, self.ours

    async def throughput(self, requests: int) -> tuple[dict[str, float], dict[str, float]]:
        """CPU milliseconds a request and requests a second, the median of the rounds."""
        turns = [*self.pair, *([self.alone] if self.alone else ())]
        cpu: dict[str, list[float]] = {server.name: [] for server in turns}
        rate: dict[str, list[float]] = {server.name: [] for server in turns}
        for turn in range(self.rounds + 1):
            for server in turns:
                before = server.cpu()
                took = await closed_loop(server.port, chat(server), concurrency=CONCURRENCY, requests=requests)
                if turn:  # the first warms up
                    cpu[server.name].append((server.cpu() - before) / requests * 1000)
                    rate[server.name].append(requests / took)
        return _medians(cpu), _medians(rate)

    async def added_latency(self, seconds: float) -> dict[str, tuple[float, float]]:
        """Milliseconds added at 100 requests a second: p50 and p99 above the upstream's own."""
        seen: dict[str, list[float]] = {}
        for _ in range(3):
            for server in (self.direct, *self.pair):
                seen.setdefault(server.name, []).extend(
                    await open_loop(server.port, chat(server), rate=100, seconds=seconds)
                )
        base50, base99 = _p(seen[self.direct.name], 50), _p(seen[self.direct.name], 99)
        return {
            server.name: (
                (_p(seen[server.name], 50) - base50) * 1000,
                (_p(seen[server.name], 99) - base99) * 1000,
            )
            for server in self.pair
        }

    async def streams(self, server: Process, count: int, seconds: float, interval: float = 0.1) -> "StreamFigures":
        """`count` streams opened over some seconds, then watched for `seconds`."""
        opening = max(2.0, count / 400)
        tokens = int((opening + seconds + 10) / interval)
        request = chat(server, stream=True, max_tokens=tokens, interval=interval)
        memory = server.memory()
        seen, transports = await open_streams(server.port, request, count, rate=count / opening)
        await _until(lambda: seen.opened + seen.broken >= count, 30)
        cpu, before = server.cpu(), seen.tokens
        await asyncio.sleep(seconds)
        figures = StreamFigures(
            cpu=(server.cpu() - cpu) / max(1, seen.tokens - before) * 1e6,
            rate=(seen.tokens - before) / seconds,
            ttft=_p(seen.first, 95) * 1000 if seen.first else float("inf"),
            memory=(server.memory() - memory) / count / 1000,
            opened=seen.opened,
            lost=seen.broken,
        )
        for transport in transports:
            transport.abort()
        await asyncio.sleep(2)
        return figures


@dataclass(frozen=True)
class StreamFigures:
    cpu: float  # microseconds a token
    rate: float  # tokens a second
    ttft: float  # milliseconds, p95
    memory: float  # kB a stream
    opened: int
    lost: int


def _medians(figures: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in figures.items()}


def _p(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def _until(done: Callable[[], bool], patience: float) -> None:
    until = asyncio.get_running_loop().time() + patience
    while not done() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def plain_rows(bench: Bench, requests: int) -> list[Row]:
    cpu, rate = await bench.throughput(requests)
    r, o = bench.reference.name, bench.ours.name
    latency = await bench.added_latency(5)
    without = (
        [Row("  without accounts and limits", "ms", cpu[r], cpu[bench.alone.name], "", True)] if bench.alone else []
    )
    return [
        Row(f"CPU a request, {CONCURRENCY} concurrent", "ms", cpu[r], cpu[o], "<= 5x nginx", cpu[o] <= 5 * cpu[r]),
        *without,
        Row(RATE, "1/s", rate[r], rate[o], ">= 0.2x nginx", rate[o] >= 0.2 * rate[r]),
        Row("added latency p50, 100 requests/s", "ms", latency[r][0], latency[o][0], "<= 1", latency[o][0] <= 1),
        Row("added latency p99, 100 requests/s", "ms", latency[r][1], latency[o][1], "<= 3", latency[o][1] <= 3),
    ]


async def stream_rows(bench: Bench, count: int, ttft_budget: float) -> list[Row]:
    reference = await bench.streams(bench.reference, count, 8)
    ours = await bench.streams(bench.ours, count, 8)
    label = f"{count:,} streams at 10 tok/s"
    return [
        Row(f"CPU a token, {label}", "us", reference.cpu, ours.cpu, "<= 3x nginx", ours.cpu <= 3 * reference.cpu),
        Row("  tokens a second", "1/s", reference.rate, ours.rate, "all", ours.rate >= 0.97 * count * 10),
        Row("  first token p95", "ms", reference.ttft, ours.ttft, f"<= {ttft_budget:g}", ours.ttft <= ttft_budget),
        Row("  memory a stream", "kB", reference.memory, ours.memory, "<= 25", ours.memory <= 25),
        Row("  streams lost", "", reference.lost, ours.lost, "0", ours.lost == 0),
    ]


async def crowd_rows(bench: Bench, count: int = 9_500) -> list[Row]:
    """As many streams as one worker should hold, slow ones."""
    reference = await bench.streams(bench.reference, count, 10, interval=5.0)
    ours = await bench.streams(bench.ours, count, 10, interval=5.0)
    return [
        Row(f"{count:,} open streams: lost", "", reference.lost, ours.lost, "0",
            ours.lost == 0 and ours.opened == count),
        Row("  memory a stream", "kB", reference.memory, ours.memory, "<= 25", ours.memory <= 25),
    ]  # fmt: skip


async def tls_rows(bench: Bench, plain_reference: float) -> list[Row]:
    cpu, _ = await bench.throughput(5_000)
    ours = cpu[bench.ours.name]
    return [
        Row("CPU a request, TLS upstream (nginx: plain)", "ms", plain_reference, ours, "<= 12x nginx",
            ours <= 12 * plain_reference),
        Row("CPU a request, TLS upstream (nginx: TLS)", "ms", cpu[bench.reference.name], ours, "", True),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="3,000 streams and 9,500 open ones too")
    parser.add_argument("--tls", action="store_true", help="a TLS upstream too")
    parser.add_argument("--peers", action="store_true", help="LiteLLM too, installed into its own environment")
    parser.add_argument("--door", action="store_true", help="the /v1 door alone instead of `terrace serve`")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--no-streams", action="store_true")
    arguments = parser.parse_args()
    import resource

    import uvloop

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    rows = uvloop.run(_run(arguments))
    return 0 if all(row.fine for row in rows) else 1


async def _run(arguments: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []

    def show(more: list[Row]) -> None:
        rows.extend(more)
        print("\n".join(map(str, more)), flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        mock = stack.enter_context(servers.upstream())
        reference = stack.enter_context(servers.nginx(folder / "nginx", mock.port))
        ours = stack.enter_context(servers.terrace(folder / "data", mock.port, door_only=arguments.door))
        bench = Bench(reference, ours, mock)
        if not arguments.door:
            bench.alone = stack.enter_context(servers.terrace(folder / "alone", mock.port, alone=True))
        print(HEADER)
        show(await plain_rows(bench, arguments.requests))
        if not arguments.no_streams:
            show(await stream_rows(bench, 1_000, 20))
        if arguments.full:
            show(await stream_rows(bench, 3_000, 500))
            show(await crowd_rows(bench))
        if arguments.tls:
            from benchmarks.gateway_tls import certificate

            made = certificate(folder)
            mock_tls = stack.enter_context(servers.upstream(made))
            nginx_tls = stack.enter_context(servers.nginx(folder / "nginx-tls", mock_tls.port, tls=True))
            ours_tls = stack.enter_context(
                servers.terrace(folder / "data-tls", mock_tls.port, certificate=made, door_only=arguments.door)
            )
            show(await tls_rows(Bench(nginx_tls, ours_tls, mock_tls, rounds=3), rows[0].reference))
        if arguments.peers:
            from benchmarks.gateway_peers import litellm_rows

            rate = next(row.ours for row in rows if row.what == RATE)
            show(await litellm_rows(stack, folder, mock, rows[0].ours, rate))
    return rows


if __name__ == "__main__":
    sys.exit(main())
