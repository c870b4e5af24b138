"""Vectors of float16 components, as bytes and as PostgreSQL sends and takes them."""

import struct

HEAD = struct.Struct(">HH")  # dimensions, and nothing


def from_wire(sent: bytes) -> bytes:
    """What `halfvec_send` gives, as little-endian components."""
    import numpy as np

    return np.frombuffer(sent, ">f2", offset=HEAD.size).astype("<f2").tobytes()


def to_wire(vector: bytes) -> bytes:
    """What `halfvec_recv` takes."""
    import numpy as np

    return HEAD.pack(len(vector) // 2, 0) + np.frombuffer(vector, "<f2").astype(">f2").tobytes()
