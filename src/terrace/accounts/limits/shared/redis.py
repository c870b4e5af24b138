"""The meeting place in Redis: every question is one script, so nobody comes between.

Redis may forget. Whoever finds that it did (the run is another, the scripts are unknown: it was started anew) goes to
the database, where all say again what they hold.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from terrace.accounts.limits.shared import database as tables
from terrace.accounts.limits.shared.base import Found, Key, Line, Reply, Trip
from terrace.accounts.limits.shared.redis_scripts import HELD, KEEP, TRADE
from terrace.storage import Database
from terrace.storage.database import own_locks

SILENCE = 1.0  # seconds; an answer that takes longer will not come
AWAY = (RedisError, OSError, TimeoutError)
SEPARATOR = "\x1f"  # between tenant and key; stands in neither


class Lost(Exception):
    """Redis cannot be reached, or has forgotten."""


class Connection:
    """To the server, whatever is kept there. Raises ValueError for a URL that is none."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self._redis: Any = Redis.from_url(
            url,
            protocol=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SILENCE,
            socket_connect_timeout=SILENCE,
        )
        self._known: dict[str, str] = {}

    async def run(self) -> str:
        """What this run of the server calls itself: another one may have forgotten everything."""
        info = await self._asked(self._redis.info("server"))
        return str(info["run_id"])

    async def begin(self) -> str:
        """A place where nothing is yet."""
        run = f"{await self.run()}:{secrets.token_hex(8)}"
        await self._asked(self._redis.set(f"{self.place(run)}run", run))
        return run

    async def clear(self, run: str) -> None:
        """Forget a place that nobody meets at any more."""
        try:
            async for name in self._redis.scan_iter(match=f"{self.place(run)}*", count=1000):
                await self._redis.unlink(name)
        except AWAY as error:
            raise Lost(type(error).__name__) from error

    async def learn(self) -> None:
        """Have the scripts known from now on: that they are not any more tells that the server was started anew."""
        for script in (TRADE, KEEP, HELD):
            self._known[script] = await self._asked(self._redis.script_load(script))

    async def call(self, script: str, run: str, argument: str) -> Any:
        if script not in self._known:  # who ends before anything was counted here has never asked
            await self.learn()
        answer = await self._asked(self._redis.evalsha(self._known[script], 1, self.place(run), argument))
        return msgspec.json.decode(answer)

    async def members(self, run: str) -> list[int]:
        found = await self._asked(self._redis.smembers(f"{self.place(run)}members"))
        return [int(each) for each in found]

    def place(self, run: str) -> str:
        return f"{self.prefix}:limits:{run.rpartition(':')[2]}:"

    async def close(self) -> None:
        await self._redis.aclose()

    async def _asked(self, answer: Any) -> Any:
        try:
            return await answer
        except NoScriptError as error:
            raise Lost("started anew") from error
        except AWAY as error:
            raise Lost(type(error).__name__) from error


class RedisStore:
    """`accounts.limits.shared.base.Store`. Raises Lost besides."""

    def __init__(self, database: Database, connection: Connection, run: str) -> None:
        self._database = database
        self._connection = connection
        self._run = run

    async def join(self, holder: int, lines: Iterable[Line]) -> None:
        """Begin to use it, and say what we hold. What is booked is nothing to say: who was the last to book may hold
        nothing any more. Raises Lost when it is another server than the one where all met."""
        if await self._connection.run() != self._run.partition(":")[0]:
            raise Lost("started anew")
        await self._connection.learn()
        await self.keep(holder, {line.key: line.held for line in lines}, {}, whole=True)

    async def trade(self, trip: Trip) -> Reply:
        """Of a limit that is new here, what is booked is read from the ledger. All have joined by then: so whatever
        they have booked, and hold no more, is in it."""
        booked: dict[Key, int] = {}
        while True:
            said = {
                "run": self._run,
                "holder": str(trip.holder),
                "booked": _pairs(booked),
                "lines": [_line(line) for line in trip.lines],
                "claims": list(trip.claims),
                "releases": list(trip.releases),
                "parks": [
                    {"job": park.job, "amounts": _pairs(park.amounts), "seconds": park.seconds} for park in trip.parks
                ],
            }
            answer = await self._told(TRADE, said)
            if answer["state"] == "ok":
                return _reply(answer)
            told = {True: answer["told"], False: answer["new"]}
            known, recent = await self._database.write(
                _booked, {moved: [_key(name) for name in names] for moved, names in told.items() if names}
            )
            if recent:
                await self.keep(trip.holder, {}, recent, whole=False)
            booked |= known

    async def leave(self, holder: int, lines: Sequence[Line], minutes: Sequence[Line]) -> None:
        await self.keep(
            holder, {line.key: line.held for line in lines}, {line.key: line.held for line in minutes}, whole=True
        )

    async def keep(
        self,
        holder: int,
        held: Mapping[Key, int],
        minutes: Mapping[Key, int],
        booked: Mapping[Key, int] | None = None,
        *,
        whole: bool,
    ) -> None:
        """`held` is what a holder has; with `whole` nothing else."""
        said = {
            "run": self._run, "holder": str(holder), "whole": whole, "ghost": f"{secrets.randbits(62)}",
            "keep": _pairs(held), "minutes": _pairs(minutes), "booked": _pairs(booked or {}),
        }  # fmt: skip
        await self._told(KEEP, said)

    async def held(self, holder: int) -> dict[Key, int]:
        found = await self._connection.call(HELD, self._run, str(holder))
        return {_key(name): int(amount) for name, amount in found} if found else {}

    async def members(self) -> list[int]:
        return await self._connection.members(self._run)

    async def _told(self, script: str, said: Mapping[str, Any]) -> Any:
        answer = await self._connection.call(script, self._run, msgspec.json.encode(said).decode())
        if answer["state"] == "lost":
            raise Lost("it has forgotten")
        return answer


@own_locks
def _booked(session: Any, wanted: Mapping[bool, Sequence[Key]]) -> tuple[dict[Key, int], dict[Key, int]]:
    """From the ledger, for limits that Redis doesn't know yet: what is booked, and what came in the last minute, of
    those that moved here with their holders and of new ones."""
    tables.lock(session, {tenant for keys in wanted.values() for tenant, _ in keys})
    at = tables.moment(session)
    booked: dict[Key, int] = {}
    recent: dict[Key, int] = {}
    for moved, keys in wanted.items():
        booked |= {key: booked for key, (booked, _) in tables.pools(session, keys, at, moved=moved).items()}
        recent |= tables.recently(session, keys, at, moved=moved)
    return booked, recent


def _line(line: Line) -> dict[str, str]:
    numbers = {"value": line.value, "held": line.held, "idle": line.idle, "least": line.least, "wish": line.wish,
               "slack": line.slack, "booked": line.booked}  # fmt: skip
    return {"key": SEPARATOR.join(line.key), **{name: str(number) for name, number in numbers.items()}}


def _pairs(amounts: Mapping[Key, int]) -> list[tuple[str, str]]:
    return [(SEPARATOR.join(key), str(amount)) for key, amount in amounts.items()]


def _reply(answer: Any) -> Reply:
    found = {
        _key(name): Found(int(granted), int(booked), int(others), int(idle), wanted)
        for name, granted, booked, others, idle, wanted in answer["found"]
    }
    claimed = {job: {_key(name): int(amount) for name, amount in held} for job, held in answer["claimed"]}
    return Reply(found, {job: held for job, held in claimed.items() if held})


def _key(name: str) -> Key:
    tenant, _, key = name.partition(SEPARATOR)
    return tenant, key
