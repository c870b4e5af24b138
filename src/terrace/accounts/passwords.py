"""Passwords: argon2id, in few threads of their own, so that hashing holds up nothing else."""

import asyncio
import os
import sys
import threading
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from importlib import util
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from terrace.errors import Internal, Invalid, Unavailable
from terrace.settings import Accounts

if TYPE_CHECKING:
    from argon2 import PasswordHasher

P = ParamSpec("P")
R = TypeVar("R")

MEMORY = 19_456  # KiB; with the passes and lanes below, OWASP's recommendation for argon2id
PASSES = 2
LANES = 1
SALT = 16  # bytes
LENGTH = 32  # bytes

MAX_PASSWORD = 1024
MIN_DISTINCT = 3  # characters
WAITING = 32  # that may wait, a thread: about a second's work
NICENESS = 5  # requests come before hashing where they want the same core


class Passwords:
    def __init__(self, settings: Accounts) -> None:
        self._min = settings.password_min
        self._threads = ThreadPoolExecutor(settings.hashing, "passwords", initializer=_step_back)
        self._room = threading.BoundedSemaphore(settings.hashing * (1 + WAITING))
        # Whoever guesses at an account that is not there has to wait as long as others: nothing hashes to this.
        self._nobody = f"$argon2id$v=19$m={MEMORY},t={PASSES},p={LANES}${_b64(SALT)}${_b64(LENGTH)}"

    async def hash(self, password: str, *, personal: Iterable[str] = ()) -> str:
        """`personal`: the person's name and e-mail address, which are no passwords.

        Raises Invalid (too short, too long, too common) and Unavailable (too many at once).
        """
        if len(password) > MAX_PASSWORD:
            raise Invalid(f"A password has at most {MAX_PASSWORD} characters.", code="password_long")
        normal = _normal(password)
        if normal is None:
            raise Invalid("The password has characters that are none.", code="password_characters")
        if len(normal) < self._min:
            raise Invalid(f"A password has at least {self._min} characters.", code="password_short")
        names = [(_normal(text) or "").casefold() for text in personal]
        own = {*names, *(name.partition("@")[0] for name in names)}
        return await self._in_thread(self._hash, normal, frozenset(own))

    async def verify(self, password: str, hash: str | None) -> bool:
        """None is the hash of an account that does not exist or has no password: the same work, and False.

        Raises Unavailable (too many at once).
        """
        normal = _normal(password) if len(password) <= MAX_PASSWORD else None
        if normal is None:
            return False  # no hash could be of it, whatever the account
        return await self._in_thread(self._verify, normal, hash or self._nobody)

    def needs_rehash(self, hash: str) -> bool:
        """It was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hash)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if not self._room.acquire(blocking=False):
            raise Unavailable(
                "Too many passwords are being checked at once. Try again in a moment.",
                code="passwords_busy",
                retry_after=2,
            )
        try:
            future = self._threads.submit(work, *args, **kwargs)
        except RuntimeError as error:
            self._room.release()
            raise Unavailable("The server is shutting down.") from error
        future.add_done_callback(lambda _: self._room.release())  # also when nobody waits for it any more
        return await asyncio.wrap_future(future)

    # -- in the threads

    def _hash(self, password: str, own: frozenset[str]) -> str:
        folded = password.casefold()
        if folded in own or len(set(folded)) < MIN_DISTINCT or folded in _commonest(self._min):
            raise Invalid(
                "That password is easy to guess. Take several words, or let a password manager make one.",
                code="password_common",
            )
        return self._hasher.hash(password)

    def _verify(self, password: str, hash: str) -> bool:
        from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

        try:
            return self._hasher.verify(hash, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            raise Internal("A stored password cannot be read. Make a new one by a reset link.") from error

    @cached_property
    def _hasher(self) -> "PasswordHasher":
        from argon2 import PasswordHasher

        return PasswordHasher(PASSES, MEMORY, LANES, LENGTH, SALT)


@cache
def _commonest(shortest: int) -> frozenset[str]:
    """The passwords, words and names most in use, of `shortest` characters or more, in lower case."""
    found = util.find_spec("zxcvbn")
    if found is None or found.origin is None:
        raise Internal("The lists of common passwords are not installed.")
    # The lists alone: the package itself builds tables of ten times their size when it is imported.
    spec = util.spec_from_file_location("frequency_lists", Path(found.origin).with_name("frequency_lists.py"))
    if spec is None or spec.loader is None:
        raise Internal("The lists of common passwords cannot be read.")
    lists = util.module_from_spec(spec)
    spec.loader.exec_module(lists)
    return frozenset(word for words in lists.FREQUENCY_LISTS.values() for word in words if len(word) >= shortest)


def _normal(password: str) -> str | None:
    """One form for what different keyboards send for the same letters; None when it is no text."""
    normal = unicodedata.normalize("NFKC", password)
    return None if any("\ud800" <= character <= "\udfff" for character in normal) else normal


def _b64(bytes: int) -> str:
    return b64encode(token_bytes(bytes)).decode().rstrip("=")


def _step_back() -> None:
    """On Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
