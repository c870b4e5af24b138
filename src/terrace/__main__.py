"""`python -m terrace` is `terrace`."""

from terrace.cli import main

main()
