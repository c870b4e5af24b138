"""The system's keyring, where there is one that works."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from terrace.errors import Unavailable

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

SERVICE = "terrace"

T = TypeVar("T")


class Keyring(Protocol):
    """Where the system keeps secrets. Each raises Unavailable when it is locked or broken."""

    def get(self, name: str) -> str | None: ...

    def put(self, name: str, secret: str) -> None: ...

    def remove(self, name: str) -> None: ...


class SystemKeyring:
    """Keychain, Credential Locker, Secret Service or KWallet. Their library is imported when it is first asked."""

    def get(self, name: str) -> str | None:
        return _tried(lambda: _backend().get_password(SERVICE, name))

    def put(self, name: str, secret: str) -> None:
        _tried(lambda: _backend().set_password(SERVICE, name, secret))

    def remove(self, name: str) -> None:
        _tried(lambda: _backend().delete_password(SERVICE, name))


def _backend() -> "KeyringBackend":
    import keyring

    backend = keyring.get_keyring()
    if not keyring.core.recommended(backend):  # it keeps nothing, or keeps it in the clear
        raise Unavailable("This system has no keyring that works.")
    return backend


def _tried(act: Callable[[], T]) -> T:
    """Backends raise what they like: errors of D-Bus, of a native library, of their own."""
    try:
        return act()
    except Unavailable:
        raise
    except Exception as error:
        raise Unavailable(f"The system's keyring cannot be used ({type(error).__name__}).") from error
