"""Prometheus metrics: rate, errors and duration of every request and model call, and what waits."""

from collections.abc import Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from terrace.telemetry.series import Count, Counts, Spread, Spreads

CONTENT_TYPE = CONTENT_TYPE_LATEST

MAX_MODELS = 500  # a client may name models that nobody lists
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
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

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"terrace_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"terrace_{name}", text, labels, buckets=buckets, registry=self.registry)

        def counts(name: str, text: str, *labels: str, gauge: bool = False) -> Counts:
            made = Counts(f"terrace_{name}", text, labels, gauge=gauge)
            self.registry.register(made)
            return made

        def spreads(name: str, text: str, bounds: tuple[float, ...], *labels: str) -> Spreads:
            made = Spreads(f"terrace_{name}", text, bounds, labels)
            self.registry.register(made)
            return made

        self._of_request: dict[tuple[str, str, int], tuple[Count, Spread]] = {}
        self._of_model: dict[tuple[str, str], _ModelSeries] = {}
        self.requests = counts("http_requests_total", "Requests answered", "method", "route", "status")
        self.request_seconds = spreads("http_request_seconds", "Time to the end of the answer", QUICK, "route")
        self.open_requests = counts("http_open_requests", "Requests being answered, streams included", gauge=True).of()
        self.model_calls = counts("model_calls_total", "Model calls ended", "provider", "model", "outcome")
        self.model_tokens = counts("model_tokens_total", "Tokens, by direction", "provider", "model", "direction")
        self.model_seconds = spreads("model_call_seconds", "Time of a model call", SLOW, "provider", "model")
        self.first_token_seconds = spreads(
            "model_first_token_seconds", "Time to the first token", SLOW, "provider", "model"
        )
        self.cache_hits = counts("cache_hits_total", "Answers given from the cache", "kind")
        self.cache_misses = counts("cache_misses_total", "Answers the cache did not have, where one was asked for").of()
        self.searches = histogram("search_seconds", "Time of a search, its embedding included", QUICK, "mode")
        self.search_score = histogram(
            "search_top_score", "Fused score of the best hit", tuple(each / 10 for each in range(1, 11))
        )
        self.jobs = gauge("jobs", "Jobs that are not over, and dead letters", "state")
        self.documents = gauge("documents", "Documents, by state", "state")
        self.chunks = gauge("chunks", "Chunks in the index")
        self.vectors = gauge("vectors", "Vectors in the index")
        self.corpus_findings = gauge("corpus_findings", "What the latest checks of the corpora found", "kind")
        self.redis_up = gauge("redis_up", "1 while Redis is reached, by what goes through it", "use")

    def set_all(self, gauge: Gauge, values: Mapping[str, int]) -> None:
        """Replace every labelled value of a gauge, so that what went away does not linger."""
        gauge.clear()
        for label, value in values.items():
            gauge.labels(label).set(value)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. Series are looked up once."""
        key = (method if method in METHODS else "other", route, status)
        if (series := self._of_request.get(key)) is None:
            series = self.requests.of(key[0], route, str(status)), self.request_seconds.of(route)
            self._of_request[key] = series
        series[0].value += 1
        series[1].observe(seconds)

    def cached(self, kind: str) -> None:
        """Count a look into the answer cache: `exact`, `semantic`, or `miss`."""
        if kind == "miss":
            self.cache_misses.value += 1
        else:
            self.cache_hits.of(kind).value += 1

    def record(self, call: ModelCall) -> None:
        """Count a model call."""
        key = (call.provider, call.model)
        if (series := self._of_model.get(key)) is None:
            if len(self._of_model) >= MAX_MODELS:
                key = (call.provider, "other")
            series = self._of_model[key] = _ModelSeries(self, *key)
        series.outcome(call.outcome).value += 1
        series.seconds.observe(call.duration)
        if call.first_token is not None:
            series.first_token_seconds.observe(call.first_token)
        if call.usage is not None:
            series.input_tokens.value += call.usage.input_tokens
            series.output_tokens.value += call.usage.output_tokens

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _ModelSeries:
    """One model's series, looked up once."""

    def __init__(self, metrics: Metrics, provider: str, model: str) -> None:
        self._calls = metrics.model_calls
        self._labels = provider, model
        self._outcomes: dict[str, Count] = {}
        self.seconds = metrics.model_seconds.of(provider, model)
        self.first_token_seconds = metrics.first_token_seconds.of(provider, model)
        self.input_tokens = metrics.model_tokens.of(provider, model, "input")
        self.output_tokens = metrics.model_tokens.of(provider, model, "output")

    def outcome(self, outcome: str) -> Count:
        if outcome not in self._outcomes:
            self._outcomes[outcome] = self._calls.of(*self._labels, outcome)
        return self._outcomes[outcome]
