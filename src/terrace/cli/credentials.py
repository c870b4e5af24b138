"""What a command says to a server who it is: an API key, a login, the terminal's token, or nothing."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from terrace.cli.client import Client, Credential, Nobody
from terrace.cli.logins import Logins, Saved
from terrace.errors import Invalid, Unauthenticated

API_KEY = "TERRACE_API_KEY"
PATIENCE = 30.0  # seconds a server gets to renew a login
MARGIN = 30.0  # seconds before its end an access token is renewed

_TOKEN = re.compile(r"[\x21-\x7e]{8,4096}")  # what fits in a header; the error of one that doesn't would show it


def choose(url: str, terminal: str | None = None, logins: Logins | None = None) -> Credential:
    """The key of the environment, else the login at this server, else the terminal's token, else nothing."""
    if key := os.environ.get(API_KEY, "").strip():
        return Key(key)
    logins = logins or Logins()
    if saved := logins.get(url):
        return Login(saved, logins)
    return Terminal(terminal) if terminal else Nobody()


class _Fixed:
    """A token that stays what it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self) -> str:
        return self._token

    def renewed(self, refused: str) -> bool:
        return False


class Key(_Fixed):
    """An API key, from the environment."""

    def __init__(self, key: str) -> None:
        if not _TOKEN.fullmatch(key):
            raise Invalid(f"{API_KEY} holds no API key: one begins with trc_ and has neither spaces nor line breaks.")
        super().__init__(key)

    def advice(self, url: str) -> str:
        return (
            f"{url} does not take the key in {API_KEY}: set one that is right and not revoked or expired, or unset it "
            f"and run `terrace login --server {url}`."
        )


class Terminal(_Fixed):
    """The token a server leaves in its data folder for whoever owns that folder."""

    def __init__(self, token: str) -> None:
        if not _TOKEN.fullmatch(token):
            raise Invalid("The token in server.json is broken; start the server again.")
        super().__init__(token)

    def advice(self, url: str) -> str:
        return (
            f"{url} does not take the token in its data folder: start it again, or run `terrace login --server {url}`."
        )


class Access(_Fixed):
    """The access token of a login that is not kept yet."""

    def advice(self, url: str) -> str:
        return f"{url} does not take the login it just gave: check that the clocks of both machines are right."


class Login:
    """A login: its access token is kept in memory alone, its refresh token is changed with every use.

    Safe to use from several threads, and from several commands at once.
    """

    def __init__(self, saved: Saved, logins: Logins) -> None:
        self.email = saved.email
        self.tenant: dict[str, str] = {}
        self._url = saved.url
        self._logins = logins
        self._access = ""
        self._until = 0.0  # monotonic
        self._threads = threading.Lock()

    def token(self) -> str:
        with self._threads:
            if time.monotonic() >= self._until:
                self._renew()
            return self._access

    def renewed(self, refused: str) -> bool:
        with self._threads:
            if self._access == refused:
                self._renew()
            return True

    def advice(self, url: str) -> str:
        return f"Your login at {url} has ended: run `terrace login --server {url}`."

    def _renew(self) -> None:
        """In a thread of its own, so that Ctrl-C can't lose the new refresh token between its arrival and the disk."""
        with ThreadPoolExecutor(1) as alone:
            alone.submit(self._rotate).result()

    def _rotate(self) -> None:
        with self._logins.lock(self._url):
            saved = self._logins.get(self._url)
            if saved is None:
                raise Unauthenticated(self.advice(self._url), code="logged_out")
            try:
                tokens = Client(self._url, timeout=PATIENCE).post(
                    "/api/auth/refresh", {"refresh_token": saved.refresh_token}
                )
            except Unauthenticated as error:
                raise Unauthenticated(self.advice(self._url), code=error.code) from error
            self._logins.put(replace(saved, refresh_token=tokens["refresh_token"]))
        self.tenant = tokens["tenant"]
        self._access = tokens["access_token"]
        seconds = float(tokens["expires_in"])
        self._until = time.monotonic() + max(seconds - MARGIN, seconds / 2)
