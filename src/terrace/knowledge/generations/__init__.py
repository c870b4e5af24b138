"""Generations of vectors: a new one is made beside the one that serves, compared with it, and takes its place."""
