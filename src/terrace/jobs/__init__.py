"""The durable queue. Whatever outlives a request is a row here."""
