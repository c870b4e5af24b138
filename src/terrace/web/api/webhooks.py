"""Webhooks: who is told of what, and how that went. A secret is shown once."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from terrace.web.access import Me, Who, resource
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.services import House
from terrace.webhooks.base import Delivery, DeliveryDetail, DeliveryState, Endpoint
from terrace.webhooks.events import EVENTS, FAMILIES

router = resource(prefix="/webhooks", tags=["webhooks"])

URL = Annotated[str, Field(min_length=1, max_length=2048, examples=["https://example.org/hooks/terrace"])]
Filters = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=50)]],
    Field(max_length=50, examples=[["document.*", "job.failed"]], description="Types or families; none: all."),
]
Description = Annotated[str, Field(max_length=200)]


class NewWebhook(BaseModel):
    url: URL
    events: Filters = Field(default_factory=list)
    description: Description = ""
    enabled: bool = True


class WebhookChange(BaseModel):
    """What is left out stays as it is."""

    url: URL | None = None
    events: Filters | None = None
    description: Description | None = None
    enabled: bool | None = None


class SecretRotation(BaseModel):
    overlap: float = Field(
        0, ge=0, le=30 * 86_400, description="Seconds for which deliveries are signed with the old secret too."
    )


class WebhookSecret(BaseModel):
    webhook: Endpoint
    secret: str = Field(description="What signatures are checked with (Standard Webhooks). Shown this once.")


class EventType(BaseModel):
    type: str
    description: str


class EventTypes(BaseModel):
    events: Sequence[EventType]
    families: Sequence[str]
    signing_secret: str = Field(
        description="Signs what goes to the `webhook` address that a single analysis or campaign names."
    )


@router.get("")
async def list_webhooks(house: House, who: Who, limit: Limit = 50, cursor: IdCursor = None) -> Page[Endpoint]:
    """Newest first."""
    items, following = await house.webhooks.list(who, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_webhook(house: House, me: Me, body: NewWebhook) -> WebhookSecret:
    endpoint, secret = await house.webhooks.create(me, **dict(body))
    return WebhookSecret(webhook=endpoint, secret=secret)


@router.get("/events")
async def list_event_types(house: House, who: Who) -> EventTypes:
    """Everything that can be told."""
    kinds = [EventType(type=name, description=text) for name, text in EVENTS.items()]
    return EventTypes(events=kinds, families=FAMILIES, signing_secret=await house.webhooks.signing_secret(who))


@router.get("/{webhook_id}")
async def get_webhook(house: House, who: Who, webhook_id: str) -> Endpoint:
    return await house.webhooks.get(who, webhook_id)


@router.patch("/{webhook_id}")
async def change_webhook(house: House, me: Me, webhook_id: str, body: WebhookChange) -> Endpoint:
    """Switched on again, it gets what waited."""
    return await house.webhooks.change(me, webhook_id, **body.model_dump(exclude_unset=True))


@router.delete("/{webhook_id}", status_code=204)
async def remove_webhook(house: House, me: Me, webhook_id: str) -> None:
    """With its log; what waits is not delivered."""
    await house.webhooks.remove(me, webhook_id)


@router.post("/{webhook_id}/test", status_code=202)
async def send_test(house: House, me: Me, webhook_id: str) -> Delivery:
    """Send a `webhook.test` now; the delivery tells how it went."""
    return await house.webhooks.test(me, webhook_id)


@router.post("/{webhook_id}/rotate")
async def rotate_webhook_secret(house: House, me: Me, webhook_id: str, body: SecretRotation) -> WebhookSecret:
    """A new secret; the old one may stay good for a while."""
    endpoint, secret = await house.webhooks.rotate(me, webhook_id, body.overlap)
    return WebhookSecret(webhook=endpoint, secret=secret)


@router.get("/{webhook_id}/deliveries")
async def list_deliveries(
    house: House,
    who: Who,
    webhook_id: str,
    state: DeliveryState | None = None,
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[Delivery]:
    """The log, newest first."""
    items, following = await house.webhooks.deliveries(who, webhook_id, state=state, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.get("/{webhook_id}/deliveries/{delivery_id}")
async def get_delivery(house: House, who: Who, webhook_id: str, delivery_id: str) -> DeliveryDetail:
    """With what was sent, what was answered, and each attempt."""
    return await house.webhooks.delivery(who, webhook_id, delivery_id)


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", status_code=202)
async def redeliver(house: House, me: Me, webhook_id: str, delivery_id: str) -> Delivery:
    """Once more, with the same webhook-id; tried again as at first."""
    return await house.webhooks.redeliver(me, webhook_id, delivery_id)
