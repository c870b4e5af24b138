"""Asking another database: what runs in the subprocess, one driver a file."""
