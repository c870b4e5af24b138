"""What a prefork child does beside running tasks: it opens its house when it is born, drains on SIGTERM, signs off."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init, worker_process_shutdown

if TYPE_CHECKING:
    from terrace.jobs.engines.celery.building import JobApp


def adopt(app: "JobApp") -> tuple[Callable[..., None], Callable[..., None]]:
    """Have the app's children do so; keep what is returned for as long."""

    def born(**_: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: app.residence.drain())
        app.residence.begin(("cpu",))

    def gone(**_: Any) -> None:
        if "residence" in vars(app):
            app.residence.close()

    worker_process_init.connect(born)
    worker_process_shutdown.connect(gone)
    return born, gone


def drain(pool: Any) -> None:
    """The pool's children, if it has any, take no more and let go what does not end soon."""
    for process in getattr(getattr(pool, "_pool", None), "_pool", ()):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
