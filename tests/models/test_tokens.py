"""Token estimates: of the right size for the world's scripts, and never silly."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.models.tokens import IMAGE_BOUND, bound, bound_messages, estimate, estimate_messages


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


def request(*content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(content)}]


@given(st.text(max_size=300))
def test_a_bound_is_never_below_the_estimate(text: str) -> None:
    messages = [{"role": "user", "content": text}]
    assert bound_messages(messages) >= estimate_messages(messages)
    assert bound(json.dumps({"messages": messages}).encode()) >= estimate_messages(messages)


def test_bounds_by_what_is_written() -> None:
    assert bound(b"x" * 10) == 10
    assert bound(b"x" * 1000) == 564
    assert bound("日本".encode() * 100) == 600


def test_images_count_by_their_own_rule_however_many_bytes_they_are() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.org/picture.png"}}
    text = {"type": "text", "text": "What is on it?"}
    for content, images in ([picture, text], 1), ([picture, linked, text], 2):
        body = json.dumps({"model": "m", "messages": request(*content)}).encode()
        for found in (bound(body), bound_messages(request(*content))):
            assert images * IMAGE_BOUND < found < images * IMAGE_BOUND + 250


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": '{"image_url": {"url": "data:image/png;base64,' + "A" * 9000}]},
        {"messages": [], "tools": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}]},
        {"messages": "image_url" + "A" * 9000},
        {"messages": [7, {"content": [8, {"type": "image_url"}]}, {"content": "A" * 9000}]},
    ],
    ids=["text", "tools", "nonsense", "mixed"],
)
def test_only_images_of_messages_are_images(body: dict[str, object]) -> None:
    assert bound(json.dumps(body).encode()) > 4500
    assert bound(b'"image_url' + b"A" * 9000) > 4500
