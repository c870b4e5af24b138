"""What runs jobs, by `jobs.engine`."""

from collections.abc import Callable, Mapping

from terrace.jobs.engines.local import LocalJobs
from terrace.settings import Settings
from terrace.storage import Database


def open_engine(settings: Settings, database: Database) -> LocalJobs:
    """Raises Invalid where it lacks a setting, Unavailable where its packages are missing."""
    return ENGINES[settings.jobs.engine](settings, database)


def _local(settings: Settings, database: Database) -> LocalJobs:
    return LocalJobs(database, settings.jobs)


def _celery(settings: Settings, database: Database) -> LocalJobs:
    from terrace.jobs.engines.celery import CeleryJobs
    from terrace.jobs.engines.celery.broker import require

    require()
    from terrace.jobs.engines.celery.building import publisher

    return CeleryJobs(database, settings.jobs, broker=publisher(settings))


ENGINES: Mapping[str, Callable[[Settings, Database], LocalJobs]] = {"local": _local, "celery": _celery}
