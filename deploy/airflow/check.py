"""What `make airflow` does: a Terrace with sample files, every DAG run by Airflow for real, and a look at what came.

Run by Airflow's own Python; the only argument is the `terrace` command to start.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
DAGS = ("terrace_daily_ingestion", "terrace_weekly_reembedding", "terrace_hourly_quality")
LONGEST = 900  # seconds one DAG may take


def main(terrace: str) -> None:
    with tempfile.TemporaryDirectory(prefix="terrace-airflow-") as folder:
        root = Path(folder)
        watched, incoming = root / "watched", root / "incoming"
        shutil.copytree(HERE / "sample", watched)
        shutil.copytree(HERE / "sample", incoming)
        (incoming / "kites.txt").write_text("Paper kites fly best in a steady wind of twenty kilometres an hour.\n")
        with (
            served(terrace, root / "data", watched) as url,
            httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
        ):
            source = {"kind": "folder", "location": str(watched), "name": "Watched", "collection": "Watched"}
            answered(client.post("/api/sources", json=source))
            airflow = Airflow(root / "airflow", url, incoming)
            airflow.prepare()
            for dag in DAGS:
                airflow.run(dag)
                CHECKS[dag](client)
                print(f"ok  {dag}", flush=True)
    print("Airflow ran all three, and Terrace shows what they did.")


class Airflow:
    """An Airflow of its own: SQLite, no examples, the connection from the environment."""

    def __init__(self, home: Path, url: str, incoming: Path) -> None:
        address = httpx.URL(url)
        connection = {"conn_type": "terrace", "schema": address.scheme, "host": address.host, "port": address.port}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "TERRACE"))}
        self.home = home
        self.environment = {
            **clean,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_TERRACE_DEFAULT": json.dumps(connection),
            "TERRACE_INGEST_FOLDER": str(incoming),
            "NO_PROXY": "*",
        }

    def prepare(self) -> None:
        self._call("db", "migrate")

    def run(self, dag: str) -> None:
        """Every task, its waits included. Raises SystemExit with the log when one does not succeed."""
        log = self._call("dags", "test", dag)
        with closing(sqlite3.connect(self.home / "airflow.db")) as database:
            rows = database.execute("SELECT task_id, state FROM task_instance WHERE dag_id = ?", (dag,)).fetchall()
        if not rows or any(state != "success" for _, state in rows):
            sys.exit(f"{log}\n{dag} did not succeed: {rows}")

    def _call(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LONGEST
        )
        if done.returncode:
            sys.exit(f"{done.stdout}\nairflow {' '.join(arguments)} ended with {done.returncode}")
        return done.stdout


@contextmanager
def served(terrace: str, data: Path, watched: Path) -> Iterator[str]:
    """The address of a Terrace on a free port."""
    environment = os.environ | {
        "TERRACE_PORT": "0",
        "TERRACE_DATA": str(data),
        "TERRACE_MODELS__DISCOVER": "false",
        "TERRACE_SCHEDULES__FOLDERS": json.dumps([str(watched)]),
    }
    with subprocess.Popen([terrace, "serve"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if "ready at " not in line:
                sys.exit(f"Terrace did not start: {line}")
            yield line.split("ready at ")[1].split()[0]
        finally:
            process.terminate()


def answered(answer: httpx.Response) -> Any:
    if not answer.is_success:
        sys.exit(f"{answer.request.url} answered {answer.status_code}: {answer.text}")
    return answer.json()


def expect(good: bool, told: object) -> None:
    if not good:
        sys.exit(f"Terrace does not show what the DAG should have done: {told}")


# -- what Terrace shows then


def ingested(client: httpx.Client) -> None:
    documents = answered(client.get("/api/documents"))["items"]
    names = sorted((each["collection"], each["name"], each["state"]) for each in documents)
    watched = [("Watched", name, "ready") for name in ("glacier.txt", "harbour.md", "trains.csv")]
    incoming = [("Incoming", name, "ready") for name in ("glacier.txt", "harbour.md", "kites.txt", "trains.csv")]
    expect(names == sorted(watched + incoming), names)
    for question in ("What lifts forty tonnes?", "When does glacier water come?"):
        hits = answered(client.post("/api/search", json={"query": question}))["hits"]
        expect(bool(hits) and hits[0]["document_name"] in ("harbour.md", "glacier.txt"), hits)


def reembedded(client: httpx.Client) -> None:
    found = answered(client.get("/api/index/generations"))["items"]
    states = sorted((each["state"], each["vectors"] == each["chunks"] > 0) for each in found)
    expect(states == [("retired", True), ("serving", True)], found)


def checked(client: httpx.Client) -> None:
    report = answered(client.get("/api/index/health"))["report"]
    expect(report is not None and report["documents"] == 7, report)


CHECKS = {DAGS[0]: ingested, DAGS[1]: reembedded, DAGS[2]: checked}

if __name__ == "__main__":
    main(sys.argv[1])
