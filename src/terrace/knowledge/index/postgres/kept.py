"""What searches found out, kept for those who ask the same while nothing has changed: each key says of which state."""

import time
from threading import Lock
from typing import Generic, Protocol, TypeVar

KEPT_SECONDS = 600.0
ENTRY = 2_000  # bytes, beside the value itself


class Sized(Protocol):
    @property
    def bytes(self) -> int: ...


K = TypeVar("K")
V = TypeVar("V", bound=Sized)


class Kept(Generic[K, V]):
    """For any thread. What was asked for longest ago makes room for what is new."""

    def __init__(self, most: int, seconds: float = KEPT_SECONDS) -> None:
        self._most = most
        self._seconds = seconds
        self._bytes = 0
        self._lock = Lock()
        self._kept: dict[K, tuple[V, float]] = {}

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._take(key)
            if found is None or time.monotonic() > found[1]:
                return None
            self._put(key, *found)
            return found[0]

    def keep(self, key: K, value: V) -> None:
        with self._lock:
            self._take(key)
            while self._kept and self._bytes + ENTRY + value.bytes > self._most:
                self._take(next(iter(self._kept)))
            if ENTRY + value.bytes <= self._most:
                self._put(key, value, time.monotonic() + self._seconds)

    def _take(self, key: K) -> tuple[V, float] | None:
        found = self._kept.pop(key, None)
        self._bytes -= 0 if found is None else ENTRY + found[0].bytes
        return found

    def _put(self, key: K, value: V, until: float) -> None:
        self._kept[key] = value, until
        self._bytes += ENTRY + value.bytes
