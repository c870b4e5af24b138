"""Every hour: is the corpus as it should be? The task fails, and Airflow tells whom it tells, when it is not."""

from datetime import datetime, timedelta

from airflow.sdk import dag
from terrace_airflow.operators import CheckQuality

# What is never right; the other findings (docs/schedules.md) are a matter of taste.
BOUNDS = {"document_stuck": 0, "document_hollow": 0, "blob_missing": 0, "text_missing": 0, "vectors_odd": 0}


@dag(
    schedule="0 * * * *",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 - in Airflow's own time zone
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=1)},
    tags=["terrace"],
    doc_md=__doc__,
)
def terrace_hourly_quality() -> None:
    CheckQuality(task_id="quality", bounds=BOUNDS, wait_for=timedelta(minutes=50))


terrace_hourly_quality()
