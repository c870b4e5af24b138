"""A real mail server of this process, and what it was handed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from terrace import settings


class Postbox:
    def __init__(self) -> None:
        self.port = 0
        self.came: asyncio.Queue[EmailMessage] = asyncio.Queue()
        self.recipients: list[str] = []
        self.logins: list[tuple[bytes, bytes]] = []
        self.refuse = ""

    def options(self, **more: Any) -> settings.SMTP:
        given = {"host": "127.0.0.1", "port": self.port, "sender": "terrace@example.org", "security": "none", **more}
        return settings.SMTP(**given)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        self.recipients += envelope.rcpt_tos
        assert isinstance(envelope.content, bytes)
        self.came.put_nowait(message_from_bytes(envelope.content, EmailMessage, policy=policy.default))
        return "250 OK"

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        self.logins.append((given.login, given.password))
        return AuthResult(success=given.password == b"letter-opener", handled=False)


@asynccontextmanager
async def postbox(**options: Any) -> AsyncIterator[Postbox]:
    box = Postbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(box, enable_SMTPUTF8=True, authenticator=box.authenticate, **options), "127.0.0.1", 0
    )
    box.port = server.sockets[0].getsockname()[1]
    async with server:
        yield box
