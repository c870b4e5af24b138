"""What a carrier of events does, and who listens to it.

A carrier is an optimisation: all it carries is stored before, and whoever misses something reads the table. So it may
lose messages, and go away and come back; it must not make any up.
"""

from typing import Protocol

from terrace.jobs.journal import Notice


class Ears(Protocol):
    """Who hears what a carrier brings, on the event loop."""

    def follows(self, tenant: str, job_id: str) -> bool:
        """Whether this job's events are wanted here."""

    def heard(self, notice: Notice) -> None:
        """Another process has stored this."""

    def missed(self, tenant: str, job_id: str) -> None:
        """This job has events that were too many to be carried."""

    def uncertain(self) -> None:
        """The carrier came or went: something may not have been carried."""


class Carrier(Protocol):
    @property
    def carries(self) -> bool:
        """Whether what others store comes this way now. Else the database's own wake-ups must do."""

    @property
    def state(self) -> str:
        """A line for whoever asks how this process does; it begins with `ok` while events reach everybody."""

    def start(self, ears: Ears) -> None:
        """Begin to listen."""

    def tell(self, notice: Notice) -> None:
        """This process has stored this. Never waits, never fails."""

    async def close(self) -> None: ...
