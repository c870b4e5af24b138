"""Errors by kind. A kind says what the caller can do about it; doors map it to their own words.

    TerraceError
    ├── Invalid          the request is wrong; changing it helps        (400 / 413 / 415 / 422, exit 2)
    ├── Unauthenticated  say who you are                                (401, exit 3)
    ├── Denied           you may not                                    (403, exit 3)
    ├── Missing          no such thing, or not yours                    (404, exit 4)
    ├── Conflict         it clashes with what is there                  (409, exit 5)
    ├── Limited          too much for now; `retry_after` says when      (429, exit 6)
    ├── Unavailable      something we need is away; later may help      (503, exit 7)
    └── Internal         our fault                                      (500, exit 1)

`web` maps kinds to problem details (RFC 9457), `cli` to exit codes, `jobs` to retry or not.
"""

import sys
from typing import ClassVar, Literal

Kind = Literal[
    "invalid",
    "unauthenticated",
    "denied",
    "missing",
    "conflict",
    "limited",
    "unavailable",
    "internal",
]


class TerraceError(Exception):
    """A failure with a sentence a person can act on.

    `message` is shown to users, so it never holds a secret. `code` is a stable machine-readable
    name such as `document_encrypted`; `status` refines the HTTP status within the kind; `extra`
    goes into the problem document as it is.
    """

    kind: ClassVar[Kind] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        **extra: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.kind
        self.status = status
        self.retry_after = retry_after
        self.extra = extra


class Invalid(TerraceError):
    kind = "invalid"


class Unauthenticated(TerraceError):
    kind = "unauthenticated"


class Denied(TerraceError):
    kind = "denied"


class Missing(TerraceError):
    kind = "missing"


class Conflict(TerraceError):
    kind = "conflict"


class Limited(TerraceError):
    kind = "limited"
    retryable = True


class Unavailable(TerraceError):
    kind = "unavailable"
    retryable = True


class Internal(TerraceError):
    kind = "internal"
    retryable = True


BY_KIND: dict[str, type[TerraceError]] = {
    each.kind: each for each in (Invalid, Unauthenticated, Denied, Missing, Conflict, Limited, Unavailable, Internal)
}
"""For those who read an error that was written down, such as a job's."""


def bring(extra: str) -> str:
    """What to run for an extra that is not installed. With this very Python, which knows whose Terrace is meant:
    another one would fetch a package of that name that is not ours."""
    return f"{sys.executable} -m pip install 'terrace[{extra}]'"


def bad_cursor() -> Invalid:
    """Where a page was asked for by what no page before named."""
    return Invalid("This cursor is not one of ours; start from the first page.", code="bad_cursor")
