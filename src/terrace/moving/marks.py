"""What a restore leaves in the data folder, so that nobody starts on half of an installation."""

from pathlib import Path

from terrace.errors import Conflict

RESTORING = "restoring"  # with the backup's id, until it is done
RESTORED = "restored"  # from then on


def whole(data: Path) -> None:
    """Raises Conflict where a restore was begun and not ended."""
    if (data / RESTORING).exists():
        raise Conflict(
            f"A restore into {data} was begun and not ended. Go on with `terrace restore FILE --resume`, or name an "
            "empty folder in TERRACE_DATA.",
            code="restore_begun",
        )
