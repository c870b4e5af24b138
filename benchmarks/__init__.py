"""Each budget's command: `python -m benchmarks.<name>` prints a table with its reference from the same run."""
