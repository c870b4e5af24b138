"""Rung when something was put into a lane, so that its courier need not look again and again."""

import asyncio


class Bell:
    """On the event loop only. Each lane has one listener, the latest; other processes' couriers don't hear it."""

    def __init__(self) -> None:
        self._listening: dict[tuple[str, str], asyncio.Event] = {}

    def listen(self, tenant: str, lane: str) -> asyncio.Event:
        """Set at the next ring."""
        self._listening[tenant, lane] = rung = asyncio.Event()
        return rung

    def leave(self, tenant: str, lane: str) -> None:
        self._listening.pop((tenant, lane), None)

    def ring(self, tenant: str, lane: str) -> None:
        rung = self._listening.get((tenant, lane))
        if rung is not None:
            rung.set()
