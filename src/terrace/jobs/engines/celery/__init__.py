"""Jobs carried by Celery: a message is a job's id, the row is the truth. See docs/celery.md."""

from terrace.jobs.engines.celery.engine import CeleryJobs

__all__ = ["CeleryJobs"]
