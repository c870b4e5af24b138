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
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from terrace.errors import Internal, Unavailable
from terrace.telemetry.calls import Call, Demand, Operation, Outcome
from terrace.types import Scope

log = logging.getLogger(__name__)

SLOT = 512  # bytes
STEP = 1024  # slots the file grows by
MOST = 200_000  # slots; 100 MB, and then calls are refused
SUFFIX = ".journal"
MAX_TOKENS = 10**9  # of one call, in either direction; a provider that tells more is not believed
MAX_COST = 10**17  # picodollars of one call

_FREE, _OPEN, _ENDED = 0, 1, 2
_OPERATIONS: tuple[Operation, ...] = ("chat", "embed")
_OUTCOMES: tuple[Outcome, ...] = ("ok", "cancelled", "error", "lost")
_OPERATION = {name: number for number, name in enumerate(_OPERATIONS)}
_OUTCOME = {name: number for number, name in enumerate(_OUTCOMES)}
_ERROR, _LOST = _OUTCOME["error"], _OUTCOME["lost"]
_NOT_TOLD = -1.0  # no first token
_UNPRICED = -1

_TEXT = 320  # bytes for names; what comes before is numbers
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"TRCJRNL1"
# After the state: operation, length of the names, sequence, start, reserved input, output, cost, date of the price.
# Then comes room for the end, then the names. What an earlier call left behind them is never looked at.
_BEGIN = struct.Struct("<BH4xQdQQq10s")
# Sequence, outcome, estimated, input, cached, output, cost, duration, first token, date of the price, error code.
_END = struct.Struct("<QBB6xQQQqdd10s40s")
_END_AT = 64
_NUMBERS = struct.Struct("<BxH4xQdQQq16xQBx6xQQQq")  # of both, what is added up
_LENGTH = struct.Struct("<H")
_LENGTH_AT = 2
_SEQUENCE = struct.Struct("<Q")
_SEQUENCE_AT = 8
_NAMES_AT = SLOT - _TEXT
assert 1 + _BEGIN.size <= _END_AT
assert _END_AT + _END.size <= _NAMES_AT


class Entry(NamedTuple):
    """One call as it stands in the books."""

    id: str
    tenant_id: str
    user_id: str | None
    key_id: str | None
    job_id: str | None
    provider: str
    model: str
    operation: Operation
    outcome: Outcome
    code: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: bool
    cost: int | None  # picodollars; None: nobody told the price
    price_dated: str | None
    started_at: float
    duration: float
    first_token: float | None


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
        _BEGIN.pack_into(
            map, at + 1, _OPERATION[demand.operation], len(names), self._sequence, started,
            min(max(reserved_input, 0), MAX_TOKENS), min(max(reserved_output, 0), MAX_TOKENS),
            _UNPRICED if reserved_cost is None else min(max(reserved_cost, 0), MAX_COST),
            b"" if price_dated is None else price_dated.encode(),
        )  # fmt: skip
        map[at + _NAMES_AT : at + _NAMES_AT + len(names)] = names
        map[at] = _OPEN
        self._unused.pop()
        return slot

    def end(self, slot: int, call: Call, cost: int | None, price_dated: str | None) -> bool:
        """What the call came to; whether the slot was open."""
        map, at = self._maps[slot // STEP], slot % STEP * SLOT
        if map[at] != _OPEN:
            return False
        usage = call.usage
        read, cached, written, estimated = (
            (0, 0, 0, False)
            if usage is None
            else (usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.estimated)
        )
        _END.pack_into(
            map, at + _END_AT, _SEQUENCE.unpack_from(map, at + _SEQUENCE_AT)[0], _OUTCOME[call.outcome], estimated,
            min(max(read, 0), MAX_TOKENS), min(max(cached, 0), MAX_TOKENS), min(max(written, 0), MAX_TOKENS),
            _UNPRICED if cost is None else min(max(cost, 0), MAX_COST),
            call.duration, _NOT_TOLD if call.first_token is None else call.first_token,
            b"" if price_dated is None else price_dated.encode(), call.code.encode(errors="replace"),
        )  # fmt: skip
        map[at] = _ENDED
        return True

    def read(self, slots: Iterable[int]) -> list[bytes]:
        """Copies of slots."""
        return [self._maps[slot // STEP][(at := slot % STEP * SLOT) : at + SLOT] for slot in slots]

    def free(self, slots: Iterable[int]) -> None:
        """Their calls are booked."""
        for slot in slots:
            self._maps[slot // STEP][slot % STEP * SLOT] = _FREE
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


def record(slot: bytes) -> bytes:
    """A busy slot without what an earlier call left in it: what is kept of a call for good."""
    return slot[: _NAMES_AT + _LENGTH.unpack_from(slot, _LENGTH_AT)[0]]


def sequence(record: bytes) -> int:
    """What tells a call from all others of its journal."""
    number: int = _SEQUENCE.unpack_from(record, _SEQUENCE_AT)[0]
    return number


def pack(records: Iterable[bytes]) -> bytes:
    """A page of calls. They repeat each other: a tenth of their length is left."""
    return zlib.compress(b"".join(records), 1)


def unpack(page: bytes) -> Iterator[bytes]:
    """The records of a page."""
    calls, at = zlib.decompress(page), 0
    while at < len(calls):
        end = at + _NAMES_AT + _LENGTH.unpack_from(calls, at + _LENGTH_AT)[0]
        yield calls[at:end]
        at = end


def nameless(record: bytes, users: Collection[str]) -> bytes:
    """The call without user, key and job, if it was one of theirs."""
    tenant, user, _, _, provider, model = record[_NAMES_AT:].split(b"\0", 5)
    if user.decode() not in users:
        return record
    names = b"\0".join((tenant, b"", b"", b"", provider, model))
    changed = bytearray(record[:_NAMES_AT] + names)
    _LENGTH.pack_into(changed, _LENGTH_AT, len(names))
    return bytes(changed)


def numbers(record: bytes) -> tuple[bytes, float, bool, bool, int, int, int, int | None]:
    """What adding up needs of a call: its names (for `apart`), when it began, whether it was lost, or failed, its
    tokens read, cached and written, and its cost. Of what came to no end, the reservation."""
    state, length, sequence, started, read, written, cost, of, outcome, *ended = _NUMBERS.unpack_from(record)
    if state == _ENDED and of == sequence:
        read, cached, written, cost = ended
    else:
        outcome, cached = _LOST, 0
    return (
        record[_NAMES_AT : _NAMES_AT + length], started, outcome == _LOST, outcome >= _ERROR,
        read, min(cached, read), written, None if cost == _UNPRICED else cost,
    )  # fmt: skip


def decode(record: bytes, journal: int) -> Entry:
    """The whole call: what came to an end as it was, what did not as its reservation."""
    operation, length, sequence, started, read, written, cost, dated = _BEGIN.unpack_from(record, 1)
    outcome, estimated, cached, duration, first_token, code = _LOST, True, 0, 0.0, _NOT_TOLD, b""
    ended = _END.unpack_from(record, _END_AT)
    if record[0] == _ENDED and ended[0] == sequence:
        _, outcome, estimated, read, cached, written, cost, duration, first_token, dated, code = ended
    return Entry(
        f"{id_at(started)}{journal:010x}{sequence:010x}",
        *apart(record[_NAMES_AT : _NAMES_AT + length]),
        _OPERATIONS[operation],
        _OUTCOMES[outcome],
        _text(code),
        read,
        min(cached, read),
        written,
        bool(estimated),
        None if cost == _UNPRICED else cost,
        _text(dated) or None,
        started,
        duration,
        None if first_token == _NOT_TOLD else first_token,
    )


@lru_cache(maxsize=1024)  # callers and models repeat
def apart(names: bytes) -> tuple[str, str | None, str | None, str | None, str, str]:
    """Tenant, user, key, job, provider, model."""
    tenant, user, key, job, provider, model = names.decode(errors="replace").split("\0", 5)
    return tenant, user or None, key or None, job or None, provider, model.replace("\0", "\ufffd")


def id_at(moment: float) -> str:
    """Ids of calls begun before `moment` sort before it, the others after it."""
    return f"use_{max(0, int(moment * 1000)):012x}"


def _names(scope: Scope, demand: Demand) -> bytes:
    """Who and what. A model's name may come from a client and be anything: it stands last and is cut."""
    model = demand.model
    names = f"{scope.tenant}\0{scope.user or ''}\0{scope.key or ''}\0{scope.job or ''}\0{demand.provider}\0{model}"
    encoded = names.encode(errors="replace")
    if len(encoded) <= _TEXT:
        return encoded
    before = len(encoded) - len(model.encode(errors="replace"))
    if before + 4 > _TEXT:
        raise Internal("The names of tenant, user, key, job and provider are too long to be booked.")
    return encoded[: _TEXT - 3].decode(errors="ignore").encode() + "…".encode()


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace").replace("\0", "\ufffd")


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
        slots += [piece[at : at + SLOT] for at in whole if piece[at] in (_OPEN, _ENDED) and start + at]
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
