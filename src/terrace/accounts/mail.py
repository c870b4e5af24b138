"""Mails, through whatever server the settings name. Without one nothing is sent, and links are handed over."""

import asyncio
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from importlib import import_module

from terrace import settings
from terrace.accounts.naming import email_address
from terrace.errors import Invalid, Unavailable

TIMEOUT = 30.0  # seconds, for each step
MAX_SUBJECT = 200


class Mail:
    def __init__(self, options: settings.SMTP) -> None:
        """Raises Invalid for a sender that is none."""
        self.enabled = bool(options.host)
        self._options = options
        self._sender = _sender(options) if self.enabled else Address()

    async def send(self, to: str, subject: str, text: str) -> None:
        """Raises Invalid for what is no address or subject, Unavailable when it cannot be handed to the server."""
        if not self.enabled:
            raise Unavailable("No mail server is set (TERRACE_ACCOUNTS__SMTP__HOST).", code="no_mail")
        aiosmtplib = await asyncio.to_thread(import_module, "aiosmtplib")  # it takes a while, the first time
        options = self._options
        try:
            await aiosmtplib.send(
                self._message(to, subject, text),
                hostname=options.host,
                port=options.port,
                username=options.user or None,
                password=options.password.get_secret_value() or None,
                use_tls=options.security == "tls",
                start_tls=options.security == "starttls",
                timeout=TIMEOUT,
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # What the server said may repeat what was sent to it.
            raise Unavailable(
                f"The mail server {options.host}:{options.port} did not take the mail ({type(error).__name__}).",
                code="mail_failed",
            ) from error

    def _message(self, to: str, subject: str, text: str) -> EmailMessage:
        if not subject.isprintable() or not 0 < len(subject) <= MAX_SUBJECT:
            raise Invalid("A mail's subject is one line of visible characters.", code="bad_subject")
        message = EmailMessage()
        message["From"] = self._sender
        message["To"] = email_address(to)
        message["Subject"] = subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._sender.domain)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers, please
        message.set_content(text)
        return message


def _sender(options: settings.SMTP) -> Address:
    name, bracket, rest = options.sender.strip().rpartition("<")
    given = rest.removesuffix(">") if bracket and rest.endswith(">") else options.sender
    try:
        address = email_address(given or (options.user if "@" in options.user else f"terrace@{options.host}"))
    except Invalid as error:
        raise Invalid(
            "TERRACE_ACCOUNTS__SMTP__SENDER must be an e-mail address, such as terrace@example.org or "
            "Terrace <terrace@example.org>.",
            code="bad_settings",
        ) from error
    user, _, domain = address.rpartition("@")
    return Address(name.strip(' "'), user, domain)
