"""Answers become HTML that cannot do anything but be read."""

from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from terrace.web.markdown import escaped, render

ALLOWED_SCHEMES = ("http://", "https://", "mailto:", "#source-")


def test_marks_become_links_to_their_sources_only_where_a_source_is() -> None:
    html = render("Yes [1], no [7].", frozenset({1}))
    assert '<a class="cite" data-n="1" href="#source-1"' in html
    assert "[7]" in html


def test_columns_are_aligned_by_class_since_the_policy_refuses_styles() -> None:
    html = render("|a|b|c|\n|---|---:|:-:|\n|1|2|3|\n")
    assert "<td>1</td>" in html
    assert '<td class="right">2</td>' in html
    assert '<td class="center">3</td>' in html


def test_marks_in_code_and_links_stay_text() -> None:
    html = render("`a[1]`\n\n    b[1]\n\n[see [1]](https://example.org)", frozenset({1}))
    assert "cite" not in html


def test_pictures_never_load() -> None:
    html = render("![chart](https://evil.example/?secret=1)")
    assert "<img" not in html
    assert 'href="https://evil.example/?secret=1"' in html


def test_a_person_s_words_are_shown_as_typed() -> None:
    assert escaped("<b>&") == "&lt;b&gt;&amp;"


HOSTILE = [
    *("<script>", "<img src=x onerror=alert(1)>", "<a href=", "onclick=", "<svg/onload=1>", "<style>", "<iframe>"),
    *("[a](javascript:alert(1))", "![x](data:text/html,1)", "](", "&#106;", "`", "```", "[1]", "|a|b|\n|-|-|\n"),
]


@given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE)), max_size=12))
def test_whatever_a_model_writes_nothing_active_comes_out(pieces: list[str]) -> None:
    tree = LexborHTMLParser(f"<body>{render(''.join(pieces), frozenset({1, 2}))}</body>")
    for node in tree.css("body *"):
        assert node.tag not in {
            "script",
            "style",
            "iframe",
            "img",
            "svg",
            "form",
            "input",
            "object",
            "embed",
            "base",
            "link",
        }
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            assert name != "style"
            if name == "href":
                assert (value or "").lower().startswith(ALLOWED_SCHEMES) or "://" not in (value or "")
                assert not (value or "").lower().strip().startswith(("javascript:", "data:", "vbscript:"))
