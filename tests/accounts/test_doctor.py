"""What the doctor says of settings that let in too much."""

from pathlib import Path

import pytest

from terrace.accounts.doctor import examine
from terrace.settings import Settings


def codes(path: Path, *, owned: bool = True, **given: object) -> set[str]:
    path.chmod(0o700)
    settings = Settings(data=path, **given)  # type: ignore[arg-type]
    return {each.code for each in examine(settings, accounts=owned)}


def test_what_comes_by_itself_is_safe(tmp_path: Path) -> None:
    assert codes(tmp_path, owned=False) == set()


PUBLIC = {"host": "0.0.0.0", "web": {"public_url": "https://ai.example.org"}}


def test_a_server_behind_tls_with_an_owner_is_safe(tmp_path: Path) -> None:
    assert codes(tmp_path, **PUBLIC) == set()


@pytest.mark.parametrize(
    ("code", "given", "owned"),
    [
        ("nobody_logs_in", {"insecure": True}, False),
        ("no_owner", PUBLIC, False),
        ("open_registration", {**PUBLIC, "accounts": {"registration": "open"}}, True),
        ("plain_http", {"host": "192.168.1.5"}, True),
        ("any_origin", {"web": {"cors_origins": ["*"]}}, True),
        ("any_proxy", {"web": {"trusted_proxies": ["0.0.0.0/0"]}}, True),
        (
            "key_in_the_clear",
            {"models": {"providers": {"x": {"kind": "openai", "base_url": "http://10.1.1.1/v1", "api_key": "k"}}}},
            True,
        ),
        ("oidc_in_the_clear", {"accounts": {"oidc": {"x": {"issuer": "http://sso.lan", "client_id": "t"}}}}, True),
        ("mail_in_the_clear", {**PUBLIC, "accounts": {"smtp": {"host": "mail.example.org", "security": "none"}}}, True),
        ("mail_without_links", {"accounts": {"smtp": {"host": "mail.example.org"}}}, True),
    ],
)
def test_each_is_named(tmp_path: Path, code: str, given: dict[str, object], owned: bool) -> None:
    assert codes(tmp_path, owned=owned, **given) == {code}


def test_a_folder_others_can_read_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert {each.code for each in examine(Settings(data=tmp_path), accounts=True)} == {"readable_by_others"}
