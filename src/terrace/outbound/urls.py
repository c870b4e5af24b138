"""URLs as people type them, made to one spelling or refused."""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, quote, urlsplit

from terrace.errors import Invalid

MAX_URL_CHARS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}
# What answers there is no web server, and may take a request for a command (Fetch standard, "bad port").
BAD_PORTS = frozenset(
    {
        1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
        5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    }
)  # fmt: skip

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
KEPT = "%/:=&?~+!$,;'@()*[]|-._"  # what `quote` leaves alone in a path or query


def check_url(url: str) -> str:
    """The URL in its one spelling: http or https, a host in lower-case ASCII, no credentials, no fragment, at most
    2,048 characters. An IPv4 address is dotted decimal, however it was written. Raises Invalid (bad_url).

    Where the host leads is not looked at: that is found out when connecting.
    """
    text = url.strip()
    if len(text) > MAX_URL_CHARS:
        raise _bad(f"is longer than {MAX_URL_CHARS:,} characters")
    if _UNSAFE.search(text):
        raise _bad("holds a space, a backslash or a control character")
    try:
        text.encode()
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _bad("cannot be read; check its host and port") from None
    scheme = parts.scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise _bad("must begin with https:// or http://")
    if "@" in parts.netloc:
        raise _bad("holds a user name or password; give credentials in their own place")
    host = _host(parts)
    if port is not None and (port == 0 or port in BAD_PORTS):
        raise _bad(f"names the port {port}, where no web server answers")
    place = host if port in (None, DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    query = f"?{quote(parts.query, safe=KEPT)}" if parts.query else ""
    made = f"{scheme}://{place}{quote(parts.path, safe=KEPT) or '/'}{query}"
    if len(made) > MAX_URL_CHARS:
        raise _bad(f"is longer than {MAX_URL_CHARS:,} characters when it is written out")
    return made


def host_of(url: str) -> str:
    """Of a checked URL; an IPv6 address without brackets."""
    return urlsplit(url).hostname or ""


def origin(url: str) -> tuple[str, str, int]:
    """Of a checked URL: scheme, host, port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]


def same_site(one: str, another: str) -> bool:
    """Whether both are the same host (`www.` or not) and, but for the step from http to https, the same port."""
    (first_scheme, first_host, first_port), (scheme, host, port) = origin(one), origin(another)
    if first_host.removeprefix("www.") != host.removeprefix("www."):
        return False
    standard = first_port == DEFAULT_PORTS[first_scheme] and port == DEFAULT_PORTS[scheme]
    return first_port == port or standard


def redacted(url: str) -> str:
    """To be told or logged: without the query, which may hold secrets."""
    return url.partition("?")[0]


def _host(parts: SplitResult) -> str:
    if "[" in parts.netloc:
        return f"[{_ipv6(parts.hostname or '')}]"
    host = (parts.hostname or "").removesuffix(".")
    if not host.isascii():
        host = _ascii(host)
    if _NUMBER.fullmatch(host.rpartition(".")[2]):  # then the whole is an IPv4 address (URL standard)
        return _ipv4(host)
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise _bad("has no host that can be reached" if host else "has no host")
    return host


def _ascii(host: str) -> str:
    import idna

    try:
        return idna.encode(host, uts46=True).decode()
    except (idna.IDNAError, UnicodeError):
        pass
    try:  # digits and dots of other scripts make an address, which is no international name
        return idna.uts46_remap(host, std3_rules=True).encode("ascii").decode()
    except (idna.IDNAError, UnicodeError):
        raise _bad("has a host name with characters that no host name may have") from None


def _ipv4(host: str) -> str:
    try:
        return socket.inet_ntoa(socket.inet_aton(host))  # takes octal, hexadecimal and shortened ones too
    except OSError:
        raise _bad("has a host of numbers that is no address") from None


def _ipv6(host: str) -> str:
    try:
        if "%" in host:
            raise ValueError("a zone means something on one machine only")
        return ipaddress.IPv6Address(host).compressed
    except ValueError:
        raise _bad("has a host in brackets that is no IPv6 address") from None


def _bad(why: str) -> Invalid:
    return Invalid(f"The URL {why}.", code="bad_url")
