"""JSON as model servers write it: one that cuts its text anywhere may escape half of an emoji (`\\ud83d`)."""

import re
from typing import Any

import msgspec

_HALF = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def decode(data: bytes | bytearray | str) -> Any:
    """The value, lone surrogates as U+FFFD. Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        whole = _HALF.sub(lambda match: match[1] or rb"\ufffd", raw)
        if whole == raw:
            raise
        return msgspec.json.decode(whole)
