"""Token estimates: of the right size for the world's scripts, and never silly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.models.tokens import estimate, estimate_messages


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("The quick brown fox jumps over the lazy dog.", 9, 13),
        ("def add(first, second):\n    return first + second\n", 11, 18),
        ("Съешь же ещё этих мягких французских булок", 15, 30),
        ("今日はとても天気がいいですね", 10, 20),
        ("🙂🙂🙂", 3, 9),
    ],
)
def test_an_estimate_is_near_what_tokenizers_say(text: str, low: int, high: int) -> None:
    assert low <= estimate(text) <= high


@given(st.text(max_size=200), st.text(max_size=200))
def test_an_estimate_grows_with_its_text(first: str, second: str) -> None:
    assert (estimate(first) == 0) == (first == "")
    assert max(estimate(first), estimate(second)) <= estimate(first + second) <= estimate(first) + estimate(second)


def test_messages_count_their_parts() -> None:
    plain = estimate_messages([{"role": "user", "content": "hello there"}])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with_image = estimate_messages([{"role": "user", "content": [{"type": "text", "text": "hello there"}, image]}])
    call = {"id": "1", "function": {"name": "weather", "arguments": "{}"}}
    assert plain > estimate("hello there")
    assert with_image > plain + 500
    assert estimate_messages([{"role": "assistant", "content": None, "tool_calls": [call]}]) > 5
