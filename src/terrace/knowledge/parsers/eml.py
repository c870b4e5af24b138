"""Mail (EML): the headers a reader looks at, the body, the names of what is attached."""

import email
import email.policy
from email.message import MIMEPart
from pathlib import Path
from typing import cast

from terrace.knowledge.base import Parsed
from terrace.knowledge.media import EML, decode
from terrace.knowledge.parsers import html
from terrace.knowledge.parsers.base import Draft, ParseLimits, Progress, lines, one_line

MAX_DEPTH = 5  # mails within mails
MAX_PARTS = 1_000
HEADERS = ("From", "To", "Cc", "Date", "Subject")


def parse(path: Path, limits: ParseLimits, progress: Progress) -> Parsed:
    """One mail, with the mails it forwards as attachments."""
    with path.open("rb") as file:
        message = email.message_from_binary_file(file, policy=email.policy.default)
    draft = Draft(limits)
    _add(message, draft, 1)
    metadata = {name.lower(): value for name in ("From", "Date") if (value := _header(message, name))}
    return draft.parsed(EML, _header(message, "Subject"), metadata)


def _add(message: MIMEPart, draft: Draft, depth: int) -> None:
    if subject := _header(message, "Subject"):
        draft.add("heading", subject, depth)
    draft.add("paragraph", "\n".join(f"{name}: {value}" for name in HEADERS if (value := _header(message, name))))
    parts = [part for _, part in zip(range(MAX_PARTS), message.walk(), strict=False) if not part.is_multipart()]
    body = next((part for kind in ("text/plain", "text/html") for part in parts if _is_body(part, kind)), None)
    if body is not None:
        _add_body(body, draft)
    attached = [name for part in parts if (name := _file_name(part))]
    if attached:
        draft.add("paragraph", "Attached: " + ", ".join(attached))
    for inner in _mails_in(message):
        if depth < MAX_DEPTH:
            _add(inner, draft, depth + 1)


def _mails_in(message: MIMEPart) -> list[MIMEPart]:
    if not message.is_multipart() or message.get_content_type() == "message/rfc822":
        return []
    return [
        cast(MIMEPart, part.get_payload(0))
        for part in message.iter_parts()
        if part.get_content_type() == "message/rfc822" and part.is_multipart()
    ]


def _is_body(part: MIMEPart, kind: str) -> bool:
    return part.get_content_type() == kind and part.get_content_disposition() != "attachment"


def _add_body(part: MIMEPart, draft: Draft) -> None:
    raw = part.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else b""
    try:
        text = data.decode(part.get_content_charset() or "utf-8")
    except (LookupError, UnicodeError):
        text = decode(data)
    if part.get_content_type() == "text/html":
        for piece in html.read(text)[1]:
            draft.add(piece.kind, piece.text, piece.level + 1 if piece.level else 0)
        return
    for paragraph in lines(text).split("\n\n"):
        draft.add("paragraph", paragraph.strip("\n"))


def _header(message: MIMEPart, name: str) -> str:
    """One header as text; of a malformed one, what was written."""
    try:
        return one_line(str(message.get(name, "")))[:2000]
    except Exception:  # the standard parser raises all sorts of things on malformed headers
        raw = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return one_line(str(raw))[:2000]


def _file_name(part: MIMEPart) -> str:
    try:
        return one_line(part.get_filename() or "")[:300]
    except Exception:  # as above
        return ""
