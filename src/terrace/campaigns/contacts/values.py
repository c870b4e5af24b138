"""What people write into cells and forms, made into values that are kept. Runs in subprocesses too."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal

from terrace.campaigns.base import BUILT_IN, is_field
from terrace.errors import Invalid
from terrace.knowledge.naming import tidy

MAX_KEY = 320  # characters; the longest e-mail address there can be
MAX_PERSON = 300  # characters of a name
MAX_LIST = 100  # characters of a list's name

# Controls but tab and line end, bidi overrides, halves of surrogate pairs, marks of byte order.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_EMAIL = re.compile(r"[^@\s,;:<>()\[\]\"\\]{1,64}@[^@\s,;:<>()\[\]\"\\]{1,255}")


def clean(text: str) -> str:
    """NFC text with \\n as line end, without what cannot be seen, trimmed."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return unicodedata.normalize("NFC", _UNSEEN.sub("", _LINE_ENDS.sub("\n", text))).strip()


def clean_email(text: str) -> str:
    """Raises Invalid for what is no address; nothing is one."""
    email = clean(text)
    if email and not (_EMAIL.fullmatch(email) and len(email) <= MAX_KEY and ".." not in email):
        raise Invalid(f"{short(email)} is not an e-mail address.", code="bad_email")
    return email


def clean_key(text: str) -> str:
    """One line. Raises Invalid when there is nothing, or too much, of it."""
    key = " ".join(clean(text).split())
    if not key:
        raise Invalid("A contact needs a key: an e-mail address, or another value of its own.", code="key_missing")
    if len(key) > MAX_KEY:
        raise Invalid(f"A key has at most {MAX_KEY} characters; {short(key)} has {len(key):,}.", code="key_too_long")
    return key


def key_of(email: str) -> str:
    """Addresses are compared without their case."""
    return email.casefold()


def clean_name(text: str) -> str:
    name = " ".join(clean(text).split())
    if len(name) > MAX_PERSON:
        raise Invalid(f"A name has at most {MAX_PERSON} characters; {short(name)} has more.", code="name_too_long")
    return name


def clean_fields(given: Mapping[str, str], *, most: int, longest: int) -> dict[str, str]:
    """Empty values stay: they say that a field goes. Raises Invalid for names that are none, and too much."""
    for name in given:
        if name in BUILT_IN or not is_field(name):
            raise Invalid(
                f"{short(name)} cannot be a field: write letters, digits and underscores in lower case, and none of "
                f"{', '.join(BUILT_IN)}.",
                code="bad_field",
            )
    cleaned = {name: clean(value) for name, value in given.items()}
    check_size(cleaned, most=most, longest=longest)
    return cleaned


def check_size(fields: Mapping[str, str], *, most: int, longest: int) -> None:
    if len(fields) > most:
        raise Invalid(f"A contact has at most {most:,} fields; these are {len(fields):,}.", code="too_many_fields")
    for name, value in fields.items():
        if len(value) > longest:
            raise Invalid(
                f"The field {name!r} holds {len(value):,} characters; at most {longest:,} are kept.",
                code="field_too_long",
            )


def list_name(text: str) -> str:
    name = tidy(text)
    if not name or len(name) > MAX_LIST:
        raise Invalid(f"A list of contacts needs a name of 1 to {MAX_LIST} characters.", code="list_name")
    return name


def short(text: str) -> str:
    """In quotes, as much as a sentence bears."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def written(value: object) -> str:
    """A value of a spreadsheet or a database as a person would write it."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case float() | Decimal():
            return _number(value)
        case datetime():
            return _moment(value)
        case date() | time():
            return value.isoformat() if isinstance(value, date) else _clock(value)
        case timedelta():
            return _clock(value)
        case bytes() | bytearray() | memoryview():
            return _bytes(bytes(value))
        case dict() | list() | tuple():
            return _json(value)
    return str(value)


def _number(value: float | Decimal) -> str:
    """Without the noise of binary fractions, and without exponents where digits do."""
    if value != value or value in (float("inf"), float("-inf")):
        return ""
    text = format(value, ".15g") if isinstance(value, float) else format(value, "f")
    if "e" in text:
        exact = format(Decimal(text), "f")
        text = exact if len(exact) <= 40 else text
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _moment(value: datetime) -> str:
    if value.tzinfo is None and (value.hour, value.minute, value.second) == (0, 0, 0):
        return value.date().isoformat()
    text = value.isoformat(" ", "seconds")
    return text.removesuffix(":00") if value.tzinfo is None else text


def _clock(value: time | timedelta) -> str:
    if isinstance(value, timedelta):
        return str(value)
    return value.isoformat("seconds").removesuffix(":00") if value.tzinfo is None else value.isoformat("seconds")


def _bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value, enc_hook=written).decode()
