"""What this server tells Prometheus beside requests and model calls: slots, who waits, how quickly it writes."""

import time
from collections import deque
from collections.abc import Callable

from terrace.telemetry.metrics import Metrics
from terrace.telemetry.series import Counts

WINDOW = 10  # seconds that tokens a second are reckoned over


class Speed:
    """Pieces a second over the last ten; llama.cpp sends one a token."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW + 1)  # (second, pieces)

    def count(self, pieces: int) -> None:
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            pieces += self._seconds.pop()[1]
        self._seconds.append((second, pieces))

    def now(self) -> float:
        """The running second, which is not over, is left out."""
        second = int(self._clock())
        return sum(pieces for at, pieces in self._seconds if second - WINDOW <= at < second) / WINDOW


class Measures:
    def __init__(self, metrics: Metrics) -> None:
        def gauge(name: str, text: str, *labels: str) -> Counts:
            made = Counts(f"terrace_inference_{name}", text, labels, gauge=True)
            metrics.registry.register(made)
            return made

        refused = Counts("terrace_inference_refused_total", "Calls refused because the queue was full or slow")
        metrics.registry.register(refused)
        self.metrics = metrics
        self.speed = Speed()
        self.refused = refused.of()
        slots = gauge("slots", "Slots, by state", "state")
        self._busy, self._free = slots.of("busy"), slots.of("free")
        self._waiting = gauge("waiting", "Calls that wait for a slot").of()
        self._speed = gauge("tokens_per_second", "Tokens written a second, over the last ten").of()

    def text(self, *, busy: int, slots: int, waiting: int) -> bytes:
        self._busy.value, self._free.value, self._waiting.value = busy, slots - busy, waiting
        self._speed.value = round(self.speed.now())
        return self.metrics.text()
