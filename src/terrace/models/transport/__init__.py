"""HTTP to upstreams."""

from terrace.models.transport.base import Response, Transport

__all__ = ["Response", "Transport"]
