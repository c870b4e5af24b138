"""What a house in use has: an account, a price, and an API key with five limits. By Terrace's own API."""

import json
import secrets
import urllib.request
from typing import Any

LIMITS = {
    "requests_per_minute": 10_000_000,
    "tokens_per_minute": 100_000_000_000,
    "tokens_per_day": 1_000_000_000_000,
    "money_per_day": 1_000_000,
    "concurrent_requests": 100_000,
}
PRICE = {"input": 0.15, "output": 0.6}  # dollars a million tokens


def _call(url: str, token: str, method: str, body: dict[str, Any]) -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def key_with_limits(port: int) -> str:
    """The first account's key."""
    api = f"http://127.0.0.1:{port}/api"
    person = {"name": "Bench", "email": "bench@example.org", "password": secrets.token_urlsafe(24), "login": True}
    token = _call(f"{api}/users", "", "POST", person)["access_token"]
    made = _call(f"{api}/keys", token, "POST", {"name": "benchmark"})
    _call(f"{api}/prices/mock/mock", token, "PUT", PRICE)
    _call(f"{api}/limits/key:{made['key']['id']}", token, "PUT", LIMITS)
    return str(made["secret"])
