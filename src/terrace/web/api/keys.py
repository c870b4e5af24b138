"""API keys: made, narrowed, rotated, revoked. A secret is shown once."""

from pydantic import BaseModel, Field

from terrace.accounts.base import Key
from terrace.web.access import Me, resource
from terrace.web.api.fields import Addresses, Id, Name, Patterns, Scopes, Until
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.services import House

router = resource(prefix="/keys", tags=["keys"])


class NewKey(BaseModel):
    name: Name
    scopes: Scopes = Field([], description="Permissions or families of them; none: all that its owner may.")
    models: Patterns = Field([], description="Models it may use; none: every model.")
    addresses: Addresses = Field([], description="Networks it may come from; none: all.")
    expires_at: Until | None = None
    user_id: Id | None = Field(None, description="Whose it is to be: one's own, except at the terminal.")


class KeyChange(BaseModel):
    """What is left out stays as it is."""

    name: Name | None = None
    scopes: Scopes | None = None
    models: Patterns | None = None
    addresses: Addresses | None = None
    expires_at: Until | None = Field(None, description="null takes the expiry away.")


class Rotation(BaseModel):
    overlap: float = Field(0, ge=0, le=30 * 86_400, description="Seconds the old secret stays good.")


class NewSecret(BaseModel):
    key: Key
    secret: str = Field(description="Shown this once.")


@router.get("")
async def list_keys(house: House, me: Me, all: bool = False, limit: Limit = 50, cursor: IdCursor = None) -> Page[Key]:
    """One's own, newest first; with `all` and the permission `members` everybody's."""
    items, following = await house.keys.list(me, all=all, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("", status_code=201)
async def create_key(house: House, me: Me, body: NewKey) -> NewSecret:
    key, secret = await house.keys.create(me, **dict(body))
    return NewSecret(key=key, secret=secret)


@router.get("/{key_id}")
async def get_key(house: House, me: Me, key_id: str) -> Key:
    return await house.keys.get(me, key_id)


@router.patch("/{key_id}")
async def change_key(house: House, me: Me, key_id: str, body: KeyChange) -> Key:
    return await house.keys.change(me, key_id, **body.model_dump(exclude_unset=True))


@router.delete("/{key_id}", status_code=204)
async def revoke_key(house: House, me: Me, key_id: str) -> None:
    """At once, for good."""
    await house.keys.revoke(me, key_id)


@router.post("/{key_id}/rotate")
async def rotate_key(house: House, me: Me, key_id: str, body: Rotation) -> NewSecret:
    """A new secret; the old one may stay good for a while."""
    key, secret = await house.keys.rotate(me, key_id, body.overlap)
    return NewSecret(key=key, secret=secret)
