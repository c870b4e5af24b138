"""Sitemaps and feeds, read from bytes. Runs in a subprocess: they may be hostile."""

import html
import io
import zlib
from dataclasses import dataclass
from typing import Any
from xml.parsers import expat

from terrace.errors import Invalid
from terrace.knowledge.sources.urls import normalised

MAX_UNPACKED = 64 * 1024**2  # bytes of a compressed sitemap
MAX_LOCATIONS = 50_000  # as sitemaps.org has it
MAX_ENTRIES = 500
MAX_CONTENT = 2_000_000  # characters of an entry
ENOUGH = 500  # characters of an entry that make the page behind it unnecessary
GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Location:
    url: str
    lastmod: str


@dataclass(frozen=True, slots=True)
class Sitemap:
    """`index` says that its locations are sitemaps themselves."""

    index: bool
    locations: tuple[Location, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """`html` is a page of its own; empty when the entry says too little and `link` leads to more."""

    key: str
    link: str | None
    title: str
    html: str


@dataclass(frozen=True, slots=True)
class Feed:
    title: str
    entries: tuple[Entry, ...]


def is_sitemap(body: bytes) -> bool:
    """Told by its beginning."""
    head = _unpacked(body)[:2000] if body.startswith(GZIP) else body[:2000]
    return b"<urlset" in head or b"<sitemapindex" in head


def read_sitemap(body: bytes, url: str) -> Sitemap:
    """Plain or compressed. Raises Invalid for what is none."""
    reader = _SitemapReader(url)
    try:
        reader.parse(_unpacked(body) if body.startswith(GZIP) else body)
    except (expat.ExpatError, zlib.error, LookupError, ValueError) as error:
        if not reader.locations:
            raise Invalid("This sitemap can't be read: its XML is broken.", code="bad_sitemap") from error
        raise Invalid("This sitemap breaks off: its XML is broken.", code="bad_sitemap") from error
    if reader.root not in ("urlset", "sitemapindex"):
        raise Invalid("This is XML, but no sitemap.", code="bad_sitemap")
    return Sitemap(reader.root == "sitemapindex", tuple(Location(*each) for each in reader.locations.items()))


class _SitemapReader:
    def __init__(self, url: str) -> None:
        self.root = ""
        self.locations: dict[str, str] = {}
        self._url = url
        self._path: list[str] = []
        self._text: list[str] = []
        self._entry: dict[str, str] = {}

    def parse(self, data: bytes) -> None:
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.EntityDeclHandler = self._refuse
        parser.Parse(data, True)

    def _refuse(self, *_: Any) -> None:
        raise ValueError("a sitemap declares no entities")

    def _start(self, name: str, _attributes: Any) -> None:
        self._path.append(name.rpartition(":")[2])
        self.root = self.root or self._path[0]
        self._text.clear()

    def _end(self, _name: str) -> None:
        name = self._path.pop()
        if len(self._path) == 2 and name in ("loc", "lastmod"):
            self._entry[name] = "".join(self._text).strip()
        elif len(self._path) == 1:
            url = normalised(self._entry.get("loc", ""), self._url)
            if url is not None and self._entry.get("loc") and len(self.locations) < MAX_LOCATIONS:
                self.locations[url] = self._entry.get("lastmod", "")[:40]
            self._entry = {}


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    data = unpacker.decompress(body, MAX_UNPACKED)
    if unpacker.unconsumed_tail:
        raise Invalid(f"This sitemap unpacks to more than {MAX_UNPACKED // 1024**2} MB.", code="too_large")
    return data


def read_feed(body: bytes, url: str, content_type: str) -> Feed:
    """RSS, Atom or what else feedparser knows. It is given bytes alone, so it fetches nothing. Raises Invalid."""
    import feedparser

    headers = {"content-location": url, "content-type": content_type or "application/xml"}
    parsed = feedparser.parse(io.BytesIO(body), response_headers=headers)
    if not parsed.version and not parsed.entries:
        raise Invalid("There is no feed at this address; RSS and Atom are read.", code="bad_feed")
    entries: dict[str, Entry] = {}
    for each in parsed.entries[:MAX_ENTRIES]:
        if (entry := _entry(each, url)) is not None:
            entries.setdefault(entry.key, entry)
    return Feed(str(parsed.feed.get("title", ""))[:250], tuple(entries.values()))


def _entry(raw: Any, url: str) -> Entry | None:
    link = normalised(str(raw.get("link", "")), url) if raw.get("link") else None
    key = link or str(raw.get("id") or "")[:2000]
    if not key:
        return None
    title = " ".join(html.unescape(str(raw.get("title", ""))).split())[:250] or key
    whole = max((str(part.get("value", "")) for part in raw.get("content", ())), key=len, default="")
    content = (whole or str(raw.get("summary", "")))[:MAX_CONTENT]
    if link and len(content) < ENOUGH and not whole:
        return Entry(key, link, title, "")
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title>'
    page = f"<!doctype html><html><head>{head}</head><body><h1>{html.escape(title)}</h1>{content}</body></html>"
    return Entry(key, link, title, page if content.strip() else "")
