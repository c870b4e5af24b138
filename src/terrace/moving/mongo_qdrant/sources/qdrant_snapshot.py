"""A snapshot of Qdrant: a tar of its server's own files. It says what it holds; its points only a Qdrant can read."""

import json
import tarfile
from pathlib import Path
from typing import Any

from terrace.errors import Invalid
from terrace.moving.mongo_qdrant.base import Space
from terrace.moving.mongo_qdrant.sources.qdrant_server import spaces_of

MAX_CONFIG = 1024**2
WAY = (
    "Its points lie in the storage of Qdrant's server, which changes from version to version, so only a Qdrant can "
    "read them. Restore it into one (PUT /collections/NAME/snapshots/recover, or `qdrant --snapshot FILE:NAME`) and "
    "name its address; or write its points as JSON lines there (POST /collections/NAME/points/scroll with "
    "with_vector) and name that file. docs/importing.md shows both."
)


def is_snapshot(path: Path) -> bool:
    return tarfile.is_tarfile(path)


def refuse(path: Path) -> Invalid:
    """Why it can't be read here, with what it holds, and the two ways that lead on."""
    spaces = _spaces(path)
    if spaces is None:
        return Invalid(f"{path} is a tar file, but no snapshot of a Qdrant collection.", code="snapshot_unknown")
    told = " and ".join(f"{each.name or 'unnamed'} ({each.dimensions} dimensions, {each.distance})" for each in spaces)
    return Invalid(f"{path} is a snapshot of a Qdrant collection with vectors {told}. {WAY}", code="snapshot_unread")


def _spaces(path: Path) -> tuple[Space, ...] | None:
    """Of its `config.json`; None where there is none."""
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.removeprefix("./") == "config.json" and member.size <= MAX_CONFIG:
                    file = tar.extractfile(member)
                    told: Any = json.load(file) if file is not None else {}
                    return spaces_of(told["params"]["vectors"])
    except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError):
        return None
    return None
