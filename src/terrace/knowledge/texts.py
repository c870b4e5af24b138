"""The text of a document as a blob of fixed-width characters, so that any span is one small read at a known place.

The width (1, 2 or 4 bytes: Latin-1, UTF-16, UTF-32) is the least that holds every character, as in PEP 393, and ends
the blob's key.
"""

from terrace.types import new_id

ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


def width_of(text: str) -> int:
    """Bytes a character."""
    if text.isascii():
        return 1
    highest = ord(max(text))
    return 1 if highest < 0x100 else 2 if highest < 0x10000 else 4


def encode(text: str) -> tuple[int, bytes]:
    """(width, bytes); `len(bytes) == width * len(text)`."""
    width = width_of(text)
    return width, text.encode(ENCODINGS[width], "strict" if width == 1 else "surrogatepass")


def decode(data: bytes, width: int) -> str:
    return data.decode(ENCODINGS[width], "strict" if width == 1 else "surrogatepass")


def folder(tenant: str, document_id: str) -> str:
    """Where the blobs of a document lie."""
    return f"{tenant}/documents/{document_id}"


def is_document(key: str) -> bool:
    """Whether a blob lies where those of documents do; other rooms keep theirs elsewhere."""
    return key.split("/")[1:2] == ["documents"]


def original_key(tenant: str, document_id: str) -> str:
    return f"{folder(tenant, document_id)}/original"


def text_key(tenant: str, document_id: str, width: int) -> str:
    """A new key each time: the old text serves until the new one takes its place."""
    return f"{folder(tenant, document_id)}/{new_id('txt')}.{width}"


def width_in(key: str) -> int:
    return int(key.rpartition(".")[2])
