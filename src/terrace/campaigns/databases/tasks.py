"""The kind of job that asks another database for contacts; assembly registers it."""

from terrace.campaigns.contacts.intake import Intake
from terrace.campaigns.databases.service import IMPORT, Databases
from terrace.jobs.base import RESUMING_CRASHES, JobKind


def job_kinds(databases: Databases, intake: Intake, *, timeout: float = 4 * 3600.0) -> tuple[JobKind, ...]:
    kind = JobKind(
        IMPORT, databases.run, lane="cpu", timeout=timeout, max_crashes=RESUMING_CRASHES, on_end=intake.ended,
        on_retry=intake.again,
    )  # fmt: skip
    return (kind,)
