"""Text from outside, fit to be kept."""


def storable(text: str) -> str:
    """Without NUL (PostgreSQL keeps none) and halves of surrogate pairs (JSON can spell them, UTF-8 cannot)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "")
