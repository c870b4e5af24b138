"""What the installation is and how it does."""

from typing import Any

from terrace.web.access import Me, resource
from terrace.web.services import House

router = resource(tags=["status"])


@router.get("/status")
async def status(house: House, me: Me) -> dict[str, Any]:
    """Version, counts, the embedding model's state, jobs waiting and running, and which model answers.

    Where the data is, operators alone are told.
    """
    told = await house.status(me.scope)
    return told if "operator" in me.permissions else {**told, "data": None}
