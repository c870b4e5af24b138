"""What the installation is and how it does."""

from typing import Any

from terrace.web.access import Who, resource
from terrace.web.services import House

router = resource(tags=["status"])


@router.get("/status")
async def status(house: House, who: Who) -> dict[str, Any]:
    """Version, counts, the embedding model's state, jobs waiting and running, and which model answers."""
    return await house.status(who)
