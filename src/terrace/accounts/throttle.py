"""Guessing is made slow. Kept in memory and bounded: a restart forgives everybody."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address

from terrace.errors import Limited
from terrace.settings import Accounts
from terrace.types import now

WINDOW = 900.0  # seconds
FIRST_WAIT = 30.0  # seconds once the limit is reached; doubles with each further failure, up to the window
MAX_DOUBLINGS = 20
CAPACITY = 20_000  # keys remembered, the latest


@dataclass(slots=True)
class _Record:
    failures: list[float] = field(default_factory=list)  # when, within the window; at most as many as are allowed
    latest: float = 0.0  # failure
    over: int = 0  # failures since the window was full
    under_way: int = 0


class Attempts:
    """So many failures a key gets within the window. Each one that reaches or passes that doubles the wait for the
    next, until there has been none for two windows."""

    def __init__(
        self,
        limit: int,
        *,
        window: float = WINDOW,
        capacity: int = CAPACITY,
        clock: Callable[[], float] = now,
    ) -> None:
        self._limit = limit
        self._window = window
        self._capacity = capacity
        self._clock = clock
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def wait(self, key: Hashable) -> float:
        """Seconds until another attempt is let pass; 0 when one is now."""
        record = self._current(key)
        if record is None:
            return 0.0
        at, waits = self._clock(), [0.0]
        if len(record.failures) == self._limit:
            waits.append(record.failures[0] + self._window - at)
        if record.over:
            patience = min(FIRST_WAIT * 2.0 ** (record.over - 1), self._window)
            waits.append(record.latest + patience - at)
        if record.under_way and (record.over or len(record.failures) + record.under_way >= self._limit):
            waits.append(1.0)  # those under way may still turn out well
        return max(waits)

    def begin(self, key: Hashable) -> None:
        """An attempt is under way: it counts until its `end`, so that many at once are no way round the limit."""
        self._record(key).under_way += 1

    def end(self, key: Hashable) -> None:
        record = self._records.get(key)
        if record is not None:
            record.under_way = max(0, record.under_way - 1)

    def failed(self, key: Hashable) -> None:
        record = self._record(key)
        record.latest = self._clock()
        record.failures = [*record.failures, record.latest][-self._limit :]
        if record.over or len(record.failures) == self._limit:
            record.over = min(record.over + 1, MAX_DOUBLINGS)

    def clear(self, key: Hashable) -> None:
        record = self._records.get(key)
        if record is not None:
            record.failures, record.latest, record.over = [], 0.0, 0

    def _current(self, key: Hashable) -> _Record | None:
        """What is known of `key`, without what has left the window."""
        record = self._records.get(key)
        if record is None:
            return None
        at = self._clock()
        record.failures = [each for each in record.failures if each > at - self._window]
        if record.latest <= at - 2 * self._window and not record.under_way:
            del self._records[key]
            return None
        return record

    def _record(self, key: Hashable) -> _Record:
        record = self._current(key)
        if record is None:
            record = self._records[key] = _Record()
            if len(self._records) > self._capacity:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        return record


class Throttle:
    """Of logins, by account and by address.

    An account that strangers have used up still lets in whoever comes from an address it was entered from before:
    such addresses have a count of their own, so nobody can lock a person out from elsewhere. Accounts that do not exist
    are counted as well: the throttle does not tell them apart.
    """

    def __init__(self, settings: Accounts, *, capacity: int = CAPACITY, clock: Callable[[], float] = now) -> None:
        self._accounts = Attempts(settings.login_attempts, capacity=capacity, clock=clock)
        self._addresses = Attempts(settings.address_attempts, capacity=capacity, clock=clock)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._capacity = capacity

    @contextmanager
    def attempt(self, email_key: str, address: str) -> Iterator[None]:
        """`check`, and while its body runs the attempt counts; the body calls `failed` or `succeeded`.
        Raises Limited."""
        self.check(email_key, address)
        account, place = self._account(email_key, address), network_of(address)
        self._accounts.begin(account)
        self._addresses.begin(place)
        try:
            yield
        finally:
            self._accounts.end(account)
            self._addresses.end(place)

    def check(self, email_key: str, address: str) -> None:
        """Raises Limited with `retry_after`."""
        wait = max(self._accounts.wait(self._account(email_key, address)), self._addresses.wait(network_of(address)))
        if wait:
            raise too_many("logins", wait)

    def failed(self, email_key: str, address: str) -> None:
        self._accounts.failed(self._account(email_key, address))
        self._addresses.failed(network_of(address))

    def succeeded(self, email_key: str, address: str = "") -> None:
        """The account's count is cleared, the address's is not: it may have an account of its own to clear it with."""
        self._accounts.clear(email_key)
        if address:
            self.remember(email_key, address)
            self._accounts.clear(self._account(email_key, address))

    def remember(self, email_key: str, address: str) -> None:
        """The account was entered from there, as its sessions tell."""
        pair = (email_key, network_of(address))
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def _account(self, email_key: str, address: str) -> Hashable:
        pair = (email_key, network_of(address))
        return pair if pair in self._known else email_key


def too_many(what: str, wait: float) -> Limited:
    seconds = int(wait) + 1
    told = f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
    return Limited(f"Too many failed {what}. Try again in {told}.", code="too_many_attempts", retry_after=seconds)


def network_of(address: str) -> str:
    """Whose address it is: an IPv6 client has a network of 2^64 for itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
