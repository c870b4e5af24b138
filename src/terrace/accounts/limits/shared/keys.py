"""What shared limits are called where processes meet."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime

from terrace.accounts.limits import store
from terrace.accounts.limits.base import LimitName, Subject
from terrace.accounts.limits.meters import Meter, Total, period
from terrace.accounts.limits.shared.base import Key
from terrace.telemetry.store import Recent
from terrace.types import Scope

FAR = 1e12  # the end of what has none
DAY = 86_400.0

Days = Mapping[tuple[str, int, str, str, str], list[int]]
"""`telemetry.store.Batch.days`: sums by tenant, day, user, key, model."""


def key_of(meter: Meter) -> Key:
    """The limit of a meter, in the day or month it counts now."""
    rule = meter.rule
    began = meter.begins if isinstance(meter, Total) else None
    return rule.subject.tenant, _key(rule.subject, rule.name, began)


def _key(subject: Subject, name: LimitName, begins: float | None) -> str:
    if begins is None:
        return f"{store.named(subject)}|{name}|"
    day = datetime.fromtimestamp(begins, UTC).date().isoformat()
    return f"{store.named(subject)}|{name}|{day[:7] if name == 'money_per_month' else day}"


def named(key: str) -> tuple[str, LimitName, str]:
    """Whose (`user:usr_ada`), which limit, and its day or month."""
    whose, name, when = key.rsplit("|", 2)
    return whose, name, when  # type: ignore[return-value]  # written by `_key`


def span(key: str) -> tuple[str, str, float] | None:
    """The first and last day of a limit's day or month and when it ends; None for what has none."""
    _, name, when = named(key)
    if not when:
        return None
    first = datetime.fromisoformat(when if len(when) == 10 else f"{when}-01").replace(tzinfo=UTC).timestamp()
    _, ends = period(name, first)
    return _day(first), _day(ends - DAY), ends


def part(key: Key, call: Recent) -> int:
    """What a call that ended counts towards a limit of the minute."""
    tenant, name = key
    whose, limit, _ = named(name)
    if call.tenant != tenant or whose not in ("tenant", f"user:{call.user}", f"key:{call.key}"):
        return 0
    return 1 if limit == "requests_per_minute" else call.tokens


def amounts(days: Days) -> dict[Key, int]:
    """What calls come to on every limit that there may be of them."""
    found: dict[Key, int] = defaultdict(int)
    for (tenant, number, user, key, _), sums in days.items():
        begins = number * DAY
        tokens, cost = sums[3] + sums[5], sums[6]
        for subject in store.subjects(Scope(tenant, user or None, key or None)):
            if tokens:
                found[tenant, _key(subject, "tokens_per_day", begins)] += tokens
            if cost:
                found[tenant, _key(subject, "money_per_day", begins)] += cost
                found[tenant, _key(subject, "money_per_month", begins)] += cost
    return found


def minutes(days: Days) -> dict[Key, int]:
    """What calls that just ended count towards limits of the minute."""
    found: dict[Key, int] = defaultdict(int)
    for (tenant, _, user, key, _), sums in days.items():
        for subject in store.subjects(Scope(tenant, user or None, key or None)):
            found[tenant, _key(subject, "requests_per_minute", None)] += sums[0]
            found[tenant, _key(subject, "tokens_per_minute", None)] += sums[3] + sums[5]
    return found


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
