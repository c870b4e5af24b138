"""Every night at two: what is new in Terrace's sources and in a folder that the worker sees."""

import os
from datetime import datetime, timedelta

from airflow.sdk import dag
from terrace_airflow.operators import RunSources, UploadFolder


@dag(
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 - in Airflow's own time zone
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    tags=["terrace"],
    doc_md=__doc__,
)
def terrace_daily_ingestion() -> None:
    RunSources(task_id="sources")
    UploadFolder(
        task_id="folder",
        folder=os.environ.get("TERRACE_INGEST_FOLDER", "/var/lib/terrace/incoming"),
        collection=os.environ.get("TERRACE_INGEST_COLLECTION", "Incoming"),
        tags=("airflow",),
    )


terrace_daily_ingestion()
