"""How one process's events reach the followers in others; the table holds them whatever happens here."""

from terrace.jobs.carriers.base import Carrier, Ears
from terrace.jobs.carriers.opening import open_carrier
from terrace.jobs.carriers.table import TableCarrier

__all__ = ["Carrier", "Ears", "TableCarrier", "open_carrier"]
