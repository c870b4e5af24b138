"""HTTP to upstreams."""

from terrace.models.transport.base import Headers, Response, Transport
from terrace.models.transport.opening import open_transport

__all__ = ["Headers", "Response", "Transport", "open_transport"]
