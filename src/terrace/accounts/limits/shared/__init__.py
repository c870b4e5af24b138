"""One limit, many processes."""
