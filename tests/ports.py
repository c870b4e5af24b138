"""Ports for servers that have to be told theirs."""

import secrets
import socket
from contextlib import suppress
from pathlib import Path

GIVEN = Path("/proc/sys/net/ipv4/ip_local_port_range")
LEAST, USUAL = 10_240, 32_768


def free_port() -> int:
    """None that the kernel gives to whoever names none: else a connection may have it before the server does, or while
    the server is restarted."""
    end = int(GIVEN.read_text().split()[0]) if GIVEN.exists() else USUAL
    while True:
        port = LEAST + secrets.randbelow(max(end - LEAST, 1000))
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port
