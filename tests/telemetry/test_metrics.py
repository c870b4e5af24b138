"""What Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from terrace.telemetry.calls import Call, Usage
from terrace.telemetry.metrics import MAX_MODELS, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
        if sample.name.startswith("terrace_")
    }


def test_requests_are_counted_and_their_times_fall_into_the_bucket_whose_bound_they_reach() -> None:
    metrics = Metrics()
    for seconds in (0.001, 0.0011, 7.0, 11.0):
        metrics.request("GET", "/x", 200, seconds)
    metrics.request("BREW", "/x", 405, 0.5)
    metrics.open_requests.value += 2
    seen = samples(metrics)
    of_x = ("route", "/x")
    assert seen["terrace_http_requests_total", (("method", "GET"), of_x, ("status", "200"))] == 4
    assert seen["terrace_http_requests_total", (("method", "other"), of_x, ("status", "405"))] == 1
    assert seen["terrace_http_open_requests", ()] == 2
    for bound, count in (("0.001", 1), ("0.0025", 2), ("0.5", 3), ("5.0", 3), ("10.0", 4), ("+Inf", 5)):
        assert seen["terrace_http_request_seconds_bucket", (("le", bound), of_x)] == count
    assert seen["terrace_http_request_seconds_count", (of_x,)] == 5
    assert abs(seen["terrace_http_request_seconds_sum", (of_x,)] - 18.5021) < 1e-9


def test_a_model_call_is_counted_with_its_tokens() -> None:
    metrics = Metrics()
    metrics.record(Call("openai", "small", "chat", "ok", "", 0.3, 0.1, Usage(30, 4), "default"))
    metrics.record(Call("openai", "small", "chat", "error", "upstream_broke", 1.0, None, None, "default"))
    seen = samples(metrics)
    labels = (("model", "small"), ("provider", "openai"))
    assert seen["terrace_model_calls_total", (labels[0], ("outcome", "ok"), labels[1])] == 1
    assert seen["terrace_model_calls_total", (labels[0], ("outcome", "error"), labels[1])] == 1
    assert seen["terrace_model_tokens_total", (("direction", "input"), *labels)] == 30
    assert seen["terrace_model_tokens_total", (("direction", "output"), *labels)] == 4
    assert seen["terrace_model_call_seconds_count", labels] == 2
    assert seen["terrace_model_first_token_seconds_count", labels] == 1


def test_models_that_nobody_lists_do_not_fill_the_registry() -> None:
    metrics = Metrics()
    for number in range(MAX_MODELS + 50):
        metrics.record(Call("openai", f"m{number}", "chat", "ok", "", 0.3, None, None, None))
    seen = samples(metrics)
    calls = {labels: value for (name, labels), value in seen.items() if name == "terrace_model_calls_total"}
    assert len(calls) == MAX_MODELS + 1
    assert calls[("model", "other"), ("outcome", "ok"), ("provider", "openai")] == 50
