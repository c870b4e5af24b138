"""What a search on PostgreSQL brings: everything that ranking needs, so that nothing has to be asked for afterwards."""

from typing import NamedTuple


class Found(NamedTuple):
    number: int  # of the chunk
    id: str
    words: float | None  # BM25, where it was looked for by words
    cosine: float | None  # where it has a vector
