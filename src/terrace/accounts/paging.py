"""Lists go out page by page, each with the cursor of what follows."""

from terrace.errors import Invalid

MAX_LIMIT = 200


def check_limit(limit: int) -> None:
    """Raises Invalid."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be between 1 and {MAX_LIMIT}.", code="bad_limit")
