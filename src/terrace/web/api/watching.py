"""A stream ends when whoever reads it may do so no longer; they may come back and say who they are."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from terrace.accounts.base import Caller
from terrace.errors import Denied, Missing, Unauthenticated
from terrace.types import now
from terrace.web.services import Services

T = TypeVar("T")


async def while_admitted(house: Services, me: Caller, items: AsyncIterator[T]) -> AsyncIterator[T]:
    """The items, as long as `me` may do all that they could when they asked."""
    checked = now()
    generator: Any = items
    async with aclosing(generator):
        async for item in items:
            try:
                checked = await house.gatekeeper.still(me, checked)
            except (Unauthenticated, Denied, Missing):
                return
            yield item
