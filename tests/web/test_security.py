"""Local mode: what a foreign web page could send is refused, what this machine sends passes."""

import pytest

from terrace.web.security import Guard, hostname, is_loopback

GUARD = Guard(["terrace.lan"], ["https://intranet.example"])


def refusal(method: str = "GET", **headers: str) -> str | None:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    error = GUARD.check(method, {b"host": b"localhost:8000", **named})
    return error.code if error else None


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "[::1]:9", "LOCALHOST", "terrace.lan:1"])
def test_own_hosts_pass(host: str) -> None:
    assert refusal(host=host) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8000", "[::2]", "a@localhost"]
)
def test_rebound_hosts_are_refused(host: str) -> None:
    assert refusal(host=host) == "host_not_allowed"


def test_a_request_without_host_is_refused() -> None:
    assert refusal(host="") == "host_missing"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:3000", "http://localhost:8000.evil.example", "file://"]
)
def test_foreign_origins_are_refused(origin: str) -> None:
    assert refusal("POST", origin=origin) == "origin_not_allowed"


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://localhost:8000", "https://intranet.example"])
def test_own_and_configured_origins_pass(origin: str) -> None:
    assert refusal("POST", origin=origin, sec_fetch_site="same-origin") is None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_pictures_and_scripts_of_other_sites_are_refused(site: str) -> None:
    assert refusal(sec_fetch_site=site, sec_fetch_mode="no-cors") == "cross_site"


def test_following_a_link_from_another_site_is_a_navigation_and_passes() -> None:
    assert refusal(sec_fetch_site="cross-site", sec_fetch_mode="navigate") is None
    assert refusal("POST", sec_fetch_site="cross-site", sec_fetch_mode="navigate") == "cross_site"


def test_where_people_log_in_any_host_is_taken_but_no_foreign_origin() -> None:
    guard = Guard(open=lambda: False)
    assert guard.check("GET", {b"host": b"anything"}) is None
    foreign = guard.check("POST", {b"host": b"anything", b"origin": b"https://evil.example"})
    assert foreign is not None


def test_loopback_addresses() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "192.168.0.1", "example.org", "::"))
    assert hostname("[::1]:80") == "[::1]"
