"""The one table of what can be told."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from terrace.errors import Invalid

TEST = "webhook.test"
EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "document.ready": "A document can be searched.",
        "document.failed": "A document could not be read.",
        "analysis.succeeded": "An analysis has its result.",
        "analysis.failed": "An analysis ended without a result.",
        "campaign.message": "A message of a campaign is written, or could not be.",
        "campaign.finished": "A campaign has no message left to write.",
        "batch.finished": "A batch of /v1/batches has ended.",
        "schedule.failed": "A scheduled run could not start, or failed.",
        "job.succeeded": "A job is done (parts of other jobs are not told).",
        "job.failed": "A job failed for good (parts of other jobs are not told).",
        TEST: "Sent by hand, to see whether an endpoint answers.",
    }
)
FAMILIES = tuple(sorted({f"{each.partition('.')[0]}.*" for each in EVENTS}))


def filters_of(given: Iterable[str]) -> tuple[str, ...]:
    """Sorted, each once. Raises Invalid for what is neither a type nor a family such as `campaign.*`."""
    wanted = sorted(set(given))
    if "*" in wanted:
        return ()
    for each in wanted:
        if each not in EVENTS and each not in FAMILIES:
            raise Invalid(
                f"There is no event {each[:100]!r}. Known: {', '.join((*EVENTS, *FAMILIES))}.", code="unknown_event"
            )
    return tuple(wanted)


def wants(filters: Iterable[str], type: str) -> bool:
    """Whether an endpoint with these filters is told of it; one without any is told of everything."""
    wanted = tuple(filters)
    return not wanted or type in wanted or f"{type.partition('.')[0]}.*" in wanted
