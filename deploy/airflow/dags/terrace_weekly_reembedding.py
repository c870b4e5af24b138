"""Sundays at three: all vectors anew beside those that serve, compared, switched if alike; older ones go."""

from datetime import datetime, timedelta

from airflow.sdk import dag
from terrace_airflow.operators import DropRetiredGenerations, Reembed


@dag(
    schedule="0 3 * * 0",
    start_date=datetime(2026, 1, 1),  # noqa: DTZ001 - in Airflow's own time zone
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=15)},
    tags=["terrace"],
    doc_md=__doc__,
)
def terrace_weekly_reembedding() -> None:
    DropRetiredGenerations(task_id="make_room", keep=1) >> Reembed(task_id="reembed", wait_for=timedelta(days=2))


terrace_weekly_reembedding()
