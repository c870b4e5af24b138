"""How the server and the embedding process talk: frames over a pipe.

A frame is two little-endian u32 (header bytes, body bytes), a msgpack header and a raw body. A body is
float32 rows. The first frame is the child's `Hello`; afterwards each `Ask` gets one `Answer`, in any order.
"""

import struct
from typing import Literal

import msgspec

PREFIX = struct.Struct("<II")
MAX_HEADER = 64 * 1024 * 1024


class Model(msgspec.Struct, frozen=True):
    """What the child is to load; travels as its one argument, in JSON."""

    source: Literal["builtin", "folder", "hub"]
    model: str  # a name, a folder or a hub id
    precision: str
    data: str  # where prepared models are kept
    threads: int
    batch_tokens: int
    hub: str = ""
    weights: str = ""  # builtin: the folder of the installed weights


class Hello(msgspec.Struct):
    dimensions: int = 0
    absent: str = ""  # why the model cannot be had; the child then ends


class Ask(msgspec.Struct):
    id: int
    op: Literal["embed", "count"]
    texts: list[str]
    query: bool = False


class Answer(msgspec.Struct):
    id: int
    counts: list[int] = []
    error: str = ""


_encoder = msgspec.msgpack.Encoder()


def frame(header: msgspec.Struct, body: bytes | memoryview = b"") -> bytes:
    head = _encoder.encode(header)
    return b"".join((PREFIX.pack(len(head), len(body)), head, body))
