"""What a process does of it all, by its role. Every role is the whole house; what differs is what goes on in it."""

from dataclasses import dataclass

from terrace.settings import Settings

CLOCK = "clock"
"""The lease of the one process, of all that may, that starts what is scheduled, watches folders and tidies."""


@dataclass(frozen=True, slots=True)
class Duties:
    doors: bool  # the page, the API, /v1; without them a process only tells how it does
    jobs: bool  # runs jobs
    clock: bool  # may be the one that looks at the clock


def duties(settings: Settings) -> Duties:
    """Of every role but `inference`, which is no house at all."""
    match settings.role:
        case "api":
            return Duties(doors=True, jobs=False, clock=False)
        case "worker":
            return Duties(doors=False, jobs=True, clock=False)
        case "scheduler":
            return Duties(doors=False, jobs=False, clock=True)
        case _:
            return Duties(doors=True, jobs=settings.jobs.workers, clock=True)
