"""The kinds of job that bring contacts in; assembly registers them."""

from terrace.campaigns.contacts.files import IMPORT, FileImports
from terrace.campaigns.contacts.intake import Intake
from terrace.jobs.base import JobKind


def job_kinds(files: FileImports, intake: Intake, *, timeout: float = 4 * 3600.0) -> tuple[JobKind, ...]:
    kind = JobKind(IMPORT, files.run, lane="cpu", timeout=timeout, on_end=intake.ended, on_retry=intake.again)
    return (kind,)
