"""The carrier of the settings."""

from terrace import settings
from terrace.errors import Invalid, bring
from terrace.jobs.carriers.base import Carrier
from terrace.jobs.carriers.table import TableCarrier


def open_carrier(options: settings.Redis) -> Carrier:
    """Redis where it is configured. It need not be there yet. Raises Invalid for a URL it does not take."""
    if not options.url:
        return TableCarrier()
    try:
        from terrace.jobs.carriers.redis import RedisCarrier
    except ImportError as error:
        raise Invalid(
            f"redis.url is set, but the Redis client is missing: {bring('redis')}.", code="extra_missing"
        ) from error
    try:
        return RedisCarrier(options.url, options.prefix)
    except ValueError as error:
        raise Invalid(
            "redis.url must be like redis://host:6379/0, rediss://... or unix:///path.", code="bad_setting"
        ) from error
