"""Logging in by OpenID providers: a real one in a process of its own, and one that forges whatever it can."""

import base64
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import OctKey, RSAKey
from pydantic import SecretStr
from sqlmodel import select
from tests.accounts.forger import Forger, forger, rsa_key
from tests.accounts.identity import SECRET, Clock, add_user, caller_of, terminal

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.base import Tokens
from terrace.accounts.keys import Keys
from terrace.accounts.mail import Mail
from terrace.accounts.oidc import PATIENCE, OIDCLogin
from terrace.accounts.passwords import Passwords
from terrace.accounts.people import People
from terrace.accounts.sessions import Sessions
from terrace.accounts.tables import IdentityRow, UserRow
from terrace.accounts.throttle import Throttle
from terrace.errors import Invalid, Missing, TerraceError, Unavailable
from terrace.storage import Database
from terrace.types import now

HOME = "http://127.0.0.1:9/api/auth/oidc/acme/callback"
CLIENT_SECRET = "known-to-both-of-us"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """Canaille's address."""
    script = Path(__file__).with_name("provider.py")
    with subprocess.Popen(
        [sys.executable, str(script), "terrace", CLIENT_SECRET, HOME],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(20)


class House:
    def __init__(self, database: Database, passwords: Passwords) -> None:
        self.database = database
        self.passwords = passwords
        self.clock = Clock()
        self.audit = Audit(database)
        self.changes = 0

    def login(self, issuer: str, *, registration: Any = "invite", **more: Any) -> OIDCLogin:
        given: dict[str, Any] = {"client_id": "terrace", "client_secret": SecretStr(CLIENT_SECRET), **more}
        self.accounts = settings.Accounts(
            registration=registration, oidc={"acme": settings.OIDC(issuer=issuer, label="Acme", **given)}
        )
        self.people = People(
            self.database, self.accounts, SECRET, self.passwords, self.audit, loopback=False, clock=self.clock
        )
        self.sessions = Sessions(
            self.database, self.accounts, SECRET, self.passwords, Throttle(self.database, self.accounts), self.audit,
            Mail(settings.SMTP()), clock=self.clock,
        )  # fmt: skip
        return OIDCLogin(
            self.accounts.oidc, self.database, self.people, self.sessions, SECRET, self.audit,
            changed=self.changed, clock=self.clock,
        )  # fmt: skip

    def changed(self) -> None:
        self.changes += 1

    async def identities(self) -> list[tuple[str, str, str]]:
        rows = await self.database.read(lambda session: session.exec(select(IdentityRow)).all())
        return [(row.issuer, row.subject, row.user_id) for row in rows]


@pytest.fixture
async def house(database: Database, passwords: Passwords) -> House:
    """With one account, so that local mode is over."""
    await add_user(database, "olga@example.org")
    return House(database, passwords)


@pytest.fixture
async def evil() -> AsyncIterator[Forger]:
    async with forger() as evil:
        yield evil


async def code_of(act: Any) -> str:
    try:
        await act
    except TerraceError as error:
        return error.code
    return ""


async def browse(url: str, user: str) -> dict[str, str]:
    """Go there as `user`; the query one is sent home with."""
    async with httpx2.AsyncClient(timeout=60) as browser:
        answer = await browser.get(url, headers={"X-User": user})
    assert answer.status_code == 302, answer.text
    home = urlsplit(answer.headers["location"])
    assert home._replace(query="").geturl() == HOME
    return {name: values[0] for name, values in parse_qs(home.query).items()}


async def enter(login: OIDCLogin, user: str = "ada") -> Tokens:
    url, cookie = await login.start("acme", HOME)
    return await login.finish("acme", await browse(url, user), cookie, HOME, address="192.0.2.7", agent="B")


# -- a real provider


async def test_a_newcomer_gets_an_account_and_comes_back_to_it(house: House, provider: str) -> None:
    login = house.login(provider)
    assert login.names() == [("acme", "Acme")]
    tokens = await enter(login)
    assert (tokens.user.email, tokens.user.name, tokens.role) == ("ada@example.org", "Ada Example", "member")
    assert not tokens.user.has_password
    assert (await enter(login)).user.id == tokens.user.id
    [(issuer, _, user)] = await house.identities()
    assert (issuer, user) == (provider, tokens.user.id)


async def test_what_the_browser_is_sent_with(house: House, provider: str) -> None:
    login = house.login(provider)
    (url, cookie), (another, _) = await login.start("acme", HOME), await login.start("acme", HOME)
    query = parse_qs(urlsplit(url).query)
    assert query["response_type"] == ["code"]
    assert query["code_challenge_method"] == ["S256"]
    assert query["scope"] == ["openid email profile"]
    assert query["redirect_uri"] == [HOME]
    others = parse_qs(urlsplit(another).query)
    for name in ("state", "nonce", "code_challenge"):
        assert len(query[name][0]) == 43
        assert query[name] != others[name]
        assert query[name][0] not in cookie
    assert CLIENT_SECRET not in url + cookie + repr(login._options)


async def test_an_account_with_the_same_verified_address_is_linked(house: House, provider: str) -> None:
    user = await add_user(house.database, "Ada@Example.org", role="admin", password_hash="kept")
    tokens = await enter(house.login(provider))
    assert (tokens.user.id, tokens.role, tokens.user.has_password) == (user, "admin", True)
    lines, _ = await house.audit.list(terminal().scope)
    assert [(each.action, each.subject, each.address) for each in lines] == [("identity.linked", user, "192.0.2.7")]
    assert house.changes == 1


async def test_whoever_took_the_address_beforehand_does_not_stay_in(house: House, provider: str) -> None:
    """Where anybody may register with any address."""
    login = house.login(provider, registration="open")
    squatter = await add_user(house.database, "ada@example.org", role="member", password_hash="known to the squatter")
    before = await house.sessions.open(squatter)
    caller = await caller_of(house.database, squatter)
    key, _ = await Keys(house.database, house.accounts, house.audit).create(caller, name="a")
    tokens = await enter(login)
    assert tokens.user.id == squatter
    assert not tokens.user.has_password
    assert await code_of(house.sessions.refresh(before.refresh_token)) == "session_revoked"
    assert (await Keys(house.database, house.accounts, house.audit).get(caller, key.id)).revoked_at is not None
    await house.sessions.refresh(tokens.refresh_token)


async def test_an_unverified_address_neither_joins_nor_takes_over(house: House, provider: str) -> None:
    await add_user(house.database, "bob@example.org")
    assert await code_of(enter(house.login(provider), "bob")) == "oidc_unverified"
    assert await code_of(enter(house.login(provider, domains=("example.org",)), "bob")) == "oidc_domain"
    assert await house.identities() == []


async def test_only_the_domains_that_may(house: House, provider: str) -> None:
    assert await code_of(enter(house.login(provider, domains=("elsewhere.example",)))) == "oidc_domain"
    await enter(house.login(provider, domains=("Example.org",)))
    assert await code_of(enter(house.login(provider, domains=("ple.org", "elsewhere.example")))) == "oidc_domain"


async def test_without_sign_up_only_who_is_known(house: House, provider: str) -> None:
    login = house.login(provider, sign_up=False)
    assert await code_of(enter(login)) == "oidc_unknown"
    await add_user(house.database, "ada@example.org")
    await enter(login)


async def test_the_first_account_is_not_made_this_way(database: Database, passwords: Passwords, provider: str) -> None:
    assert await code_of(enter(House(database, passwords).login(provider))) == "setup_code_wrong"


async def test_a_disabled_account_stays_out(house: House, provider: str) -> None:
    login = house.login(provider)
    tokens = await enter(login)

    def disable(session: Any) -> None:
        session.get(UserRow, tokens.user.id).disabled_at = now()

    await house.database.write(disable)
    assert await code_of(enter(login)) == "account_disabled"


async def test_an_answer_is_good_once_and_in_one_browser_only(house: House, provider: str) -> None:
    login = house.login(provider)
    url, cookie = await login.start("acme", HOME)
    query = await browse(url, "ada")
    _, another = await login.start("acme", HOME)
    for wrong in (None, "", another, "x.y.z", "9" * 400, f"{int(now()) + 99}.seed.mac", cookie[:-1], "\ud800.\x00.é"):
        assert await code_of(login.finish("acme", query, wrong, HOME)) == "oidc_state"
    assert await code_of(login.finish("acme", query, cookie, HOME + "/elsewhere")) == "oidc_state"
    for changed in ({"state": "guessed"}, {"state": ""}, {"iss": "http://127.0.0.1:1"}, {"code": ""}, {"state": "é"}):
        assert await code_of(login.finish("acme", query | changed, cookie, HOME)) == "oidc_state"
    await login.finish("acme", query, cookie, HOME)
    assert await code_of(login.finish("acme", query, cookie, HOME)) == "oidc_refused"


async def test_a_guessed_or_stolen_code_is_worth_nothing(house: House, provider: str) -> None:
    """PKCE: a code is bound to the browser that began."""
    login = house.login(provider)
    hers, _ = await login.start("acme", HOME)
    mine, cookie = await login.start("acme", HOME)
    stolen = await browse(hers, "ada")
    state = parse_qs(urlsplit(mine).query)["state"][0]
    for code in (stolen["code"], "guessed"):
        assert await code_of(login.finish("acme", {"code": code, "state": state}, cookie, HOME)) == "oidc_refused"


async def test_it_must_not_take_too_long(house: House, provider: str) -> None:
    login = house.login(provider)
    url, cookie = await login.start("acme", HOME)
    query = await browse(url, "ada")
    house.clock.ahead += PATIENCE + 1
    assert await code_of(login.finish("acme", query, cookie, HOME)) == "oidc_state"


async def test_a_wrong_client_secret(house: House, provider: str) -> None:
    login = house.login(provider, client_secret=SecretStr("guessed"))
    assert await code_of(enter(login)) == "oidc_refused"


async def test_who_gives_up_at_the_provider(house: House, provider: str) -> None:
    login = house.login(provider)
    url, cookie = await login.start("acme", HOME)
    state = parse_qs(urlsplit(url).query)["state"][0]
    query = {"error": "access_denied", "error_description": "<script>", "state": state}
    assert await code_of(login.finish("acme", query, cookie, HOME)) == "oidc_cancelled"


# -- one that forges


async def forged(house: House, evil: Forger, **more: Any) -> str:
    login = house.login(evil.url, **more)
    url, cookie = await login.start("acme", HOME)
    return await code_of(login.finish("acme", evil.authorize(url), cookie, HOME))


async def test_an_honest_answer_of_the_forger_is_taken(house: House, evil: Forger) -> None:
    """Else the tests below would prove nothing."""
    assert await forged(house, evil) == ""
    assert len(evil.exchanged[0]["code_verifier"]) == 43
    assert evil.exchanged[0]["redirect_uri"] == HOME


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "somebody-else"},
        {"aud": ["somebody-else"]},
        {"aud": ["terrace", "somebody-else"]},
        {"aud": None},
        {"azp": "somebody-else"},
        {"iss": "http://127.0.0.1:1"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": 99_999_999_999},
        {"sub": None},
        {"sub": ""},
        {"sub": 42},
        {"sub": "4" * 256},
        {"at_hash": "of another access token"},
    ],
    ids=str,
)
async def test_claims_that_do_not_hold(house: House, evil: Forger, changes: dict[str, Any]) -> None:
    evil.changes = changes
    assert await forged(house, evil) == "oidc_refused"
    assert await house.identities() == []


@pytest.mark.parametrize("seconds", [-61, 61])
async def test_clocks_may_differ_a_little(house: House, evil: Forger, seconds: int) -> None:
    evil.changes = {"exp": int(now()) - 50} if seconds < 0 else {"iat": int(now()) + 50, "exp": int(now()) + 400}
    assert await forged(house, evil) == ""
    evil.changes = {"exp": int(now()) - 70} if seconds < 0 else {"iat": int(now()) + 70, "exp": int(now()) + 400}
    assert await forged(house, evil) == "oidc_refused"


def _by_hand(forger: Forger, header: dict[str, Any], key: bytes | None) -> str:
    """What no library would make."""

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    signed = f"{part(json.dumps(header).encode())}.{part(json.dumps(forger.claims()).encode())}"
    return f"{signed}." + ("" if key is None else part(hmac.digest(key, signed.encode(), "sha256")))


def _unsigned(forger: Forger) -> None:
    forger.token = _by_hand(forger, {"alg": "none"}, None)


def _signed_with_the_public_key(forger: Forger) -> None:
    """Confusing RS256's public key with HS256's secret."""
    forger.token = _by_hand(forger, {"alg": "HS256", "kid": "first"}, forger.key.as_pem(private=False))


def _signed_with_the_client_secret(forger: Forger) -> None:
    forger.signs = OctKey.import_key(CLIENT_SECRET)
    forger.header = {"alg": "HS256"}


def _signed_by_somebody_else(forger: Forger) -> None:
    forger.signs = RSAKey.import_key(rsa_key("another").as_dict(private=True) | {"kid": "first"})


def _key_of_its_own_in_the_header(forger: Forger) -> None:
    own = rsa_key("mine")
    forger.signs, forger.header = own, {"alg": "RS256", "kid": "mine", "jwk": own.as_dict(private=False)}


def _nonsense(forger: Forger) -> None:
    forger.token = "no.token.atall"


@pytest.mark.parametrize(
    "forge",
    [
        _unsigned,
        _signed_with_the_public_key,
        _signed_with_the_client_secret,
        _signed_by_somebody_else,
        _key_of_its_own_in_the_header,
        _nonsense,
    ],
)
async def test_signatures_that_are_none(house: House, evil: Forger, forge: Callable[[Forger], None]) -> None:
    login = house.login(evil.url)
    url, cookie = await login.start("acme", HOME)
    query = evil.authorize(url)
    forge(evil)
    assert await code_of(login.finish("acme", query, cookie, HOME)) == "oidc_refused"
    assert await house.identities() == []


async def test_a_new_signing_key_is_found_but_not_looked_for_all_the_time(house: House, evil: Forger) -> None:
    login = house.login(evil.url)

    async def once() -> str:
        url, cookie = await login.start("acme", HOME)
        return await code_of(login.finish("acme", evil.authorize(url), cookie, HOME))

    assert await once() == ""
    second = rsa_key("second")
    evil.published.append(second)
    evil.signs, evil.header = second, {"alg": "RS256", "kid": "second"}
    assert await once() == "oidc_refused"  # it asked for the keys a moment ago
    house.clock.ahead += 61
    evil.changes = {"iat": int(house.clock()), "exp": int(house.clock()) + 300}
    assert await once() == ""
    assert evil.asked.count("/jwks") == 2
    assert evil.asked.count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize("verified", [False, None, "false", 1, "yes"], ids=str)
async def test_an_address_that_is_not_verified(house: House, evil: Forger, verified: Any) -> None:
    evil.changes = {"email_verified": verified, "email": "olga@example.org"}
    assert await forged(house, evil) == "oidc_unverified"
    assert await house.identities() == []


async def test_an_address_that_only_reads_alike_is_another_persons(house: House, evil: Forger) -> None:
    """No two accounts may have them, and none is entered by the other: they can be two people's, or two domains'."""
    boss = await add_user(house.database, "boss@strasse.example")
    evil.changes = {"email": "boss@straße.example"}
    assert await forged(house, evil, domains=("strasse.example",)) == "oidc_domain"
    for email in ("boss@straße.example", "boß@strasse.example"):
        evil.changes = {"email": email}
        assert await forged(house, evil) == "email_taken"
    assert await house.identities() == []
    evil.changes = {"email": "Boss@Strasse.example"}
    assert await forged(house, evil) == ""
    assert [user for _, _, user in await house.identities()] == [boss]


async def test_who_is_known_needs_no_address(house: House, evil: Forger) -> None:
    assert await forged(house, evil) == ""
    evil.changes = {"email": None, "email_verified": None}
    assert await forged(house, evil) == ""
    assert await forged(house, evil, domains=("example.org",)) == "oidc_domain"


@pytest.mark.parametrize("email", ["no address", "a@b\r\nBcc: c@d", "", 7], ids=str)
async def test_an_address_that_is_none(house: House, evil: Forger, email: Any) -> None:
    evil.changes = {"email": email}
    assert await forged(house, evil) in {"bad_email", "oidc_unverified"}


async def test_a_name_is_made_fit(house: House, evil: Forger) -> None:
    evil.changes = {"name": "A\x1b[31m\nda " + "x" * 500}
    assert await forged(house, evil) == ""
    [row] = await house.database.read(
        lambda session: session.exec(select(UserRow).where(UserRow.email_key == "ada@example.org")).all()
    )
    assert row.name.startswith("A [31m da xxx")
    assert len(row.name) <= 100


async def test_the_address_may_come_from_the_userinfo_of_the_same_person(house: House, evil: Forger) -> None:
    evil.metadata = {"userinfo_endpoint": f"{evil.url}/userinfo"}
    evil.changes = {"email": None, "email_verified": None}
    evil.userinfo = {"sub": "somebody else", "email": "ada@example.org", "email_verified": True}
    assert await forged(house, evil) == "oidc_refused"
    evil.userinfo["sub"] = "42"
    assert await forged(house, evil) == ""


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://accounts.example.org"},
        {"token_endpoint": "http://198.51.100.1/token"},
        {"jwks_uri": "ftp://127.0.0.1/jwks"},
    ],
    ids=str,
)
async def test_a_provider_that_cannot_be_trusted(house: House, evil: Forger, metadata: dict[str, Any]) -> None:
    evil.metadata = metadata
    with pytest.raises(Invalid):
        await house.login(evil.url).start("acme", HOME)


async def test_providers_that_are_away_or_not_there(house: House) -> None:
    async with forger() as gone:
        login = house.login(gone.url)
    with pytest.raises(Unavailable):
        await login.start("acme", HOME)
    with pytest.raises(Missing):
        await login.start("another", HOME)
    with pytest.raises(Invalid):
        await house.login("http://accounts.example.org").start("acme", HOME)
