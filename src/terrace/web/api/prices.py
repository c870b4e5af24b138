"""What a token costs, by model."""

from typing import Annotated

from fastapi import Path
from pydantic import BaseModel, Field

from terrace.accounts.audit import actor
from terrace.telemetry.prices import MAX_DOLLARS, MAX_NAME, ListedPrice
from terrace.web.access import Me, resource
from terrace.web.api.pages import Page
from terrace.web.services import House

router = resource(prefix="/prices", tags=["usage"])

Model = Annotated[str, Path(min_length=1, max_length=MAX_NAME, description="`<provider>/<model>`, or a model's name.")]
Dollars = Annotated[float, Field(ge=0, le=MAX_DOLLARS, description="Dollars a million tokens.")]


class NewPrice(BaseModel):
    input: Dollars
    output: Dollars
    cached: Dollars | None = Field(
        None, description="Of an input token the provider had in its cache; else as `input`."
    )


@router.get("")
async def list_prices(house: House) -> Page[ListedPrice]:
    """Dollars a million tokens: those that ship, dated, and those an operator has set."""
    return Page(items=house.prices.list())


@router.put("/{model:path}")
async def set_price(house: House, me: Me, model: Model, body: NewPrice) -> ListedPrice:
    """It holds from now on; what was used before keeps its cost."""
    return await house.prices.set(
        model,
        input=body.input,
        output=body.output,
        cached=body.cached,
        by=actor(me),
        also=lambda session: house.audit.record(session, me, "price.set", model, **body.model_dump()),
    )


@router.delete("/{model:path}", status_code=204)
async def remove_price(house: House, me: Me, model: Model) -> None:
    """Back to the price that ships, if there is one."""
    await house.prices.remove(model, also=lambda session: house.audit.record(session, me, "price.removed", model))
