"""Documents analysed: a file's pages are looked at by a vision model, or read, and the answer is kept."""
