"""Headers that several resources understand."""

from typing import Annotated

from fastapi import Header

IdempotencyKey = Annotated[
    str | None, Header(max_length=200, description="Sent again with the same key, a request is carried out once.")
]
