"""Room kept for jobs that were asked for and have not begun their call."""

from collections.abc import Callable, Iterator

from terrace.accounts.limits.reservations import Kept
from terrace.telemetry.calls import Demand

KEPT_SECONDS = 900.0  # a hold that no job took over is given back after this


class Holds:
    """`freed` is called when room came free."""

    def __init__(self, clock: Callable[[], float], freed: Callable[[], None]) -> None:
        self._clock = clock
        self._freed = freed
        self.park: Callable[[Kept, str], None] | None = None
        """Keeps it where every process finds it, if that is to be; `unpark` gives it back."""
        self.unpark: Callable[[str], None] | None = None
        self._all: dict[Kept, None] = {}  # oldest first
        self._jobs: dict[str, Kept] = {}

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._all)

    def add(self, kept: Kept) -> None:
        self.lapse()
        self._all[kept] = None

    def bind(self, kept: Kept, job_id: str) -> None:
        kept.job = job_id
        if kept not in self._all:
            return
        self._jobs[job_id] = kept
        if self.park is not None:
            self.park(kept, job_id)
            kept.settle(self._clock(), 0, 0)
            self.gone(kept)

    def of(self, job_id: str, demand: Demand) -> Kept | None:
        """What was kept for such a call of this job."""
        kept = self._jobs.get(job_id)
        return kept if kept is not None and kept.demand.operation == demand.operation else None

    def open(self, kept: Kept) -> None:
        """Give its room back for the moment: its own call is about to take it."""
        kept.settle(self._clock(), 0, 0)

    def keep_on(self, kept: Kept) -> None:
        """The call did not come about; nobody else has looked since."""
        kept.retake(self._clock())
        self._all[kept] = self._all.pop(kept)  # the youngest now

    def gone(self, kept: Kept) -> None:
        self._all.pop(kept, None)
        if kept.job is not None:
            self._jobs.pop(kept.job, None)

    def release(self, kept: Kept) -> None:
        if kept in self._all:
            kept.settle(self._clock(), 0, 0)
            self.gone(kept)
            self._freed()
        elif self.unpark is not None and kept.job is not None:
            self.unpark(kept.job)

    def end(self, job_id: str) -> None:
        """The job is over."""
        kept = self._jobs.get(job_id)
        if kept is not None:
            self.release(kept)

    def lapse(self) -> None:
        """Give back what nobody came for."""
        now = self._clock()
        for kept in list(self._all):
            if now - kept.started < KEPT_SECONDS:
                break
            self.release(kept)
