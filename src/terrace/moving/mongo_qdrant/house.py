"""What an import reads from, and what it works on."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from terrace.jobs.base import Jobs
from terrace.knowledge.generations.service import Generations
from terrace.knowledge.health.base import InspectedIndex
from terrace.moving.mongo_qdrant.base import Documents, Points
from terrace.moving.mongo_qdrant.fitting import Opener
from terrace.moving.mongo_qdrant.mapping import Mapping
from terrace.moving.mongo_qdrant.writing import Admit, unlimited
from terrace.storage import Blobs, Database


@dataclass(frozen=True, slots=True)
class Source:
    """What is read, how, and from where, as it may be shown."""

    mapping: Mapping
    documents: Documents | None
    points: Points | None
    places: dict[str, str]

    def plan(self) -> str:
        """The same for the same mapping and places."""
        return sha256(msgspec.json.encode([self.mapping.fingerprint(), sorted(self.places.items())])).hexdigest()


@dataclass(frozen=True, slots=True)
class House:
    """What an import works on. `opener` gives the embedder of (setting, precision); `configured` is the settings'."""

    database: Database
    blobs: Blobs
    index: InspectedIndex
    jobs: Jobs
    generations: Generations
    opener: Opener
    configured: str
    folder: Path  # where imports stage what they read
    admit: Admit = unlimited
