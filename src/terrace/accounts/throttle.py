"""How often logins may fail, by account and by address, over all processes."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from sqlmodel import Session

from terrace.accounts import families
from terrace.accounts.guesses import CAPACITY, Count, Guess, Guesses, Rule, counted, longest, too_many
from terrace.settings import Accounts
from terrace.storage import Database
from terrace.types import now


@dataclass(frozen=True, slots=True)
class Attempt:
    """To log in. How it turns out is told to nobody when these raise Limited: others, here or in another process, have
    used up meanwhile what there was."""

    guesses: Guesses
    account: Guess
    theirs: Guess  # the account, or the account from an address it was entered from before
    place: Guess

    async def failed(self) -> None:
        if wait := await self.guesses.failed(self.theirs, self.place):
            raise too_many("logins", wait)

    async def succeeded(self) -> None:
        """The account's count is cleared, the address's is not: it may have an account of its own to clear it with."""
        counts = await self.guesses.counts(self.account, self.theirs, self.place)
        if wait := longest({each: counts[each] for each in (self.theirs, self.place)}, self.guesses.clock()):
            raise too_many("logins", wait)
        spent = [each for each in {self.account, self.theirs} if counts[each] != Count()]
        if spent:
            await self.guesses.forgive(*spent)


class Throttle:
    """Of logins, by account and by address.

    An account that strangers have used up still lets in whoever comes from an address it was entered from before, as
    its sessions tell: such addresses have a count of their own, so nobody can lock a person out from elsewhere.
    Accounts that do not exist are counted as well: the throttle does not tell them apart.
    """

    def __init__(
        self, database: Database, settings: Accounts, *, capacity: int = CAPACITY, clock: Callable[[], float] = now
    ) -> None:
        self._database = database
        self._accounts = Rule("account", settings.login_attempts)
        self._addresses = Rule("address", settings.address_attempts)
        self._guesses = Guesses(database, capacity=capacity, clock=clock)
        self._under_way: Counter[Guess] = Counter()

    @asynccontextmanager
    async def attempt(self, email_key: str, address: str) -> AsyncIterator[Attempt]:
        """While its body runs the attempt counts, so that many at once are no way round, and cost no more hashing than
        one after the other; the body awaits `failed` or `succeeded`. Raises Limited with `retry_after`."""
        attempt, counts = await self._database.read(self._look, email_key, network_of(address))
        at = self._guesses.clock()
        wait = max(each.rule.wait(count, at, self._under_way[each]) for each, count in counts.items())
        if wait:
            raise too_many("logins", wait)
        self._under_way.update(counts.keys())
        try:
            yield attempt
        finally:
            self._under_way -= Counter(counts.keys())

    def _look(self, session: Session, email_key: str, place: str) -> tuple[Attempt, dict[Guess, Count]]:
        account = theirs = Guess(self._accounts, email_key)
        if any(network_of(each) == place for each in families.addresses(session, email_key)):
            theirs = Guess(self._accounts, f"{email_key}\0{place}")
        attempt = Attempt(self._guesses, account, theirs, Guess(self._addresses, place))
        return attempt, counted(session, (theirs, attempt.place))


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
