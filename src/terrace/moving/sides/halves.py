"""Vectors of float16 components, as bytes and as PostgreSQL sends and reads them."""

import struct
from functools import cache

HEAD = struct.Struct(">HH")  # dimensions, and nothing


def from_wire(sent: bytes) -> bytes:
    """What `halfvec_send` gives, as little-endian components."""
    import numpy as np

    return np.frombuffer(sent, ">f2", offset=HEAD.size).astype("<f2").tobytes()


def to_text(vector: bytes) -> str:
    """As PostgreSQL reads it: `[0.5,-1]`."""
    import numpy as np

    table = _texts()
    return "[" + ",".join([table[each] for each in np.frombuffer(vector, "<u2").tolist()]) + "]"


@cache
def _texts() -> list[str]:
    """Each of the 65,536 there are: five digits tell them apart."""
    import numpy as np

    return [f"{each:.5g}" for each in np.arange(65_536, dtype="<u2").view("<f2").tolist()]
