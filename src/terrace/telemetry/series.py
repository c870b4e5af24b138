"""Counters and histograms for what happens at every request: a plain addition each, read by Prometheus when it asks.

The client library's own take a lock and several calls each, ten times as much. These belong to the event loop's thread:
nobody else may count.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class Count:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Spread:
    """One series of a histogram."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: beyond every bound
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counts(Collector):
    """A counter with labels, or a gauge without."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), *, gauge: bool = False) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._kind = GaugeMetricFamily if gauge else CounterMetricFamily
        self._series: dict[tuple[str, ...], Count] = {}

    def of(self, *labels: str) -> Count:
        """The series of these labels; keep it, looking it up costs more than counting."""
        return self._series.setdefault(labels, Count())

    def collect(self) -> Iterable[Metric]:
        family = self._kind(self._name, self._text, labels=self._labels)
        for labels, series in list(self._series.items()):
            family.add_metric(labels, series.value)
        return (family,)


class Spreads(Collector):
    """A histogram with labels."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str]) -> None:
        self._name = name
        self._text = text
        self._bounds = bounds
        self._labels = labels
        self._series: dict[tuple[str, ...], Spread] = {}

    def of(self, *labels: str) -> Spread:
        return self._series.setdefault(labels, Spread(self._bounds))

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, series in list(self._series.items()):
            family.add_metric(labels, self._buckets(series), series.total)
        return (family,)

    def _buckets(self, series: Spread) -> list[tuple[str, float]]:
        """As Prometheus wants them: each holds all below it."""
        below = 0
        buckets = []
        for bound, count in zip((*map(float, self._bounds), float("inf")), series.counts, strict=True):
            below += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), float(below)))
        return buckets
