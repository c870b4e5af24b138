"""What a server's process owes the machine it runs on: it heeds signals, and says where it is to be found."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ADDRESS = "server.json"
"""In the data folder: where the server that works on it answers, and the token of whoever owns the folder."""


@contextmanager
def announced(data: Path, url: str, token: str) -> Iterator[None]:
    """Leave our address in the data folder while we serve; nobody else may read it."""
    path = data / ADDRESS
    aside = path.with_suffix(f".{secrets.token_hex(8)}")  # containers that share the folder may share pids
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": url, "pid": os.getpid(), "token": token}, file)
    os.replace(aside, path)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            if json.loads(path.read_text())["pid"] == os.getpid():
                path.unlink()


def signalled() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(number: int) -> None:
        if stop.is_set():
            sys.exit(128 + number)
        stop.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, heard, each)
    return stop
