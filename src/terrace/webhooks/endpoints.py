"""Endpoints administered: made, changed, given a new secret, tried out, looked into."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col

from terrace import settings
from terrace.accounts.audit import Audit
from terrace.accounts.base import Caller
from terrace.accounts.paging import check_limit
from terrace.errors import Conflict, Invalid
from terrace.outbound import Outbound
from terrace.outbound.urls import origin
from terrace.storage import Database, after_commit
from terrace.types import Scope, new_id, now
from terrace.webhooks import events, signing, store
from terrace.webhooks.base import Delivery, DeliveryDetail, DeliveryState, Endpoint, Sealer
from terrace.webhooks.courier import PURPOSE
from terrace.webhooks.service import Webhooks
from terrace.webhooks.tables import CourierRow, DeliveryRow, EndpointRow

MAX_DESCRIPTION = 200
MAX_OVERLAP = 30 * 86_400.0  # seconds
CHANGEABLE = frozenset({"url", "description", "events", "enabled"})


class Endpoints:
    def __init__(
        self,
        database: Database,
        webhooks: Webhooks,
        outbound: Outbound,
        sealer: Sealer,
        audit: Audit,
        options: settings.Webhooks,
        *,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._outbound = outbound
        self._sealer = sealer
        self._audit = audit
        self._options = options
        self._clock = clock

    async def create(
        self, caller: Caller, *, url: str, events: Iterable[str] = (), description: str = "", enabled: bool = True
    ) -> tuple[Endpoint, str]:
        """The endpoint, and the secret its receiver checks signatures with: shown here and when it is rotated only.

        Raises Invalid, Conflict (there are too many).
        """
        wanted = self._checked({"url": url, "events": events, "description": description, "enabled": enabled})
        return await self._database.write(self._create, caller, wanted)

    async def list(
        self, scope: Scope, *, limit: int = 50, cursor: str | None = None
    ) -> tuple[list[Endpoint], str | None]:
        """Newest first, with the cursor of what follows."""
        check_limit(limit)
        rows = await self._database.read(store.endpoints, scope, limit + 1, cursor)
        return [store.to_endpoint(row) for row in rows[:limit]], rows[limit - 1].id if len(rows) > limit else None

    async def get(self, scope: Scope, endpoint_id: str) -> Endpoint:
        """Raises Missing."""
        return store.to_endpoint(await self._database.read(store.endpoint, scope, endpoint_id))

    async def change(self, caller: Caller, endpoint_id: str, **changes: Any) -> Endpoint:
        """`changes`: of url, description, events, enabled. Switched on again, it gets what waited. Raises Missing,
        Invalid."""
        return await self._database.write(self._change, caller, endpoint_id, self._checked(changes))

    async def remove(self, caller: Caller, endpoint_id: str) -> None:
        """With its log; what waited for it is not delivered. Raises Missing."""
        await self._database.write(self._remove, caller, endpoint_id)

    async def rotate(self, caller: Caller, endpoint_id: str, overlap: float = 0.0) -> tuple[Endpoint, str]:
        """A new secret, shown once; for `overlap` seconds deliveries are signed with the old one too.

        Raises Missing, Invalid.
        """
        if not 0 <= overlap <= MAX_OVERLAP:
            raise Invalid("The old secret may be good for 0 seconds to 30 days more.", code="bad_overlap")
        return await self._database.write(self._rotate, caller, endpoint_id, overlap)

    async def test(self, caller: Caller, endpoint_id: str) -> Delivery:
        """Send it a `webhook.test`, whatever its filters say. Raises Missing, Conflict (it is switched off)."""
        return await self._database.write(self._test, caller, endpoint_id)

    async def deliveries(
        self,
        scope: Scope,
        endpoint_id: str,
        *,
        state: DeliveryState | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Sequence[Delivery], str | None]:
        """The log, newest first, with the cursor of what follows. Raises Missing."""
        check_limit(limit)
        found = await self._database.read(store.deliveries, scope, endpoint_id, state, limit + 1, cursor)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def delivery(self, scope: Scope, endpoint_id: str, delivery_id: str) -> DeliveryDetail:
        """With what was sent, and each attempt. Raises Missing."""
        return store.to_detail(*await self._database.read(store.delivery, scope, endpoint_id, delivery_id))

    async def redeliver(self, caller: Caller, endpoint_id: str, delivery_id: str) -> Delivery:
        """Send it once more, with the same webhook-id, and try again as at first. Raises Missing, Conflict."""
        return await self._database.write(self._redeliver, caller, endpoint_id, delivery_id)

    async def signing_secret(self, scope: Scope) -> str:
        """What deliveries to addresses named for one event are signed with."""
        return await self._webhooks.signing_secret(scope)

    # -- transactions

    def _create(self, session: Session, caller: Caller, wanted: dict[str, Any]) -> tuple[Endpoint, str]:
        if store.count(session, caller.scope) >= self._options.endpoints:
            raise Conflict(
                f"There are {self._options.endpoints} endpoints already. Remove one first.", code="too_many_webhooks"
            )
        at, secret = self._clock(), signing.new_secret()
        row = EndpointRow(
            id=new_id("whk"),
            tenant_id=caller.scope.tenant,
            secret=self._sealer.seal(PURPOSE, secret),
            created_at=at,
            updated_at=at,
            **wanted,
        )
        session.add(row)
        self._told(session, caller, "webhook.created", row, at=_place(row.url), events=row.events)
        return store.to_endpoint(row), secret

    def _change(self, session: Session, caller: Caller, endpoint_id: str, changes: dict[str, Any]) -> Endpoint:
        row = store.endpoint(session, caller.scope, endpoint_id)
        begins_anew = changes.get("enabled", False) and not row.enabled
        row.sqlmodel_update(changes)
        row.updated_at = self._clock()
        if begins_anew or "url" in changes:
            row.failing_since = None
        if row.enabled:
            row.disabled_reason = None
        session.add(row)
        session.flush()
        if begins_anew:
            self._webhooks.outbox.call(session, caller.scope.tenant, row.id)
        detail = {"at": _place(row.url)} if "url" in changes else {}
        self._told(session, caller, "webhook.changed", row, changed=sorted(changes), **detail)
        return store.to_endpoint(row)

    def _remove(self, session: Session, caller: Caller, endpoint_id: str) -> None:
        row = store.endpoint(session, caller.scope, endpoint_id)
        for table in (DeliveryRow, CourierRow):
            mine = (col(table.tenant_id) == row.tenant_id, col(table.lane) == row.id)
            session.execute(delete(table).where(*mine))
        session.delete(row)
        self._told(session, caller, "webhook.removed", row, at=_place(row.url))

    def _rotate(self, session: Session, caller: Caller, endpoint_id: str, overlap: float) -> tuple[Endpoint, str]:
        row = store.endpoint(session, caller.scope, endpoint_id)
        at, secret = self._clock(), signing.new_secret()
        row.previous_secret, row.previous_until = (row.secret, at + overlap) if overlap else (None, None)
        row.secret, row.updated_at = self._sealer.seal(PURPOSE, secret), at
        session.add(row)
        self._told(session, caller, "webhook.rotated", row, overlap=overlap)
        return store.to_endpoint(row), secret

    def _test(self, session: Session, caller: Caller, endpoint_id: str) -> Delivery:
        row = store.endpoint(session, caller.scope, endpoint_id)
        self._must_be_on(row)
        event = self._webhooks.event(events.TEST, {"webhook_id": row.id})
        delivery_id = self._webhooks.outbox.put(session, caller.scope.tenant, row.id, event)
        self._audit.record(session, caller, "webhook.tested", row.id)
        return store.to_delivery(*store.delivery(session, caller.scope, endpoint_id, delivery_id))

    def _redeliver(self, session: Session, caller: Caller, endpoint_id: str, delivery_id: str) -> Delivery:
        row, to = store.delivery(session, caller.scope, endpoint_id, delivery_id)
        self._must_be_on(to)
        at = self._clock()
        row.state, row.next_at, row.finished_at, row.failures = "queued", at, None, 0
        row.until = at + self._options.retry_hours * 3600
        session.add(row)
        session.flush()
        self._webhooks.outbox.call(session, caller.scope.tenant, to.id)
        self._audit.record(session, caller, "webhook.redelivered", to.id, delivery=row.id)
        return store.to_delivery(row, to)

    # -- inside

    def _must_be_on(self, row: EndpointRow) -> None:
        if not row.enabled:
            raise Conflict("This endpoint is switched off. Switch it on first.", code="webhook_off")

    def _told(self, session: Session, caller: Caller, action: str, row: EndpointRow, **detail: Any) -> None:
        self._audit.record(session, caller, action, row.id, **detail)
        after_commit(session, self._webhooks.changed)

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        """Raises Invalid."""
        checked = {name: value for name, value in given.items() if name in CHANGEABLE and value is not None}
        if "url" in checked:
            checked["url"] = self._outbound.check(checked["url"])
        if "events" in checked:
            checked["events"] = list(events.filters_of(checked["events"]))
        if "description" in checked:
            checked["description"] = _line(checked["description"])
        return checked


def _place(url: str) -> str:
    """Scheme, host and port, for the audit log: a path may be a secret."""
    scheme, host, port = origin(url)
    return f"{scheme}://{host}:{port}"


def _line(given: str) -> str:
    text = " ".join(given.split())
    if len(text) > MAX_DESCRIPTION or not text.isprintable():
        raise Invalid(f"A description is one line of at most {MAX_DESCRIPTION} visible characters.", code="bad_text")
    return text
