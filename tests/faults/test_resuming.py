"""Work that goes on where it was outlives more deaths of the server than a file that kills its reader."""

from pathlib import Path

from terrace import assembly
from terrace.settings import Settings


async def test_long_work_is_not_given_up_at_the_third_death(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, models={"discover": False}, knowledge={"embedding": {"model": "none"}})
    async with assembly.assemble(settings) as house:
        rules = house.jobs.rules
        for kind in (
            "analysis.run", "batch.run", "campaign.run", "contacts.import", "databases.import", "index.reembed",
            "source.run",
        ):  # fmt: skip
            assert kind in rules.kinds, kind
            assert rules.max_crashes(kind) == 20, kind
        assert rules.max_crashes("knowledge.ingest") == 3
