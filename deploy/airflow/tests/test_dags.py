"""The DAGs as Airflow reads them."""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

FOLDER = Path(__file__).parent.parent / "dags"


@pytest.mark.parametrize(
    ("name", "cron", "tasks"),
    [
        ("terrace_daily_ingestion", "0 2 * * *", {"sources", "folder"}),
        ("terrace_weekly_reembedding", "0 3 * * 0", {"make_room", "reembed"}),
        ("terrace_hourly_quality", "0 * * * *", {"quality"}),
    ],
)
def test_they_load_and_come_at_their_time(name: str, cron: str, tasks: set[str]) -> None:
    bag = DagBag(FOLDER)
    assert bag.import_errors == {}
    dag = bag.dags[name]
    assert set(dag.task_ids) == tasks
    assert dag.schedule == cron
    assert not dag.catchup
