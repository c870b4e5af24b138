"""Addresses: one form for all ways of writing the same page, and what is a trap rather than a page."""

import re
from collections import Counter
from urllib.parse import quote, unquote, urljoin, urlsplit

MAX_URL = 2000
MAX_SEGMENTS = 20
MAX_PARAMETERS = 8
SAME_SEGMENT = 4  # times one name may stand in a path
PER_PATH = 100  # addresses of one path that differ in their query alone
PER_DATES = 150  # addresses of one form that have a date in them

_PORTS = {"http": 80, "https": 443}
_TRACKING = re.compile(
    r"utm_\w+|gclid|gclsrc|dclid|gbraid|wbraid|fbclid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id|_ga|_gl|_hs\w+|"
    r"mkt_tok|oly_\w+|vero_\w+|s_cid|ref_src",
    re.I,
)
_SESSION = re.compile(r"phpsessid|jsessionid|aspsessionid\w*|session_?id|sid|cfid|cftoken|zenid|oscsid", re.I)
_PATH_SESSION = re.compile(r";(jsessionid|phpsessid|sid)=[^/?#;]*", re.I)
_DATE = re.compile(r"(?<!\d)(19|20|21)\d\d([-/_.]?(0?[1-9]|1[0-2]))?(?!\d)")
_ESCAPE = re.compile("%([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(r"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?@!$&'()*+,;=%]")
_DIGITS = re.compile(r"\d+")
_NO_DOCUMENT = re.compile(
    r"\.(jpe?g|png|gif|webp|avif|svg|ico|bmp|tiff?|css|js|mjs|map|json|woff2?|ttf|eot|mp[34]|m4[av]|ogg|wav|flac|avi|mov|"
    r"webm|mkv|zip|gz|tgz|bz2|xz|7z|rar|exe|dmg|iso|deb|rpm|apk|msi|jar|bin|rss|atom|ics|xml)$",
    re.I,
)


def normalised(url: str, base: str = "") -> str | None:
    """The one form of an http(s) address: no fragment, tracking parameter or session id, its parameters sorted.

    None for what is no such address, or too long to be one.

    >>> normalised("../B/./c?utm_source=x&b=2&a=1#top", "HTTP://Example.org:80/a/")
    'http://example.org/B/c?a=1&b=2'
    """
    try:
        parts = urlsplit(urljoin(base, url.strip()))
        host, port = (parts.hostname or "").encode("idna").decode().lower().rstrip("."), parts.port
    except (ValueError, UnicodeError):
        return None
    if parts.scheme not in _PORTS or not host or parts.username or parts.password:
        return None
    where = f"[{host}]" if ":" in host else host
    where += f":{port}" if port and port != _PORTS[parts.scheme] else ""
    path = _dotless(_escaped(_PATH_SESSION.sub("", parts.path)))
    query = "&".join(sorted(_escaped(each) for each in parts.query.split("&") if _counts(each)))
    whole = f"{parts.scheme}://{where}{path}" + (f"?{query}" if query else "")
    return whole if len(whole) <= MAX_URL else None


def _counts(parameter: str) -> bool:
    name = parameter.partition("=")[0]
    return bool(parameter) and not _TRACKING.fullmatch(name) and not _SESSION.fullmatch(name)


def _escaped(text: str) -> str:
    """Every character escaped in the one way RFC 3986 (6.2.2) prefers."""
    encoded = _UNSAFE.sub(lambda found: quote(found[0], safe="", errors="replace"), text)
    return _ESCAPE.sub(_plain, encoded)


def _plain(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character.isascii() and (character.isalnum() or character in "-._~") else escape[0].upper()


def _dotless(path: str) -> str:
    """Without `.`, `..` and doubled slashes, as servers read it."""
    kept: list[str] = []
    names = path.split("/")
    for name in names:
        if name == "..":
            del kept[-1:]
        elif name not in ("", "."):
            kept.append(name)
    closed = names[-1] in ("", ".", "..") and kept
    return "/" + "/".join(kept) + ("/" if closed else "")


def site(url: str) -> str:
    """Whose pages these are: the host without `www.`, and the port where it says one."""
    return urlsplit(url).netloc.removeprefix("www.")


def path_of(url: str) -> str:
    """What patterns are matched with."""
    return unquote(urlsplit(url).path).lstrip("/")


def may_hold_text(url: str) -> bool:
    """Whether the end of its name speaks against a document."""
    return _NO_DOCUMENT.search(urlsplit(url).path) is None


def odd(url: str) -> str | None:
    """Why this address is more likely a trap than a page."""
    parts = urlsplit(url)
    names = [name for name in parts.path.split("/") if name]
    if len(names) > MAX_SEGMENTS:
        return f"Its path has more than {MAX_SEGMENTS} parts."
    if names and max(Counter(names).values()) >= SAME_SEGMENT:
        return "Its path repeats itself."
    for length in range(2, len(names) // 3 + 1):
        if names[-length:] == names[-2 * length : -length] == names[-3 * length : -2 * length]:
            return "Its path repeats itself."
    if parts.query.count("&") >= MAX_PARAMETERS:
        return f"It has more than {MAX_PARAMETERS} parameters."
    return None


class Shapes:
    """Counts addresses of one form: a calendar without an end, a table that sorts in a thousand ways."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def refuses(self, url: str) -> str | None:
        """Why one more of this form is too many; counts it otherwise."""
        parts = urlsplit(url)
        forms = []
        if parts.query:
            forms.append((f"{parts.path}?", PER_PATH, f"More than {PER_PATH} addresses differ in their query alone."))
        if _DATE.search(parts.path) or _DATE.search(parts.query):
            form = _DIGITS.sub("#", f"{parts.path}?{parts.query}")
            forms.append((form, PER_DATES, f"More than {PER_DATES} addresses differ in a date alone: a calendar."))
        for form, most, why in forms:
            if self._counts[form] >= most:
                return why
        self._counts.update(form for form, _, _ in forms)
        return None
