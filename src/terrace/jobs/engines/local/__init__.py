"""Jobs run by processes on one machine, on the database alone."""

from terrace.jobs.engines.local.engine import LocalJobs

__all__ = ["LocalJobs"]
