"""How lists are paged: `?limit=&cursor=` in, `{items, next}` out."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from terrace.errors import bad_cursor

T = TypeVar("T")

Names = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
Limit = Annotated[int, Query(ge=1, le=200)]
_QUERY: Any = Query(max_length=500, description="`next` of the page before.")


def _written(form: str) -> Callable[[str | None], str | None]:
    """What was never given out must not look like the end of a list, or its beginning."""
    ours = re.compile(form)

    def check(cursor: str | None) -> str | None:
        if cursor is None or ours.fullmatch(cursor):
            return cursor
        raise bad_cursor()

    return check


Cursor = Annotated[str | None, _QUERY]  # that the list itself looks at
IdCursor = Annotated[str | None, AfterValidator(_written(r"[a-z]{2,5}_[0-9a-z_-]{1,60}")), _QUERY]
NumberCursor = Annotated[str | None, AfterValidator(_written(r"[0-9]{1,9}")), _QUERY]
HashCursor = Annotated[str | None, AfterValidator(_written(r"[0-9a-f]{64}")), _QUERY]


class Page(BaseModel, Generic[T]):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    items: Sequence[T]
    next: str | None = None
