"""A real PgBouncer in transaction mode, where each transaction may come to another connection."""

import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.postgres import Postgres

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
"""


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def pgbouncer(postgres: Postgres) -> Iterator[int]:
    """The port of a pooler with three connections to share."""
    folder = Path(tempfile.mkdtemp(prefix="terrace-bouncer-"))
    folder.chmod(0o755)
    port = free_port()
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(server=postgres.port, port=port))
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    user = pwd.getpwnam(postgres.user).pw_uid if postgres.user else None  # it refuses to run as root
    process = subprocess.Popen(
        [program, str(folder / "pgbouncer.ini")], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while not _answers(port):
            assert process.poll() is None, "pgbouncer ended at once"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)
