"""Mails, handed to a real server; nothing anybody gives gets into their headers."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.accounts.postbox import postbox

from terrace import settings
from terrace.accounts.mail import Mail
from terrace.errors import Invalid, Unavailable


async def test_a_mail_arrives() -> None:
    async with postbox() as box:
        await Mail(box.options()).send("ada@example.org", "Grüße", "Zeile eins\nand two\n.\n")
        mail = await box.came.get()
    assert box.recipients == ["ada@example.org"]
    assert (mail["To"], mail["From"], mail["Subject"]) == ("ada@example.org", "terrace@example.org", "Grüße")
    assert mail.get_content().replace("\r\n", "\n") == "Zeile eins\nand two\n.\n"
    assert mail["Date"]
    assert mail["Message-ID"].endswith("@example.org>")
    assert mail["Auto-Submitted"] == "auto-generated"


async def test_international_addresses() -> None:
    async with postbox() as box:
        await Mail(box.options()).send("jürgen@bücher.example", "Hello", "text")
        assert (await box.came.get())["To"] == "jürgen@bücher.example"


async def test_a_sender_may_have_a_name() -> None:
    async with postbox() as box:
        await Mail(box.options(sender="Térrace, Inc. <no-reply@example.org>")).send("ada@example.org", "Hello", "text")
        [sender] = (await box.came.get())["From"].addresses
        assert (sender.display_name, sender.addr_spec) == ("Térrace, Inc.", "no-reply@example.org")


@pytest.mark.parametrize("sender", ["Terrace", "Terrace <nobody>", "a@b@c", "a@example.org, b@example.org <"])
def test_a_sender_that_is_none_is_told_at_the_start(sender: str) -> None:
    with pytest.raises(Invalid, match="SMTP__SENDER"):
        Mail(settings.SMTP(host="mail.example.org", sender=sender))


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_it_logs_in_where_the_server_wants_it() -> None:
    async with postbox(auth_required=True, auth_require_tls=False) as box:
        login = {"user": "terrace", "password": SecretStr("letter-opener")}
        await Mail(box.options(**login)).send("ada@example.org", "Hello", "text")
        assert box.logins == [(b"terrace", b"letter-opener")]
        with pytest.raises(Unavailable) as caught:
            await Mail(box.options(user="terrace", password=SecretStr("guessed-wrong"))).send("a@b.example", "x", "y")
        assert "guessed-wrong" not in caught.value.message


@pytest.mark.parametrize(
    ("to", "subject"),
    [
        ("ada@example.org\r\nBcc: eve@example.org", "Hello"),
        ("ada@example.org, eve@example.org", "Hello"),
        ("Ada <ada@example.org>", "Hello"),
        ("", "Hello"),
        ("ada@example.org", "Hello\r\nBcc: eve@example.org"),
        ("ada@example.org", "Hello\nBcc: eve@example.org"),
        ("ada@example.org", "Hello\u2028Bcc: eve@example.org"),
        ("ada@example.org", ""),
        ("ada@example.org", "x" * 201),
    ],
)
async def test_no_header_can_be_slipped_in(to: str, subject: str) -> None:
    async with postbox() as box:
        with pytest.raises(Invalid):
            await Mail(box.options()).send(to, subject, "text")
        assert box.came.empty()


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(to=st.text(max_size=60), subject=st.text(max_size=60), text=st.text(max_size=200))
def test_whatever_is_given_there_are_our_headers_and_no_others(to: str, subject: str, text: str) -> None:
    mail = Mail(settings.SMTP(host="mail.example.org"))
    try:
        message = mail._message(f"{to}@example.org", subject, text)
    except Invalid:
        return
    names = {line.split(b":")[0] for line in message.as_bytes().split(b"\n\n")[0].split(b"\n") if line[:1] != b" "}
    assert names == {
        b"From", b"To", b"Subject", b"Date", b"Message-ID", b"Auto-Submitted", b"Content-Type",
        b"Content-Transfer-Encoding", b"MIME-Version",
    }  # fmt: skip


async def test_a_server_that_refuses_or_is_away() -> None:
    async with postbox() as box:
        box.refuse = "554 no, thank you"
        with pytest.raises(Unavailable):
            await Mail(box.options()).send("ada@example.org", "Hello", "text")
        options = box.options()
    with pytest.raises(Unavailable):
        await Mail(options).send("ada@example.org", "Hello", "text")


async def test_privacy_is_not_given_up(tmp_path: Path) -> None:
    """A server without STARTTLS, and one whose certificate nobody vouches for."""
    async with postbox() as box:
        with pytest.raises(Unavailable):
            await Mail(box.options(security="starttls")).send("ada@example.org", "Hello", "text")
    async with postbox(tls_context=_self_signed(tmp_path)) as box:
        with pytest.raises(Unavailable):
            await Mail(box.options(security="starttls")).send("ada@example.org", "Hello", "text")
        assert box.came.empty()


async def test_without_a_server_nothing_is_sent() -> None:
    mail = Mail(settings.SMTP())
    assert not mail.enabled
    with pytest.raises(Unavailable):
        await mail.send("ada@example.org", "Hello", "text")


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    day = timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, datetime.now(UTC) - day, datetime.now(UTC) + day)
    certificate = builder.sign(key, hashes.SHA256())
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
