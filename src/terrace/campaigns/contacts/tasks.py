"""The kinds of job that bring contacts in; assembly registers them."""

from terrace.campaigns.contacts.files import IMPORT, FileImports
from terrace.campaigns.contacts.intake import Intake
from terrace.jobs.base import RESUMING_CRASHES, JobKind


def job_kinds(files: FileImports, intake: Intake, *, timeout: float = 4 * 3600.0) -> tuple[JobKind, ...]:
    kind = JobKind(
        IMPORT, files.run, lane="cpu", timeout=timeout, max_crashes=RESUMING_CRASHES, on_end=intake.ended,
        on_retry=intake.again,
    )  # fmt: skip
    return (kind,)
