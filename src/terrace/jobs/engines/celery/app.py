"""What `celery -A terrace.jobs.engines.celery.app worker` runs, and `... flower` shows.

Importing it reads no settings and opens nothing: Celery asks for its configuration when it starts, a worker opens the
house when its pool starts.
"""

from typing import Any

from celery.signals import setup_logging
from click import ClickException
from kombu.utils.imports import symbol_by_name

from terrace.errors import TerraceError
from terrace.jobs.engines.celery.broker import url_of
from terrace.jobs.engines.celery.building import JobApp
from terrace.jobs.engines.celery.children import adopt
from terrace.jobs.engines.celery.residence import ThreadResidence
from terrace.settings import Settings
from terrace.telemetry.logs import configure

# Who puts the house together stands above this room, so that it is named and not imported, as Celery names its parts.
HOUSE = "terrace.assembly.celery:working"


def _settings() -> Settings:
    try:
        settings = Settings.load(jobs={"engine": "celery"})
        url_of(settings)
    except TerraceError as error:
        raise ClickException(str(error)) from error  # Celery's command line shows its sentence alone
    return settings


def _residence(app: JobApp) -> ThreadResidence:
    return ThreadResidence(lambda lanes: symbol_by_name(HOUSE)(app.terrace, lanes))  # type: ignore[no-untyped-call]


app = JobApp(_settings, _residence)
_children = adopt(app)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    configure(app.terrace.logs)
