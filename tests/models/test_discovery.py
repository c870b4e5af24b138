"""Which providers there are, from settings and environment alone."""

import pytest

from terrace.models.discovery import candidates, ollama_url
from terrace.settings import Models

BOX = {"box": {"kind": "openai", "base_url": "http://box/v1"}}


def found(environ: dict[str, str], **settings: object) -> list[tuple[str, str]]:
    return [(each.name, each.origin) for each in candidates(Models.model_validate(settings), environ)]


def test_a_bare_machine_has_perhaps_an_ollama_and_always_quote() -> None:
    assert found({}) == [("ollama", "local"), ("quote", "builtin")]


def test_keys_come_before_ollama() -> None:
    environ = {"OPENAI_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
    assert found(environ) == [("openai", "key"), ("anthropic", "key"), ("ollama", "local"), ("quote", "builtin")]


def test_a_base_url_without_a_key_is_a_server_of_ones_own() -> None:
    (first, *_) = candidates(Models(), {"OPENAI_BASE_URL": "http://box/v1"})
    assert (first.name, first.settings.base_url) == ("openai", "http://box/v1")


def test_who_configures_a_provider_is_not_given_the_environments_keys() -> None:
    assert found({"OPENAI_API_KEY": "k"}, providers=BOX) == [
        ("box", "configured"),
        ("ollama", "local"),
        ("quote", "builtin"),
    ]


def test_a_configured_ollama_is_the_only_one() -> None:
    assert found({}, providers={"mine": {"kind": "ollama", "base_url": "http://gpu:11434"}}) == [
        ("mine", "configured"),
        ("quote", "builtin"),
    ]


def test_discovery_can_be_turned_off() -> None:
    assert found({"OPENAI_API_KEY": "k"}, discover=False) == [("quote", "builtin")]


def test_an_empty_key_is_none() -> None:
    assert found({"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": ""}) == [("ollama", "local"), ("quote", "builtin")]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:5000", "http://127.0.0.1:5000"),
        (":5000", "http://127.0.0.1:5000"),
        ("gpu", "http://gpu:11434"),
        ("gpu:5000", "http://gpu:5000"),
        ("http://gpu:5000/", "http://gpu:5000"),
        ("https://gpu", "https://gpu:443"),
        ("http://gpu/ollama", "http://gpu:80/ollama"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("[::]", "http://127.0.0.1:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(host: str, url: str) -> None:
    assert ollama_url(Models(), {"OLLAMA_HOST": host}) == url


def test_a_setting_beats_the_environment() -> None:
    assert ollama_url(Models(ollama_url="http://mine:1"), {"OLLAMA_HOST": "gpu"}) == "http://mine:1"
