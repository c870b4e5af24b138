"""Prometheus metrics: rate, errors and duration of every request and model call, and what waits."""

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SLOW = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Tokens(Protocol):
    @property
    def input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...


class ModelCall(Protocol):
    """A finished model call, as `models.base.Call` tells it; times in seconds."""

    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def duration(self) -> float: ...
    @property
    def first_token(self) -> float | None: ...
    @property
    def usage(self) -> Tokens | None: ...


class Metrics:
    """One registry a process. Labels are bounded: route templates, never paths; configured models, never input."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"terrace_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"terrace_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"terrace_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("http_requests_total", "Requests answered", "method", "route", "status")
        self.request_seconds = histogram("http_request_seconds", "Time to the end of the answer", QUICK, "route")
        self.open_requests = gauge("http_open_requests", "Requests being answered, streams included")
        self.model_calls = counter("model_calls_total", "Model calls ended", "provider", "model", "outcome")
        self.model_tokens = counter("model_tokens_total", "Tokens, by direction", "provider", "model", "direction")
        self.model_seconds = histogram("model_call_seconds", "Time of a model call", SLOW, "provider", "model")
        self.first_token_seconds = histogram(
            "model_first_token_seconds", "Time to the first token", SLOW, "provider", "model"
        )
        self.searches = histogram("search_seconds", "Time of a search, its embedding included", QUICK, "mode")
        self.search_score = histogram(
            "search_top_score", "Fused score of the best hit", tuple(each / 10 for each in range(1, 11))
        )
        self.jobs = gauge("jobs", "Jobs that are not over, and dead letters", "state")
        self.documents = gauge("documents", "Documents, by state", "state")
        self.chunks = gauge("chunks", "Chunks in the index")
        self.vectors = gauge("vectors", "Vectors in the index")

    def set_all(self, gauge: Gauge, values: Mapping[str, int]) -> None:
        """Replace every labelled value of a gauge, so that what went away does not linger."""
        gauge.clear()
        for label, value in values.items():
            gauge.labels(label).set(value)

    def record(self, call: ModelCall) -> None:
        """Count a model call; some five microseconds."""
        self.model_calls.labels(call.provider, call.model, call.outcome).inc()
        self.model_seconds.labels(call.provider, call.model).observe(call.duration)
        if call.first_token is not None:
            self.first_token_seconds.labels(call.provider, call.model).observe(call.first_token)
        if call.usage is not None:
            self.model_tokens.labels(call.provider, call.model, "input").inc(call.usage.input_tokens)
            self.model_tokens.labels(call.provider, call.model, "output").inc(call.usage.output_tokens)

    def text(self) -> bytes:
        return generate_latest(self.registry)
