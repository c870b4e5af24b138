"""Text in, text out: providers, what wraps them, and which one answers."""
