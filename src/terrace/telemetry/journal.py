"""Model calls under way, in a file of fixed slots mapped into memory: what a process knew is there after its death.

A slot is written when a call begins and again when it ends; it is free once the call's row is durable elsewhere.
Writing is a copy into the page cache, which outlives `kill -9`. Each process has a file of its own and holds a lock on
it; a file whose lock is free belongs to a dead process, and whoever takes the lock takes it over.

A slot's state is its first byte and is written last: what was cut off while being written counts as what it was before.
A slot is as long as a disk's sector, so that a power cut leaves an older slot but no mixture of two.
"""

import errno
import fcntl
import logging
import mmap
import os
import secrets
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from terrace.errors import Internal, Unavailable
from terrace.telemetry.calls import Call, Demand
from terrace.telemetry.records import (
    BEGIN,
    END,
    END_AT,
    ENDED,
    FREE,
    NAMES_AT,
    NOT_TOLD,
    OPEN,
    OPERATION,
    OUTCOME,
    SEQUENCE,
    SEQUENCE_AT,
    SLOT,
    TEXT,
    UNPRICED,
)
from terrace.types import Scope

log = logging.getLogger(__name__)

STEP = 1024  # slots the file grows by
MOST = 200_000  # slots; 100 MB, and then calls are refused
SUFFIX = ".journal"
MAX_TOKENS = 10**9  # of one call, in either direction; a provider that tells more is not believed
MAX_COST = 10**17  # picodollars of one call

_HEADER = struct.Struct("<8sQ")
_MAGIC = b"TRCJRNL1"


class Journal:
    """This process's file. Used by one thread."""

    def __init__(self, folder: Path, *, most: int = MOST) -> None:
        """Raises Unavailable when the folder cannot be written to or the disk is full."""
        self.id = secrets.randbits(40)
        self.path = folder / f"{os.getpid()}-{self.id:010x}{SUFFIX}"
        self._most = most
        self._maps: list[mmap.mmap] = []
        self._unused: list[int] = []  # the last freed is taken first: few pages are touched
        self._sequence = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = _create(self.path)
            self._head()
        except OSError as error:
            raise _told(error) from error

    @property
    def busy(self) -> int:
        """Slots that are not free."""
        return max(0, len(self._maps) * STEP - 1) - len(self._unused)

    def begin(
        self,
        scope: Scope,
        demand: Demand,
        started: float,
        reserved_input: int,
        reserved_output: int,
        reserved_cost: int | None,
        price_dated: str | None,
    ) -> int:
        """The slot that now holds the call with its reservation. Raises Unavailable when there is no room."""
        if not self._unused:
            self._extend()
        slot = self._unused[-1]
        names = _names(scope, demand)
        self._sequence += 1
        map, at = self._maps[slot // STEP], slot % STEP * SLOT
        BEGIN.pack_into(
            map, at + 1, OPERATION[demand.operation], len(names), self._sequence, started,
            min(max(reserved_input, 0), MAX_TOKENS), min(max(reserved_output, 0), MAX_TOKENS),
            UNPRICED if reserved_cost is None else min(max(reserved_cost, 0), MAX_COST),
            b"" if price_dated is None else price_dated.encode(),
        )  # fmt: skip
        map[at + NAMES_AT : at + NAMES_AT + len(names)] = names
        map[at] = OPEN
        self._unused.pop()
        return slot

    def end(self, slot: int, call: Call, cost: int | None, price_dated: str | None) -> bool:
        """What the call came to; whether the slot was open."""
        map, at = self._maps[slot // STEP], slot % STEP * SLOT
        if map[at] != OPEN:
            return False
        usage = call.usage
        read, cached, written, estimated = (
            (0, 0, 0, False)
            if usage is None
            else (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.estimated)
        )
        END.pack_into(
            map, at + END_AT, SEQUENCE.unpack_from(map, at + SEQUENCE_AT)[0], OUTCOME[call.outcome], estimated,
            min(max(read, 0), MAX_TOKENS), min(max(cached, 0), MAX_TOKENS), min(max(written, 0), MAX_TOKENS),
            UNPRICED if cost is None else min(max(cost, 0), MAX_COST),
            call.duration, NOT_TOLD if call.first_token is None else call.first_token,
            b"" if price_dated is None else price_dated.encode(), call.code.encode(errors="replace"),
        )  # fmt: skip
        map[at] = ENDED
        return True

    def read(self, slots: Iterable[int]) -> list[bytes]:
        """Copies of slots."""
        return [self._maps[slot // STEP][(at := slot % STEP * SLOT) : at + SLOT] for slot in slots]

    def free(self, slots: Iterable[int]) -> None:
        """Their calls are booked."""
        for slot in slots:
            self._maps[slot // STEP][slot % STEP * SLOT] = FREE
            self._unused.append(slot)

    def close(self) -> None:
        """Give the lock up. The file goes when it is empty, and else waits for whoever takes it over."""
        empty = self.busy == 0
        for map in self._maps:
            map.close()
        if empty:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _head(self) -> None:
        """The first step, whose first slot says what file this is, power cut or not."""
        try:
            self._grow()
            self._unused.remove(0)
            _HEADER.pack_into(self._maps[0], 0, _MAGIC, self.id)
            self._maps[0].flush()
        except OSError:
            self.close()
            raise

    def _extend(self) -> None:
        if (len(self._maps) + 1) * STEP > max(self._most, STEP):
            raise Unavailable(
                f"{self.busy:,} model calls wait to be booked, as many as may. "
                "Have the operator look at the database: until it takes them, no more calls are made.",
                code="ledger_full",
                retry_after=5,
            )
        try:
            self._grow()
        except OSError as error:
            raise _told(error) from error

    def _grow(self) -> None:
        """One step more. The blocks are reserved first: a full disk is an error here, never a SIGBUS later."""
        start, length = len(self._maps) * STEP * SLOT, STEP * SLOT
        _reserve(self._descriptor, start, length)
        self._maps.append(mmap.mmap(self._descriptor, length, offset=start))
        first = start // SLOT
        self._unused.extend(range(first + STEP - 1, first - 1, -1))


class Leftover:
    """A dead process's file, locked by us until `remove` or `close`."""

    def __init__(self, path: Path, descriptor: int, journal: int, slots: list[bytes]) -> None:
        self.path = path
        self.journal = journal  # id
        self.slots = slots
        self._descriptor = descriptor

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._descriptor)


def leftovers(folder: Path) -> Iterator[Leftover]:
    """Each file that nobody holds; close one before the next is asked for. Raises Unavailable."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if (descriptor := _take(path)) is None:
                continue
            journal, slots = _content(descriptor)
        except OSError as error:
            raise _told(error) from error
        if journal is None:
            log.error("%s is not a journal of model calls that this version can read; it is left as it is", path)
            os.close(descriptor)
        else:
            yield Leftover(path, descriptor, journal, slots)


def is_held(folder: Path, journal: int) -> bool:
    """Whether a process on this machine has that journal open."""
    for path in folder.glob(f"*-{journal:010x}{SUFFIX}"):
        with suppress(FileNotFoundError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                os.close(descriptor)
    return False


def _names(scope: Scope, demand: Demand) -> bytes:
    """Who and what. A model's name may come from a client and be anything: it stands last and is cut."""
    model = demand.model
    names = f"{scope.tenant}\0{scope.user or ''}\0{scope.key or ''}\0{scope.job or ''}\0{demand.provider}\0{model}"
    encoded = names.encode(errors="replace")
    if len(encoded) <= TEXT:
        return encoded
    before = len(encoded) - len(model.encode(errors="replace"))
    if before + 4 > TEXT:
        raise Internal("The names of tenant, user, key, job and provider are too long to be booked.")
    return encoded[: TEXT - 3].decode(errors="ignore").encode() + "…".encode()


# -- files


def _create(path: Path) -> int:
    """A locked file. It gets its name once it is locked, so that nobody takes it for a dead process's."""
    aside = path.with_suffix(".new")
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(aside, path)
    except BaseException:
        os.close(descriptor)
        aside.unlink(missing_ok=True)
        raise
    return descriptor


def _reserve(descriptor: int, start: int, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, start, length)
    else:  # macOS
        os.pwrite(descriptor, bytes(length), start)


def _take(path: Path) -> int | None:
    """The locked file, or None when somebody else has it, or has just done away with it."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink:
            return descriptor
    os.close(descriptor)
    return None


def _content(descriptor: int) -> tuple[int | None, list[bytes]]:
    """The journal's id (None: it is none) and its busy slots. A file that died before it had a header has none."""
    head = os.pread(descriptor, SLOT, 0)
    magic, journal = _HEADER.unpack_from(head.ljust(SLOT, b"\0"))
    if magic != _MAGIC:
        return (None if any(head) else 0), []
    slots = []
    for start in range(0, os.fstat(descriptor).st_size, STEP * SLOT):
        piece = os.pread(descriptor, STEP * SLOT, start)
        whole = range(0, len(piece) - SLOT + 1, SLOT)
        slots += [piece[at : at + SLOT] for at in whole if piece[at] in (OPEN, ENDED) and start + at]
    return journal, slots


def _told(error: OSError) -> Unavailable:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Unavailable(
            "The disk is full, so model calls cannot be booked and none are made. Free some space.", code="disk_full"
        )
    return Unavailable(
        f"The journal of model calls cannot be written: {error.strerror or 'unknown reason'}. "
        "Look at the folder `usage` in the data folder.",
        code="journal_unwritable",
    )
