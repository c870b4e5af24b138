"""The event stream parser: the standard's examples, and the same events however the bytes are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Unavailable
from terrace.models.sse import Event, Parser

# Lines that mean something, nothing, or almost something.
LINE = st.sampled_from([
    b"data: x", b"data:x", b"data:  two spaces", b"data", b"data:", b"event: ping", b"event", b"id: 7", b"id",
    b"id: a\0b", b"retry: 10", b"retry: ten", b": comment", b":", b"dat", b"unknown: y", "data: smörgås ☕".encode(),
    b"data: \xff\xfe", b"",
])  # fmt: skip
EOL = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAM = st.builds(
    lambda bom, lines: bom + b"".join(line + eol for line, eol in lines),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(st.tuples(LINE, EOL), max_size=30),
)


def fed(parser: Parser, *pieces: bytes) -> list[Event]:
    return [event for piece in pieces for event in parser.feed(piece)]


def parse(*pieces: bytes) -> list[Event]:
    return fed(Parser(), *pieces)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


@given(STREAM, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_gives_the_same_events(stream: bytes, places: list[int]) -> None:
    assert parse(*cut(stream, places)) == parse(stream)


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=12))
def test_any_bytes_are_taken_and_any_cut_of_them(stream: bytes, places: list[int]) -> None:
    assert parse(*cut(stream, places)) == parse(stream) == parse(*(bytes([byte]) for byte in stream))


@given(st.lists(st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"])), min_size=1), EOL)
def test_what_is_written_is_read(lines: list[str], eol: bytes) -> None:
    stream = b"".join(b"data: " + line.encode() + eol for line in lines) + eol
    assert parse(stream) == [Event("message", "\n".join(lines), "")]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        # The examples of the standard, section 9.2.6.
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [Event("message", "YHOO\n+2\n10", "")]),
        (
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [
                Event("message", "first event", "1"),
                Event("message", "second event", ""),
                Event("message", " third event", ""),
            ],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [Event("message", "", ""), Event("message", "\n", "")]),
        (b"data:test\n\ndata: test\n\n", [Event("message", "test", ""), Event("message", "test", "")]),
        (b"event: add\ndata: 1\n\ndata: 2\n\n", [Event("add", "1", ""), Event("message", "2", "")]),
        (b"event: lost\n\ndata: kept\n\n", [Event("message", "kept", "")]),
        (b"id: 3\ndata: a\n\ndata: b\n\n", [Event("message", "a", "3"), Event("message", "b", "3")]),
        (b"id: 3\0\ndata: a\n\n", [Event("message", "a", "")]),
        (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [Event("message", "a", "")]),
        (b"data: cut off\n", []),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [Event("message", each, "") for each in "abc"]),
    ],
)
def test_the_standard(stream: bytes, events: list[Event]) -> None:
    assert parse(stream) == events


def test_retry_is_milliseconds_and_nonsense_is_ignored() -> None:
    parser = Parser()
    parser.feed(b"retry: soon\n\nretry: 1500\n\n")
    assert parser.retry == 1500


@pytest.mark.parametrize("piece", [b"x" * 60, b"data: " + b"y" * 30 + b"\n"])
def test_what_never_ends_is_cut_off(piece: bytes) -> None:
    with pytest.raises(Unavailable) as caught:
        fed(Parser(limit=100), *[piece] * 5)
    assert caught.value.code == "upstream_too_large"


def test_small_events_may_go_on_for_ever() -> None:
    assert len(fed(Parser(limit=100), *[b"data: " + b"y" * 30 + b"\n\n"] * 1000)) == 1000
