"""URLs as people type them: one spelling, or a sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.errors import Invalid
from terrace.outbound import check_url, redacted, same_site
from terrace.outbound.addresses import Reach


@pytest.mark.parametrize(
    ("typed", "made"),
    [
        ("https://Example.ORG", "https://example.org/"),
        ("  http://example.org:80/a?b=c#part ", "http://example.org/a?b=c"),
        ("https://example.org:8443/ä ö".replace(" ", "%20"), "https://example.org:8443/%C3%A4%20%C3%B6"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("https://straße.example/", "https://xn--strae-oqa.example/"),
        ("https://example.org./", "https://example.org/"),
        ("http://[2001:DB8:0::1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://127.0.0.1./", "http://127.0.0.1/"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/"),
        ("http://127。0。0。1/", "http://127.0.0.1/"),
    ],
)
def test_there_is_one_spelling(typed: str, made: str) -> None:
    assert check_url(typed) == made
    assert check_url(made) == made


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "ftp://example.org/", "file:///etc/passwd", "javascript:alert(1)", "http://", "http:///a",
        "http://user:secret@example.org/", "http://@example.org/", "https://example.org:0/", "https://example.org:x/",
        "https://example.org:70000/", "http://example.org:25/", "http://example.org:22/", "http://[::1",
        "http://[::1%25lo]/",        "http://[fe80::1%eth0]/", "http://[127.0.0.1]/",
        "http://1.2.3.4.5/", "http://256.1.1.1/", "http://1.2.3.0x/x y",
        "http://a..b/", "http://-a.example/", "http://exa mple.org/", "http://example.org\\@127.0.0.1/",
        "http://example.org/\r\nHost: x", "http://example.org/\ud800", "http://exam%70le.org/", "https://" + "a" * 2048,
        "https://example.org/" + "ä" * 1000, f"http://{'a' * 64}.example/", "http://☃\u200e.example/",
    ],
)  # fmt: skip
def test_what_is_no_url_is_told(url: str) -> None:
    with pytest.raises(Invalid) as told:
        check_url(url)
    assert told.value.code == "bad_url"
    assert "secret" not in told.value.message


@given(st.text())
def test_any_text_is_checked_or_refused(text: str) -> None:
    for typed in (text, f"http://{text}", f"https://example.org/{text}"):
        try:
            made = check_url(typed)
        except Invalid:
            continue
        assert made.isascii()
        assert check_url(made) == made


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("http://example.org/", "https://www.example.org/a", True),
        ("http://example.org:8080/", "http://example.org:8080/a", True),
        ("http://example.org:8080/", "http://example.org:9090/", False),
        ("https://example.org/", "https://shop.example.org/", False),
        ("https://example.org/", "https://example.org.evil.example/", False),
    ],
)
def test_a_site_is_a_host(one: str, another: str, same: bool) -> None:
    assert same_site(one, another) is same


def test_a_query_is_not_told() -> None:
    assert redacted("https://example.org/a?token=secret") == "https://example.org/a"


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254", "169.254.169.254",
        "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.168.1.1", "198.18.0.1", "203.0.113.9", "224.0.0.1",
        "239.255.255.255", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b:1::1", "2002:7f00:1::", "2002:0a00:0001::1", "2001:0:53aa:64c::1", "2001:db8::1", "3fff::1", "100::1",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "5f00::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_out_of_reach(address: str) -> None:
    assert not Reach().allows(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "172.32.0.1", "223.255.255.255", "2606:4700::1111",
     "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1", "2a00:1450::1"],
)  # fmt: skip
def test_what_is_public_can_be_reached(address: str) -> None:
    assert Reach().allows(address)


def test_the_operator_may_allow_a_network() -> None:
    reach = Reach(("10.0.0.0/8", "fd00::/8", "127.0.0.1"))
    assert all(reach.allows(each) for each in ("10.9.9.9", "::ffff:10.0.0.1", "fd12::1", "127.0.0.1"))
    assert not any(reach.allows(each) for each in ("127.0.0.2", "192.168.0.1", "fe80::1"))
    with pytest.raises(Invalid, match="TERRACE_OUTBOUND__ALLOW"):
        Reach(("intranet",))
