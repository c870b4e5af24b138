"""The `terrace` command."""


def main() -> None:
    from terrace.cli.app import run

    run()
