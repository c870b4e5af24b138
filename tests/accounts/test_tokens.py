"""Access tokens: one algorithm, one issuer, one audience, keys of a month, clocks that differ a little."""

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from terrace import settings
from terrace.accounts.secret import Secret, load_secret
from terrace.accounts.tokens import AccessTokens
from terrace.errors import Invalid, Unauthenticated

SECRET = Secret("n0tGuessable-by-anybody-at-all-7Qz")
NOVEMBER = 1_794_000_000.0  # 2026-11-06


class Clock:
    def __init__(self, at: float = NOVEMBER) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(clock: Clock) -> AccessTokens:
    return AccessTokens(SECRET, minutes=15, clock=clock)


def forged(tokens: AccessTokens, **changes: Any) -> str:
    """A token of ours with other claims, signed with the right key."""
    good = tokens.issue("usr_a", "ses_a", "default")
    claims = jwt.decode(good, options={"verify_signature": False}) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    month = jwt.get_unverified_header(good)["kid"]
    return jwt.encode(claims, SECRET.key(f"access token {month}"), "HS256", headers={"kid": month})


def refused(tokens: AccessTokens, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        tokens.verify(token)
    return caught.value.code


def test_a_token_names_the_login_it_was_made_for(tokens: AccessTokens) -> None:
    claims = tokens.verify(tokens.issue("usr_a", "ses_a", "tnt_a"))
    assert (claims.user, claims.session, claims.tenant) == ("usr_a", "ses_a", "tnt_a")
    assert claims.expires == NOVEMBER + 15 * 60


def test_two_tokens_are_never_the_same(tokens: AccessTokens) -> None:
    assert tokens.issue("usr_a", "ses_a", "default") != tokens.issue("usr_a", "ses_a", "default")


def test_it_expires_but_for_a_small_difference_of_clocks(tokens: AccessTokens, clock: Clock) -> None:
    token = tokens.issue("usr_a", "ses_a", "default")
    clock.at += 15 * 60 + 29
    tokens.verify(token)
    clock.at += 2
    assert refused(tokens, token) == "token_expired"


def test_a_clock_that_is_a_little_ahead_is_no_harm(tokens: AccessTokens, clock: Clock) -> None:
    token = tokens.issue("usr_a", "ses_a", "default")
    clock.at -= 29
    tokens.verify(token)
    clock.at -= 2
    assert refused(tokens, token) == "token_invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "elsewhere"},
        {"aud": ["terrace", "elsewhere"]},
        {"iss": "elsewhere"},
        {"nbf": NOVEMBER + 60},
        {"exp": True},
        {"exp": "tomorrow"},
        {"exp": float("inf")},
        {"sid": 7},
        {"sub": None},
        {"sid": None},
        {"tid": None},
        {"exp": None},
        {"iat": None},
        {"jti": None},
        {"iss": None},
        {"aud": None},
    ],
    ids=str,
)
def test_a_signed_token_with_wrong_claims_is_refused(tokens: AccessTokens, changes: dict[str, Any]) -> None:
    assert refused(tokens, forged(tokens, **changes)) == "token_invalid"


def test_the_token_says_nothing_about_its_algorithm(tokens: AccessTokens) -> None:
    """`alg: none`, and the right key with another algorithm."""
    good = tokens.issue("usr_a", "ses_a", "default")
    _, payload, signature = good.split(".")
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "typ": "JWT", "kid": "2026-11"}).encode()).rstrip(b"=")
    assert refused(tokens, f"{header.decode()}.{payload}.") == "token_invalid"
    assert refused(tokens, f"{header.decode()}.{payload}.{signature}") == "token_invalid"
    claims = jwt.decode(good, options={"verify_signature": False})
    other = jwt.encode(claims, SECRET.key("access token 2026-11") * 2, "HS512", headers={"kid": "2026-11"})
    assert refused(tokens, other) == "token_invalid"


def test_another_installations_token_is_refused(tokens: AccessTokens, clock: Clock) -> None:
    elsewhere = AccessTokens(Secret("quite-another-Random-string-42-xyzw"), 15, clock)
    assert refused(tokens, elsewhere.issue("usr_a", "ses_a", "default")) == "token_invalid"


def test_keys_change_by_the_month_and_last_months_is_still_good(clock: Clock) -> None:
    tokens = AccessTokens(SECRET, minutes=60 * 24 * 100, clock=clock)
    token = tokens.issue("usr_a", "ses_a", "default")
    assert jwt.get_unverified_header(token)["kid"] == "2026-11"
    clock.at += 30 * 86_400
    tokens.verify(token)
    assert jwt.get_unverified_header(tokens.issue("usr_a", "ses_a", "default"))["kid"] == "2026-12"
    clock.at += 31 * 86_400
    assert refused(tokens, token) == "token_invalid"


def test_another_server_whose_month_began_seconds_ago(clock: Clock) -> None:
    clock.at = 1_796_083_205.0  # 2026-12-01, five seconds after midnight
    token = AccessTokens(SECRET, 15, clock).issue("usr_a", "ses_a", "default")
    AccessTokens(SECRET, 15, Clock(clock.at - 10)).verify(token)


@pytest.mark.parametrize("kid", [None, 7, "2020-01", "", ["2026-11"], {"a": 1}], ids=str)
def test_only_known_key_ids(tokens: AccessTokens, kid: Any) -> None:
    good = tokens.issue("usr_a", "ses_a", "default")
    header = json.dumps({"alg": "HS256", "kid": kid}).encode()
    encoded = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    assert refused(tokens, ".".join([encoded, *good.split(".")[1:]])) == "token_invalid"


@given(text=st.one_of(st.text(max_size=200), st.from_regex(r"\A[A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9_-]{0,80}){0,3}\Z")))
def test_anything_else_is_refused_and_nothing_breaks(text: str) -> None:
    assert refused(AccessTokens(SECRET, 15), text) == "token_invalid"


@given(at=st.integers(min_value=0), bit=st.integers(0, 5))
def test_no_character_of_it_can_be_changed(at: int, bit: int) -> None:
    tokens = AccessTokens(SECRET, 15)
    token = tokens.issue("usr_a", "ses_a", "default")
    place = at % len(token)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if token[place] == "." or place == len(token) - 1:  # the last one carries padding bits
        return
    changed = alphabet[alphabet.index(token[place]) ^ (1 << bit)]
    assert refused(tokens, token[:place] + changed + token[place + 1 :]) == "token_invalid"


def test_a_huge_token_is_not_even_read(tokens: AccessTokens) -> None:
    assert refused(tokens, "a" * 1_000_000) == "token_invalid"


# -- the secret


@pytest.mark.parametrize(
    "value",
    [
        "9b-short-Kq7",
        "a" * 64,
        "abcabcabcabcabcabcabcabcabcabcabcabc",
        "change-me-" * 5,
        "My-Super-Secret-Key-1234567890-xyz",
    ],
)
def test_a_secret_that_can_be_guessed_stops_the_start(value: str) -> None:
    with pytest.raises(Invalid) as caught:
        Secret(value)
    assert caught.value.code == "weak_secret"
    assert value not in caught.value.message


def test_purposes_have_keys_of_their_own() -> None:
    assert len({SECRET.key("a"), SECRET.key("b"), Secret("quite-another-Random-string-42-xyzw").key("a")}) == 3
    assert SECRET.key("a") == SECRET.key("a")
    assert "Guessable" not in repr(SECRET) + str(SECRET)


def test_one_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    first = load_secret(settings.Accounts(), tmp_path / "data")
    file = tmp_path / "data" / "secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_secret(settings.Accounts(), tmp_path / "data").key("a") == first.key("a")
    assert os.listdir(file.parent) == ["secret"]


def test_a_secret_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    load_secret(settings.Accounts(), tmp_path)
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(Invalid, match="chmod 600"):
        load_secret(settings.Accounts(), tmp_path)


def test_a_file_may_be_named(tmp_path: Path) -> None:
    file = tmp_path / "mounted"
    file.write_text("n0tGuessable-by-anybody-at-all-7Qz\n")
    file.chmod(0o440)
    options = settings.Accounts(secret_file=file)
    assert load_secret(options, tmp_path).key("a") == SECRET.key("a")
    file.chmod(0o444)
    with pytest.raises(Invalid, match="Others can read"):
        load_secret(options, tmp_path)
    with pytest.raises(Invalid, match="cannot be read"):
        load_secret(settings.Accounts(secret_file=tmp_path / "absent"), tmp_path)
    assert os.listdir(tmp_path) == ["mounted"]


def test_the_setting_comes_first(tmp_path: Path) -> None:
    options = settings.Accounts(secret=SecretStr("n0tGuessable-by-anybody-at-all-7Qz"), secret_file=tmp_path / "absent")
    assert load_secret(options, tmp_path).key("a") == SECRET.key("a")
