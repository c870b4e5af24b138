"""Structured logs with a request id, secrets redacted: JSON for machines, a short line for a terminal."""

import contextvars
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

from terrace.settings import Logs

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")

_SECRETS = re.compile(
    r"""(?ix)
    \b(sk-|pk-|key_|ghp_|hf_)[\w-]{8,}                     # keys that say what they are
    | (?<=bearer\ )[\w.~+/=-]{8,}                          # Authorization: Bearer ...
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)                      # user:password in a URL
    | (?<=[?&])(?:api_?key|token|secret|password)=[^&\s]+  # ... in a query
    | (?:(?<=x-api-key:\ )|(?<=api_key=)|(?<=password=))\S+
    """
)
# Of a database or a broker: a password may have a / or an @ in it, whatever URLs want.
_SERVERS = re.compile(r"(?i)\b((?:postgres(?:ql)?(?:\+\w+)?|rediss?|amqps?|mongodb(?:\+srv)?)://)[^\s?#]*(?=@)")
_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "taskName", "color_message"}


def redact(text: str) -> str:
    return _SECRETS.sub("[redacted]", _SERVERS.sub(r"\1[redacted]", text))


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


class JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request := request_id.get():
            line["request_id"] = request
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, default=str, ensure_ascii=False))


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = "".join(f" {name}={value}" for name, value in _extra(record).items())
        request = f" [{request}]" if (request := request_id.get()) else ""
        line = f"{moment} {record.levelname.lower():7} {record.getMessage()}{extra}{request}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return redact(line)


def configure(settings: Logs) -> None:
    """Send every log, libraries' included, through one redacting handler on standard error."""
    text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JSONFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.getLogger("alembic").setLevel("WARNING")
    logging.getLogger("psycopg").setLevel("ERROR")  # it warns of each race that was lost, and is run again
