"""Redis Streams: one stream of all processes' messages, each read by every process, held only as long as readers lag.

While Redis is away nothing is carried, and nothing is lost: the database wakes the others. It is asked again and again
whether it is back.
"""

import asyncio
import logging
import random
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from terrace.jobs.carriers.base import Ears
from terrace.jobs.carriers.messages import Outbox, hear
from terrace.jobs.journal import Notice
from terrace.stopping import ended
from terrace.types import moment, new_id, now

log = logging.getLogger(__name__)

KEPT = 2000  # messages in the stream, about: some seconds of them
COUNT = 100  # messages read at a time
BLOCK_MS = 1000
SILENCE_SECONDS = 3.0  # an answer that takes longer will not come
RETRY_SECONDS = (0.1, 2.0)  # between two tries to reach it: the first, the longest

AWAY = (RedisError, OSError)


class RedisCarrier:
    """Raises ValueError for a URL that is none."""

    def __init__(self, url: str, prefix: str) -> None:
        self._redis: Any = Redis.from_url(  # what it answers depends on the command
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=SILENCE_SECONDS,
            socket_connect_timeout=SILENCE_SECONDS,
        )
        self._stream = f"{prefix}:events"
        self._me = new_id("prc").encode()
        self._outbox = Outbox()
        self._some = asyncio.Event()
        self._up = asyncio.Event()
        self._away_since: float | None = None
        self._why = ""
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def carries(self) -> bool:
        return self._up.is_set()

    @property
    def state(self) -> str:
        if self.carries:
            return "ok: through Redis"
        if self._away_since is None:
            return "ok: through the database, until Redis is reached"
        since = moment(self._away_since).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"ok: through the database; Redis is away since {since} ({self._why})"

    def start(self, ears: Ears) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._listen_forever(ears), name="redis-listen"),
            loop.create_task(self._tell_forever(ears), name="redis-tell"),
        ]

    def tell(self, notice: Notice) -> None:
        if self.carries:  # else the database's own wake-up reaches who follows
            self._outbox.add(notice)
            self._some.set()

    async def close(self) -> None:
        await ended(*self._tasks)
        self._tasks = []
        await self._redis.aclose()

    # -- telling

    async def _tell_forever(self, ears: Ears) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                message = self._outbox.take()
                if message is not None and self.carries:
                    await self._add(message)
            except AWAY as error:
                self._gone(error, ears)
            except Exception:  # followers elsewhere read the table; this task must live on
                log.exception("telling other processes through Redis failed")

    async def _add(self, message: bytes) -> bytes:
        """Returns its place in the stream."""
        bound = ("MAXLEN", "~", KEPT)
        told = ("from", self._me, "told", message)
        place: bytes = await self._redis.execute_command("XADD", self._stream, *bound, "*", *told)
        return place

    # -- listening

    async def _listen_forever(self, ears: Ears) -> None:
        wait, longest = RETRY_SECONDS
        while True:
            try:
                place = await self._add(b"")  # whoever can write a message knows where it listens from
                self._come(ears)
                wait = RETRY_SECONDS[0]
                while self.carries:
                    place = await self._listen(place, ears)
            except AWAY as error:
                self._gone(error, ears)
            except Exception:
                log.exception("listening to Redis failed, trying again")
                self._up.clear()
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(wait * 2, longest)

    async def _listen(self, place: bytes, ears: Ears) -> bytes:
        """What others told after `place`; returns the last one's."""
        limits = ("COUNT", COUNT, "BLOCK", BLOCK_MS)
        streams = await self._redis.execute_command("XREAD", *limits, "STREAMS", self._stream, place)
        messages = streams[0][1] if streams else ()
        for _, fields in messages:
            if fields[b"from"] != self._me and fields[b"told"]:
                self._hear(fields[b"told"], ears)
        return messages[-1][0] if messages else place

    def _hear(self, message: bytes, ears: Ears) -> None:
        try:
            hear(message, ears)
        except msgspec.DecodeError as error:  # another version's: its events are in the table
            log.warning("a message in Redis could not be read: %s", error)
            ears.uncertain()

    # -- coming and going

    def _come(self, ears: Ears) -> None:
        if self._away_since is not None:
            log.warning("Redis is back after %.0f s; events go through it again", now() - self._away_since)
        self._away_since = None
        self._outbox.clear()
        self._up.set()
        ears.uncertain()

    def _gone(self, error: BaseException, ears: Ears) -> None:
        self._up.clear()
        self._outbox.clear()
        self._why = type(error).__name__
        if self._away_since is None:
            self._away_since = now()
            log.warning("Redis cannot be reached, events go through the database: %s", error)
        ears.uncertain()
