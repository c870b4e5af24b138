"""The knowledge room's kinds of job; assembly registers them."""

from terrace.jobs.base import Handler, JobKind
from terrace.knowledge import contents
from terrace.knowledge.ingest import Ingest

INGEST = "knowledge.ingest"
EMBED = "knowledge.embed"
BATCH = "knowledge.batch"


def job_kinds(ingest: Ingest, *, timeout: float = 4 * 3600.0) -> tuple[JobKind, ...]:
    """`timeout`, in seconds, is for one document, the wait for a parser and all its embedding included.

    They are shared: whoever may read documents sees what becomes of them.
    """

    def kind(name: str, handler: Handler) -> JobKind:
        return JobKind(
            name, handler, lane="cpu", timeout=timeout, on_end=ingest.ended, on_retry=contents.again, shared=True
        )

    return kind(INGEST, ingest.ingest), kind(EMBED, ingest.embed), JobKind(BATCH, shared=True)
