"""A campaign as somebody wants it, checked before it is kept."""

import hashlib
import math
import secrets
from dataclasses import asdict
from typing import Any

import msgspec
from sqlmodel import Session, select

from terrace import settings
from terrace.campaigns.contacts import store as contacts
from terrace.campaigns.runs.base import Choice, Options, Wanted
from terrace.campaigns.runs.tables import CampaignRow
from terrace.campaigns.templates import service as templates
from terrace.errors import Conflict, Invalid
from terrace.telemetry.calls import PICODOLLARS
from terrace.telemetry.prices import Price
from terrace.types import Scope, new_id, now

MAX_NAME_CHARS = 200
MAX_TOKENS = 32_768
MAX_BUDGET = 1_000_000  # dollars
MAX_CONCURRENCY = 1000
MAX_AHEAD = 365 * 86_400.0
MAX_KEY_CHARS = 200
MAX_CAMPAIGNS = 10_000


def check(wanted: Wanted, options: settings.Campaigns) -> None:
    """Raises Invalid."""
    if len(wanted.name) > MAX_NAME_CHARS or not wanted.name.isprintable():
        raise Invalid(f"A campaign's name has at most {MAX_NAME_CHARS} characters.", code="bad_name")
    check_options(wanted.options)
    check_concurrency(wanted.concurrency)
    picodollars(wanted.budget)
    if wanted.start_at is not None and not now() - 3600 <= wanted.start_at <= now() + MAX_AHEAD:
        raise Invalid("A campaign starts between now and a year from now.", code="bad_start")


def check_options(options: Options) -> None:
    """Raises Invalid."""
    if not 16 <= options.max_tokens <= MAX_TOKENS:
        raise Invalid(f"`max_tokens` lies between 16 and {MAX_TOKENS:,}.", code="bad_max_tokens")
    if options.temperature is not None and not 0 <= options.temperature <= 2:
        raise Invalid("`temperature` lies between 0 and 2.", code="bad_temperature")


def check_concurrency(concurrency: int | None) -> None:
    """Raises Invalid."""
    if concurrency is not None and not 1 <= concurrency <= MAX_CONCURRENCY:
        raise Invalid(f"Between 1 and {MAX_CONCURRENCY} messages are written at a time.", code="bad_concurrency")


def picodollars(budget: float | None) -> int | None:
    """Raises Invalid."""
    if budget is None:
        return None
    if not math.isfinite(budget) or not 0 <= budget <= MAX_BUDGET:
        raise Invalid(f"A budget is an amount in dollars, from 0 to {MAX_BUDGET:,}.", code="bad_budget")
    return round(budget * PICODOLLARS)


def check_price(price: Price | None, choice: Choice | None, budget: float | None) -> None:
    """A budget needs a price. Raises Invalid."""
    if budget is not None and choice is not None and price is None:
        raise Invalid(
            f"Nobody knows the price of {choice.id}, so no budget can hold. Set its price, or leave the budget out.",
            code="price_unknown",
        )


def create(
    session: Session, scope: Scope, wanted: Wanted, model: str, options: settings.Campaigns, key: str | None
) -> CampaignRow:
    """The same key gives the campaign it made. Raises Missing (list, template), Conflict (the key was used for
    another)."""
    key, print = request_key(scope, key), fingerprint(wanted)
    if key is not None and (known := made_before(session, scope, key, print)) is not None:
        return known
    people = contacts.get_list(session, scope, wanted.list)
    template = templates.find(session, scope, wanted.template)
    version = templates.version_of(session, scope, template.id, wanted.version or template.version)
    moment = now()
    row = CampaignRow(
        id=new_id("cmp"),
        tenant_id=scope.tenant,
        user_id=scope.user,
        key_id=scope.key,
        name=" ".join(wanted.name.split()) or f"{template.name}: {people.name}"[:MAX_NAME_CHARS],
        state="draft",
        list_id=people.id,
        template_id=template.id,
        template_version=version.version,
        mode=version.mode,
        model=model,
        options=asdict(wanted.options),
        walls=[sorted(wall) for wall in scope.models],
        collection=wanted.collection or None,
        budget=picodollars(wanted.budget),
        concurrency=wanted.concurrency or options.concurrency,
        start_at=wanted.start_at,
        webhook=wanted.webhook or None,
        code=secrets.token_hex(4),
        request_key=key,
        fingerprint=print,
        created_at=moment,
        updated_at=moment,
    )
    session.add(row)
    session.flush()
    return row


def change(session: Session, scope: Scope, row: CampaignRow, changes: dict[str, Any]) -> None:
    """What is given, as `Wanted` has it; `model` is resolved. Raises Invalid, Missing, Conflict."""
    if "name" in changes:
        row.name = " ".join(str(changes["name"] or "").split())[:MAX_NAME_CHARS] or row.name
    if "list" in changes:
        row.list_id = contacts.get_list(session, scope, changes["list"]).id
    if "template" in changes or "version" in changes:
        template = templates.find(session, scope, changes.get("template", row.template_id))
        version = templates.version_of(session, scope, template.id, changes.get("version") or template.version)
        row.template_id, row.template_version, row.mode = template.id, version.version, version.mode
    if "options" in changes:
        options = Options(**{**(row.options or {}), **changes["options"]})
        check_options(options)
        row.options = asdict(options)
    if changes.get("concurrency") is not None:
        check_concurrency(changes["concurrency"])
        row.concurrency = changes["concurrency"]
    if "budget" in changes:
        _change_budget(row, picodollars(changes["budget"]))
    for name in ("model", "collection", "start_at", "webhook"):
        if name in changes:
            setattr(row, name, changes[name])
    row.updated_at = now()


def _change_budget(row: CampaignRow, budget: int | None) -> None:
    """What is being written without a budget has reserved nothing, so a first one waits for its end."""
    raised = row.budget is not None and (budget is None or budget >= row.budget)
    if row.writing and not raised:
        raise Conflict("Pause the campaign before you set its budget or lower it.", code="campaign_running")
    row.budget = budget


def made_before(session: Session, scope: Scope, key: str, print: str) -> CampaignRow | None:
    """Raises Conflict."""
    query = select(CampaignRow).where(CampaignRow.tenant_id == scope.tenant, CampaignRow.request_key == key)
    row = session.exec(query).one_or_none()
    if row is not None and row.fingerprint != print:
        raise Conflict(
            "This idempotency key was used for a different campaign. Take a new key for a new one.",
            code="idempotency_key_reused",
            campaign=row.id,
        )
    return row


def request_key(scope: Scope, key: str | None) -> str | None:
    """A key is its sender's own. Raises Invalid."""
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY_CHARS:
        raise Invalid(f"An idempotency key has 1 to {MAX_KEY_CHARS} characters.", code="bad_idempotency_key")
    return f"{scope.user or ''}/{key}"


def fingerprint(wanted: Wanted) -> str:
    """The same for the same wish."""
    told: dict[str, Any] = asdict(wanted)
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()
