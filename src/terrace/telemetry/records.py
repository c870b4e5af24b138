"""A call as it stands in the journal and, for good, in the pages of the ledger: numbers at fixed places, then names."""

import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from terrace.telemetry.calls import Operation, Outcome

SLOT = 512  # bytes

FREE, OPEN, ENDED = 0, 1, 2
_OPERATIONS: tuple[Operation, ...] = ("chat", "embed")
_OUTCOMES: tuple[Outcome, ...] = ("ok", "cancelled", "error", "lost")
OPERATION = {name: number for number, name in enumerate(_OPERATIONS)}
OUTCOME = {name: number for number, name in enumerate(_OUTCOMES)}
_ERROR, _LOST = OUTCOME["error"], OUTCOME["lost"]
NOT_TOLD = -1.0  # no first token
UNPRICED = -1

TEXT = 320  # bytes for names; what comes before is numbers
# After the state: operation, length of the names, sequence, start, reserved input, output, cost, date of the price.
# Then comes room for the end, then the names. What an earlier call left behind them is never looked at.
BEGIN = struct.Struct("<BH4xQdQQq10s")
# Sequence, outcome, estimated, input, cached, output, cost, duration, first token, date of the price, error code.
END = struct.Struct("<QBB6xQQQqdd10s40s")
END_AT = 64
_NUMBERS = struct.Struct("<BxH4xQdQQq16xQBx6xQQQq")  # of both, what is added up
_LENGTH = struct.Struct("<H")
_LENGTH_AT = 2
SEQUENCE = struct.Struct("<Q")
SEQUENCE_AT = 8
NAMES_AT = SLOT - TEXT
assert 1 + BEGIN.size <= END_AT
assert END_AT + END.size <= NAMES_AT


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


def record(slot: bytes) -> bytes:
    """A busy slot without what an earlier call left in it: what is kept of a call for good."""
    return slot[: NAMES_AT + _LENGTH.unpack_from(slot, _LENGTH_AT)[0]]


def sequence(record: bytes) -> int:
    """What tells a call from all others of its journal."""
    number: int = SEQUENCE.unpack_from(record, SEQUENCE_AT)[0]
    return number


def pack(records: Iterable[bytes]) -> bytes:
    """A page of calls. They repeat each other: a tenth of their length is left."""
    return zlib.compress(b"".join(records), 1)


def unpack(page: bytes) -> Iterator[bytes]:
    """The records of a page."""
    calls, at = zlib.decompress(page), 0
    while at < len(calls):
        end = at + NAMES_AT + _LENGTH.unpack_from(calls, at + _LENGTH_AT)[0]
        yield calls[at:end]
        at = end


def nameless(record: bytes, users: Collection[str]) -> bytes:
    """The call without user, key and job, if it was one of theirs."""
    tenant, user, _, _, provider, model = record[NAMES_AT:].split(b"\0", 5)
    if user.decode() not in users:
        return record
    names = b"\0".join((tenant, b"", b"", b"", provider, model))
    changed = bytearray(record[:NAMES_AT] + names)
    _LENGTH.pack_into(changed, _LENGTH_AT, len(names))
    return bytes(changed)


def numbers(record: bytes) -> tuple[bytes, float, bool, bool, int, int, int, int | None]:
    """What adding up needs of a call: its names (for `apart`), when it began, whether it was lost, or failed, its
    tokens read, cached and written, and its cost. Of what came to no end, the reservation."""
    state, length, sequence, started, read, written, cost, of, outcome, *ended = _NUMBERS.unpack_from(record)
    if state == ENDED and of == sequence:
        read, cached, written, cost = ended
    else:
        outcome, cached = _LOST, 0
    return (
        record[NAMES_AT : NAMES_AT + length], started, outcome == _LOST, outcome >= _ERROR,
        read, min(cached, read), written, None if cost == UNPRICED else cost,
    )  # fmt: skip


def decode(record: bytes, journal: int) -> Entry:
    """The whole call: what came to an end as it was, what did not as its reservation."""
    operation, length, sequence, started, read, written, cost, dated = BEGIN.unpack_from(record, 1)
    outcome, estimated, cached, duration, first_token, code = _LOST, True, 0, 0.0, NOT_TOLD, b""
    ended = END.unpack_from(record, END_AT)
    if record[0] == ENDED and ended[0] == sequence:
        _, outcome, estimated, read, cached, written, cost, duration, first_token, dated, code = ended
    return Entry(
        f"{id_at(started)}{journal:010x}{sequence:010x}",
        *apart(record[NAMES_AT : NAMES_AT + length]),
        _OPERATIONS[operation],
        _OUTCOMES[outcome],
        _text(code),
        read,
        min(cached, read),
        written,
        bool(estimated),
        None if cost == UNPRICED else cost,
        _text(dated) or None,
        started,
        duration,
        None if first_token == NOT_TOLD else first_token,
    )


@lru_cache(maxsize=1024)  # callers and models repeat
def apart(names: bytes) -> tuple[str, str | None, str | None, str | None, str, str]:
    """Tenant, user, key, job, provider, model."""
    tenant, user, key, job, provider, model = names.decode(errors="replace").split("\0", 5)
    return tenant, user or None, key or None, job or None, provider, model.replace("\0", "\ufffd")


def id_at(moment: float) -> str:
    """Ids of calls begun before `moment` sort before it, the others after it."""
    return f"use_{max(0, int(moment * 1000)):012x}"


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode(errors="replace").replace("\0", "\ufffd")
