"""Waiting for jobs in the triggerer, where a thousand waits cost no worker."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from terrace_airflow.answers import FINAL, TerraceAway, TerraceRefused
from terrace_airflow.hook import TerraceHook

LONGEST_PAUSE = 30.0  # seconds


class JobsTrigger(BaseTrigger):
    """Fires once all these jobs have ended: `{"jobs": [...]}`, or `{"error": sentence}`.

    `poll` is the first pause between two looks, in seconds; it doubles up to half a minute. `patience` is how long
    Terrace may be away. What is serialized holds no secret: the connection is looked up by its id.
    """

    def __init__(
        self, terrace_conn_id: str, job_ids: Sequence[str], poll: float = 1.0, patience: float = 900.0
    ) -> None:
        super().__init__()
        self.terrace_conn_id = terrace_conn_id
        self.job_ids = list(job_ids)
        self.poll = poll
        self.patience = patience

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return (
            "terrace_airflow.triggers.JobsTrigger",
            {
                "terrace_conn_id": self.terrace_conn_id,
                "job_ids": self.job_ids,
                "poll": self.poll,
                "patience": self.patience,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        hook = TerraceHook(self.terrace_conn_id)
        ended: dict[str, Any] = {}
        pause = self.poll
        away_since: float | None = None
        while left := [job_id for job_id in self.job_ids if job_id not in ended]:
            try:
                for job_id in left:
                    job = await hook.acall("GET", f"/api/jobs/{job_id}")
                    if job["state"] in FINAL:
                        ended[job_id] = job
                away_since = None
            except TerraceRefused as error:
                yield TriggerEvent({"error": str(error)})
                return
            except TerraceAway as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self.patience:
                    yield TriggerEvent({"error": str(error)})
                    return
            if len(ended) < len(self.job_ids):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        yield TriggerEvent({"jobs": [_told(ended[job_id]) for job_id in self.job_ids]})


def _told(job: dict[str, Any]) -> dict[str, Any]:
    """What an operator needs of it: events are kept in Airflow's database."""
    return {
        "id": job["id"],
        "kind": job["kind"],
        "state": job["state"],
        "error": (job.get("error") or {}).get("message"),
    }
