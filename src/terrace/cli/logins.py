"""The logins of this person: one for each server, in the system's keyring or a file nobody else can read."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import mkstemp
from typing import IO

from terrace.cli.keyring import Keyring, SystemKeyring
from terrace.errors import Invalid, Unavailable


@dataclass(frozen=True, slots=True)
class Saved:
    """A login. The refresh token is good for one use, and for the next one."""

    url: str
    email: str
    refresh_token: str = field(repr=False)


class Logins:
    """Who is logged in where. The file of a server says so; its token is in it only where there is no keyring."""

    def __init__(self, folder: Path | None = None, keyring: Keyring | None = None) -> None:
        self._folder = folder or _folder()
        self._keyring = keyring or SystemKeyring()

    def get(self, url: str) -> Saved | None:
        """Raises Unavailable when the keyring has it and is locked."""
        try:
            told = json.loads(self._path(url).read_text())
            email, token = str(told["email"]), told.get("refresh_token")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(f"{self._path(url)} is broken: run `terrace login --server {url}` again.") from error
        token = token or self._keyring.get(url)
        return Saved(url, email, token) if token else None

    def put(self, saved: Saved) -> str:
        """Kept at once and whole. Returns where, and why not in the keyring."""
        told = {"url": saved.url, "email": saved.email}
        try:
            self._keyring.put(saved.url, saved.refresh_token)
            where = "the system's keyring."
        except Unavailable as error:
            told["refresh_token"] = saved.refresh_token
            where = f"{self._path(saved.url)}, since: {error.message}"
        _write(self._path(saved.url), json.dumps(told))
        return where

    def remove(self, url: str) -> None:
        told = self._path(url)
        if told.is_file() and "refresh_token" not in told.read_text():
            with suppress(Unavailable):  # gone from it already, or locked: without its file it is used no more
                self._keyring.remove(url)
        told.unlink(missing_ok=True)

    @contextmanager
    def lock(self, url: str) -> Iterator[None]:
        """One command at a time: two that use the same refresh token would end the login."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(url).with_suffix(".lock")
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            _lock(file)
            yield

    def _path(self, url: str) -> Path:
        return self._folder / f"{sha256(url.encode()).hexdigest()[:24]}.json"


def _folder() -> Path:
    from platformdirs import user_config_path

    return user_config_path("terrace") / "logins"


def _write(path: Path, text: str) -> None:
    """The old or the new, never a half; readable by nobody else at any moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    number, name = mkstemp(dir=path.parent, prefix=".login-")  # made with 0600
    try:
        with open(number, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if sys.platform == "win32":

    def _lock(file: IO[bytes]) -> None:
        """Until the file is closed."""
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:

    def _lock(file: IO[bytes]) -> None:
        """Until the file is closed."""
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
