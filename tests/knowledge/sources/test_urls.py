"""One form for each address; patterns that cost nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Invalid
from terrace.knowledge.sources import patterns, urls


@pytest.mark.parametrize(
    ("given_", "made"),
    [
        ("HTTP://Example.org:80/a/../b//c#x", "http://example.org/b/c"),
        ("https://example.org/?utm_source=a&b=2&a=1&fbclid=z", "https://example.org/?a=1&b=2"),
        ("http://example.org/p;jsessionid=AB12?PHPSESSID=x", "http://example.org/p"),
        ("http://example.org/%7efoo/%c3%bc/ü", "http://example.org/~foo/%C3%BC/%C3%BC"),
        ("//other.example/x", "http://other.example/x"),
        ("?page=2", "http://base.example/dir/page?page=2"),
        ("mailto:a@b.c", None),
        ("http://user:pw@example.org/", None),
        ("http://[::1", None),
        ("http://example.org/" + "a" * 3000, None),
    ],
)
def test_addresses_have_one_form(given_: str, made: str | None) -> None:
    assert urls.normalised(given_, "http://base.example/dir/page") == made


@given(st.text(alphabet="%/?.&=2fFeEaAüß; #:@+1\n\t[]\\", max_size=40))
def test_the_form_of_a_form_is_itself(rest: str) -> None:
    made = urls.normalised(f"http://example.org/{rest}")
    assert made is None or urls.normalised(made) == made


@given(st.text(max_size=200), st.text(max_size=200))
def test_nothing_is_too_wild_to_be_refused(url: str, base: str) -> None:
    made = urls.normalised(url, base)
    assert made is None or made.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("a/b/c.pdf", "**/*.pdf", True), ("c.pdf", "**/*.pdf", True), ("a/b/c.pdf", "*.pdf", True),
        ("a/b/c.pdf", "a/*.pdf", False), ("a/b/c.pdf", "a/**", True), ("b/a/c", "a/**", False),
        ("a/b/c/d", "a/**/c/d", True), ("a/c/d", "a/**/c/d", True), ("a/x/y", "a/?/[xyz]", True), ("ab", "a", False),
    ],
)  # fmt: skip
def test_patterns(path: str, pattern: str, matches: bool) -> None:
    assert patterns.matches(path, pattern) is matches


def test_no_pattern_takes_long() -> None:
    begun = time.process_time()
    patterns.matches("/".join(["a" * 200] * 60), "/".join(["**", "*a*a*a*a*a*a*b"] * 12))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("bad", [("a" * 201,), tuple(str(number) for number in range(51)), ("../x",), ("\0",)])
def test_patterns_that_can_match_nothing_are_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(Invalid):
        patterns.checked(bad)


@pytest.mark.parametrize("url", ["/a/b/a/b/a/b", "/x/x/x/x", "/" + "/".join(map(str, range(25))),
                                 "/?" + "&".join(f"p{n}=1" for n in range(12))])  # fmt: skip
def test_odd_addresses(url: str) -> None:
    assert urls.odd(f"http://example.org{url}")
    assert urls.odd("http://example.org/docs/guide/install?lang=en") is None
