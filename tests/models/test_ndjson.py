"""JSON lines: any cut gives the same objects, what is none is refused."""

import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Unavailable
from terrace.models.ndjson import objects


async def pieces_of(stream: bytes, places: list[int]) -> AsyncIterator[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    for start, end in itertools.pairwise(edges):
        yield stream[start:end]


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9) | st.integers(-9, 9), max_size=3), max_size=6),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.lists(st.integers(0, 999), max_size=8),
    st.booleans(),
)
async def test_any_cut_gives_the_same_objects(values: list[dict], eol: str, places: list[int], last: bool) -> None:  # type: ignore[type-arg]
    stream = eol.join(json.dumps(value, ensure_ascii=False) for value in values) + (eol if last else "")
    assert [found async for found in objects(pieces_of(stream.encode(), places))] == values


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b'"text"', b"{", b"\xff"])
async def test_a_line_that_is_no_object_is_refused(line: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        assert [found async for found in objects(pieces_of(b'{"a": 1}\n' + line + b"\n", []))] == []
    assert caught.value.code == "upstream_nonsense"


async def test_a_line_without_end_is_cut_off() -> None:
    with pytest.raises(Unavailable) as caught:
        assert [found async for found in objects(pieces_of(b"x" * 200, [50, 100, 150]), limit=100)] == []
    assert caught.value.code == "upstream_too_large"
