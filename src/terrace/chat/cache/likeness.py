"""How alike questions are."""

from collections.abc import Sequence

from terrace.chat.cache.base import Candidate


def alike(vector: bytes, candidates: Sequence[Candidate], similarity: float) -> list[Candidate]:
    """Those with this cosine or more, most alike first. Vectors have length 1."""
    import numpy as np

    wanted = np.frombuffer(vector, np.float32)
    same = [each for each in candidates if len(each.vector) == len(vector)]
    if not same:
        return []
    cosines = np.frombuffer(b"".join(each.vector for each in same), np.float32).reshape(len(same), -1) @ wanted
    order = np.argsort(-cosines, kind="stable")
    return [same[place] for place in order if cosines[place] >= similarity]


def as_bytes(vector: object) -> bytes:
    import numpy as np

    return np.asarray(vector, np.float32).tobytes()
