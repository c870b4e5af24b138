"""The sentences of limits: which one, whose, who set it, and when there is room."""

from math import ceil

from terrace.accounts.limits.base import LimitName, SubjectKind
from terrace.accounts.limits.meters import Rule
from terrace.accounts.limits.room import Asked, Refusal
from terrace.errors import Denied, Limited
from terrace.telemetry.calls import PICODOLLARS, Demand

MONEY = frozenset({"money_per_day", "money_per_month"})
NEVER = float("inf")

_WHOSE: dict[SubjectKind, str] = {"tenant": "this tenant", "user": "this account", "key": "this key"}
_SETTERS = {"terminal": "at the terminal", "local": "on this machine"}
_PER: dict[LimitName, str] = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute",
    "tokens_per_day": "tokens a day",
    "money_per_day": "a day",
    "money_per_month": "a month",
    "concurrent_requests": "model calls at a time",
    "stored_bytes": "bytes of documents",
    "documents": "documents",
}


class NoRoom(Exception):
    """Some limits are in the way. `told` makes the error of it that a caller sees."""

    def __init__(
        self,
        refusals: list[Refusal],
        demand: Demand | None = None,
        *,
        queued: bool = False,
        asked: Asked | None = None,
    ) -> None:
        super().__init__("no room")
        self.refusals = refusals
        self.asked = asked
        self.worst = max(refusals, key=lambda each: NEVER if each.wait is None else each.wait)
        self.wait = self.worst.wait
        self._demand = demand
        self._queued = queued

    def hopeless(self, patience: float) -> bool:
        """Whether waiting for so many seconds cannot help."""
        return any(each.wait is None or (each.firm and each.wait > patience) for each in self.refusals)

    def told(self) -> Limited:
        worst = self.worst
        rule, used = worst.meter.rule, worst.meter.used + worst.meter.elsewhere
        if worst.wait is None:
            return limited(rule, used, _never(rule, worst.amount, self._demand))
        if self._queued and rule.value - used >= worst.amount:
            why = "Others wait for room there already, and come first."
        elif rule.name == "concurrent_requests":
            why = f"{used:,} are under way. Wait for one of them to end."
        else:
            needed = f" and this call may need {shown(rule.name, worst.amount)}" if worst.amount > 1 else ""
            taken = "spent or reserved" if rule.name in MONEY else "used or reserved"
            why = f"{shown(rule.name, used)} are {taken}{needed}. {_again(rule.name, worst)}"
        return limited(rule, used, why, worst.wait)


def limited(rule: Rule, used: int, why: str, retry_after: float | None = None) -> Limited:
    """Names the limit in a sentence, and says `why` it is in the way."""
    setter = _SETTERS.get(rule.set_by, f"by {rule.set_by}")
    verb = "spend" if rule.name in MONEY else "keep" if rule.name in ("stored_bytes", "documents") else "have"
    limit = f"{shown(rule.name, rule.value)} {_PER[rule.name]}"
    return Limited(
        f"{_WHOSE[rule.subject.kind].capitalize()} may {verb} {limit} (a limit set {setter}). {why}",
        code="limit_reached",
        retry_after=retry_after,
        limit=rule.name,
        subject=rule.subject.kind,
        set_by=rule.set_by,
        value=amount(rule.name, rule.value),
        used=amount(rule.name, used),
    )


def price_unknown(rule: Rule, demand: Demand) -> Denied:
    return Denied(
        f"{_WHOSE[rule.subject.kind].capitalize()} has a limit of money, and nobody knows what "
        f"`{demand.provider}/{demand.model}` costs. Ask the operator to set its price, or choose another model.",
        code="price_unknown",
        model=f"{demand.provider}/{demand.model}",
    )


def amount(name: LimitName, value: int) -> float:
    """As the API tells it: money in dollars."""
    return value / PICODOLLARS if name in MONEY else value


def shown(name: LimitName, value: int) -> str:
    """As a sentence tells it."""
    if name not in MONEY:
        return f"{value:,}"
    dollars = value / PICODOLLARS
    return f"${dollars:,.2f}" if value % (PICODOLLARS // 100) == 0 else f"${dollars:,.6f}".rstrip("0")


def _never(rule: Rule, needed: int, demand: Demand | None) -> str:
    if demand is None:
        return f"This needs {needed:,}, so it can never fit."
    parts = f"{demand.input_tokens:,} tokens of input and {demand.output_tokens or 'some'} for the answer"
    advice = "Send less" if demand.output_tokens is None else "Send less, or lower max_tokens"
    return (
        f"This call alone may need {shown(rule.name, needed)} ({parts}), so it can never fit. {advice}, "
        "or have the limit raised."
    )


def _again(name: LimitName, refusal: Refusal) -> str:
    wait = refusal.wait or 0.0
    if name.endswith("minute"):
        return f"There is room again in {max(1, ceil(wait))} s."
    if not refusal.firm:
        return "There may be room as soon as a call under way ends."
    when = "at the end of the month" if name == "money_per_month" else "at midnight"
    return f"There is room again {when} UTC, in {_hours(wait)}."


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    return f"{hours:.0f} hours" if hours >= 2 else f"{max(1, round(seconds / 60))} minutes"
