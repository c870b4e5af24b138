"""What a stream says besides its events."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from terrace.errors import Unavailable
from terrace.web.stream import respond


async def test_one_that_cannot_be_read_on_ends_whole_and_is_one_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def frames(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"data: 1\n\n"
        raise Unavailable("The database cannot be reached.", code="database_unreachable")

    for count in (0, 2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            said = [piece async for piece in respond(frames(count), asyncio.Event()).body_iterator]
        assert said[0] == b": connected\n\n"
        assert said[1:-1] == [b"data: 1\n\n"] * count
        assert bytes(said[-1]).startswith(b": The database cannot be reached. Come back"), (
            "a comment: no event is made up"
        )
        [record] = caplog.records
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert "cannot be reached" in record.getMessage()
