"""Terrace, a self-hosted AI backend. The folder listing is the architecture: see docs/architecture.md."""

__version__ = "0.1.0"
