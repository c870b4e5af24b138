"""The `terrace` command."""

import gc

GARBAGE_AFTER = 50_000  # new objects; what importing makes stays, and looking through it is a fifth of the start


def main() -> None:
    gc.set_threshold(GARBAGE_AFTER, 20, 50)
    from terrace.cli.app import run

    run()
