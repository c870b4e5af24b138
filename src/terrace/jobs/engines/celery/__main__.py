"""`python -m terrace.jobs.engines.celery worker ...`: Celery's command line for our app, gone when its parent is."""

import sys

from celery.platforms import set_pdeathsig
from click import ClickException

from terrace.jobs.engines.celery.app import app


def main() -> None:
    if sys.platform == "linux":
        set_pdeathsig("SIGTERM")  # who started it was killed: it drains, as if it had been asked to
    try:
        app.start(sys.argv[1:])
    except ClickException as error:  # Celery's own command shows it by itself
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
