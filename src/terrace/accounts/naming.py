"""Names people give, of themselves and of tenants, and their e-mail addresses."""

import re
import unicodedata

from terrace.errors import Invalid

MAX_NAME = 100
MAX_EMAIL = 254  # RFC 5321
MAX_LOCAL = 64
MAX_LABEL = 63

# What makes text read in another order than it is written; the joiners that Persian and emoji need are left alone.
_TURNING = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_UNSEEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
_LOCAL = re.compile(r"[^\s\"(),:;<>@\[\\\]]+")


def person_name(given: str) -> str:
    """One line of it. Raises Invalid."""
    return _name(given, "Your name", "bad_name")


def tenant_name(given: str) -> str:
    """One line of it. Raises Invalid."""
    return _name(given, "A tenant's name", "bad_tenant_name")


def key_of(name: str) -> str:
    """The same for names that read the same: blind to case and to forms of letters."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def email_address(given: str) -> str:
    """As it is shown and written to: trimmed, international names kept. Raises Invalid.

    >>> email_address(" Ada@Example.org ")
    'Ada@Example.org'
    """
    if len(given) > 2 * MAX_EMAIL:
        raise _bad_email()
    email = unicodedata.normalize("NFKC", given.strip())
    local, at, domain = email.rpartition("@")
    if not at or len(email) > MAX_EMAIL or any(_unseen(character) for character in email):
        raise _bad_email()
    if len(local) > MAX_LOCAL or not _LOCAL.fullmatch(local) or local[0] == "." or local[-1] == "." or ".." in local:
        raise _bad_email()
    if not all(_is_label(label) for label in domain.split(".")):
        raise _bad_email()
    return email


def email_key(given: str) -> str:
    """What tells addresses apart: two accounts never have the same. Raises Invalid."""
    return key_of(email_address(given))


def _name(given: str, whose: str, code: str) -> str:
    if len(given) > 4 * MAX_NAME:
        raise Invalid(f"{whose} has at most {MAX_NAME} characters.", code=code)
    if any(_unseen(character) for character in given):
        raise Invalid(f"{whose} is one line of visible characters.", code=code)
    name = " ".join(unicodedata.normalize("NFC", given).split())
    if not any(unicodedata.category(character)[0] in "LNPS" for character in name):
        raise Invalid(f"{whose} may not be empty.", code=code)
    if len(name) > MAX_NAME:
        raise Invalid(f"{whose} has at most {MAX_NAME} characters.", code=code)
    return name


def _is_label(text: str) -> bool:
    """A part of a domain's name, in any script."""
    fit = all(
        each.isalnum() or each in _JOINERS or each == "-" or unicodedata.category(each)[0] == "M" for each in text
    )
    return fit and 0 < len(text) <= MAX_LABEL and text[0] != "-" != text[-1]


def _unseen(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in _UNSEEN


def _bad_email() -> Invalid:
    return Invalid("That is no e-mail address: write it as name@example.org.", code="bad_email")
