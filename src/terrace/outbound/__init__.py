"""Requests to addresses that other people named: webhooks, web pages, feeds. Never to our own network."""

from terrace.outbound.base import Fetched, Outbound
from terrace.outbound.guarded import open_outbound
from terrace.outbound.urls import check_url, redacted, same_site

__all__ = ["Fetched", "Outbound", "check_url", "open_outbound", "redacted", "same_site"]
