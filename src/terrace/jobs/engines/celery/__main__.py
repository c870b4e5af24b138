"""`python -m terrace.jobs.engines.celery worker ...`: Celery's command line for our app, gone when its parent is."""

import sys

from celery.platforms import set_pdeathsig

from terrace.jobs.engines.celery.app import app


def main() -> None:
    if sys.platform == "linux":
        set_pdeathsig("SIGTERM")  # who started it was killed: it drains, as if it had been asked to
    app.start(sys.argv[1:])


if __name__ == "__main__":
    main()
