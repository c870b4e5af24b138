"""What stands around a provider, each a provider itself."""

from terrace.models.base import Meter, Provider
from terrace.models.wrappers.bounded import Bounded
from terrace.models.wrappers.fallback import Choice, Fallback
from terrace.models.wrappers.limited import Gate, Limited
from terrace.models.wrappers.metered import Metered
from terrace.models.wrappers.retry import Retry
from terrace.models.wrappers.timeouts import Timeouts
from terrace.settings import Models

__all__ = ["Bounded", "Choice", "Fallback", "Gate", "Limited", "Metered", "Retry", "Timeouts", "wrapped"]


def wrapped(provider: Provider, gate: Gate, settings: Models, meter: Meter, kind: str) -> Retry:
    """From the inside: an attempt is bounded in size and in time, behind the gate; the meter lets it pass and books it,
    the wait at the gate included; attempts are repeated, each a call of its own that may be billed."""
    patient = Timeouts(
        Bounded(provider, settings.max_answer_bytes),
        first=settings.first_token_timeout,
        idle=settings.idle_timeout,
        total=settings.total_timeout,
    )
    return Retry(Metered(Limited(patient, gate), meter, kind), settings.retries)
