"""From what the chat room keeps to what clients read."""

from dataclasses import asdict
from typing import Any

from terrace.errors import BY_KIND, Conflict, Internal
from terrace.jobs.base import Job
from terrace.web.markdown import escaped, render
from terrace.web.stream import cited


def whole(job: Job, **about: Any) -> Job:
    """The job, or the error that ended it, so that a client that waited gets the same sentence, and `about`."""
    if job.state == "succeeded":
        return job
    if job.state == "cancelled":
        raise Conflict("The answer was stopped before it was finished.", code="cancelled", job_id=job.id, **about)
    error = job.error
    if error is None:
        raise Internal("The answer failed without a reason.", job_id=job.id, **about)
    raise BY_KIND.get(error.kind, Internal)(error.message, code=error.code, job_id=job.id, **about)


def shown(message: Any) -> dict[str, Any]:
    """A message with its HTML: an answer's markdown rendered safely, a person's words as they were typed."""
    fields = asdict(message)
    answer = fields["role"] == "assistant"
    fields["html"] = render(fields["content"], cited(fields["sources"] or [])) if answer else escaped(fields["content"])
    return fields
