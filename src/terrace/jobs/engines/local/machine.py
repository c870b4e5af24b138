"""Which processes run jobs, and which of them are dead: their work is taken back at once instead of after its lease."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import bindparam, text
from sqlmodel import Session

from terrace.types import now

JOIN = text(
    "INSERT INTO job_workers (id, host, pid, process, started_at, heartbeat_at) "
    "VALUES (:id, :host, :pid, :process, :now, :now)"
)
BEAT = text("UPDATE job_workers SET heartbeat_at = :now WHERE id = :id")
LEAVE = text("DELETE FROM job_workers WHERE id IN :ids").bindparams(bindparam("ids", expanding=True))
HERE = text("SELECT id, pid, process FROM job_workers WHERE host = :host AND id <> :id")
LOST = text("DELETE FROM job_workers WHERE heartbeat_at < :before AND id <> :id")

FORGET_SECONDS = 86_400.0  # a worker of another machine that is silent for so long


def process_of(pid: int) -> str | None:
    """What tells the process from a later one with the same pid; None when it is not running.

    On Linux the boot and the start time in clock ticks (proc(5), field 22); elsewhere only that the pid lives.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "alive" if not Path("/proc/self/stat").exists() and _lives(pid) else None
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in "ZX" else f"{boot}:{after_name[19]}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def join(session: Session, worker: str) -> None:
    pid = os.getpid()
    row = {"id": worker, "host": socket.gethostname(), "pid": pid, "process": process_of(pid) or "alive"}
    session.execute(JOIN, {**row, "now": now()})


def beat(session: Session, worker: str) -> None:
    session.execute(BEAT, {"id": worker, "now": now()})


def leave(session: Session, workers: Sequence[str]) -> None:
    if workers:
        session.execute(LEAVE, {"ids": list(workers)})


def dead_workers(session: Session, worker: str) -> list[str]:
    """Workers of this machine whose process is gone."""
    rows = session.execute(HERE, {"host": socket.gethostname(), "id": worker}).all()
    return [row.id for row in rows if process_of(row.pid) != row.process]


def forget(session: Session, worker: str) -> None:
    """Workers nobody has heard of for a day; their jobs were taken back when their leases ended."""
    session.execute(LOST, {"before": now() - FORGET_SECONDS, "id": worker})
