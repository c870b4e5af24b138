"""A relayed stream may be cut into pieces anywhere; its events come out the same."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.web.openai.framing import MAX_EVENT_BYTES, Framer

USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}'
EVENTS = [
    b": keep-alive",
    b'data: {"choices":[],"prompt_filter_results":[]}',
    b'data: {"choices":[{"delta":{"content":"a [] b \\"usage\\""}}],"usage":null}',
    'data: {"choices":[{"delta":{"content":"é 😀 \\n\\n"}}]}'.encode(),
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}',
]


def events(end: bytes, *, usage: bool) -> bytes:
    return b"".join(event + end for event in [*EVENTS, *([USAGE] if usage else []), b"data: [DONE]"])


@given(st.sets(st.integers(1, 600), max_size=40), st.sampled_from([b"\n\n", b"\r\n\r\n"]), st.booleans())
def test_cut_anywhere(cuts: set[int], end: bytes, drop: bool) -> None:
    whole = events(end, usage=True)
    ends = [*sorted(cut for cut in cuts if cut < len(whole)), len(whole)]
    framer = Framer(drop_usage=drop)
    pieces = [framer.feed(whole[start:stop]) for start, stop in zip([0, *ends], ends, strict=False)]
    assert b"".join(pieces) + framer.rest == events(end, usage=not drop)
    assert all(piece.endswith(end) for piece in pieces if piece), "only whole events go on"
    assert framer.finished
    assert framer.usage is not None
    assert (framer.usage.input_tokens, framer.usage.output_tokens) == (7, 3)


def test_usage_beside_the_last_choice_is_read_and_kept() -> None:
    last = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    framer = Framer(drop_usage=True)
    piece = f"data: {last}\n\n".encode()
    assert framer.feed(piece) == piece
    framer.feed(b"data: [DONE]\n\n")
    assert framer.usage is not None
    assert framer.usage.input_tokens == 2


def test_a_stream_that_stops_short_is_not_finished() -> None:
    framer = Framer(drop_usage=True)
    framer.feed(b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n')
    assert not framer.finished


def test_an_event_without_end_does_not_fill_memory() -> None:
    framer = Framer(drop_usage=True)
    piece = b"x" * 100_000
    out = sum(len(framer.feed(piece)) for _ in range(100))
    assert 100 * len(piece) - out <= MAX_EVENT_BYTES + len(piece)


@pytest.mark.parametrize(
    ("words", "ratio"),
    [
        (["word "] * 500, 5 / 4),  # five characters: a little more than the token that each piece is
        (["a sentence of a provider that sends whole ones. "] * 100, 12.0),
        (["漢字かな"] * 100, 4.0),
        (["\\u6f22\\u5b57"] * 100, 2.0),
    ],
)
def test_tokens_that_nobody_told_are_counted_from_pieces_and_text(words: list[str], ratio: float) -> None:
    framer = Framer(drop_usage=False)
    framer.feed(b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n')
    for word in words:
        framer.feed(f'data: {{"id":"c","choices":[{{"index":0,"delta":{{"content":"{word}"}}}}]}}\n\n'.encode())
    assert len(words) * ratio * 0.95 <= framer.tokens <= len(words) * ratio * 1.05 + 10
