"""What Airflow is told about this package."""

from typing import Any

from terrace_airflow import __version__


def provider_info() -> dict[str, Any]:
    return {
        "package-name": "terrace-airflow",
        "name": "Terrace",
        "description": "Ingestion, embedding and data quality of a Terrace.",
        "versions": [__version__],
        "connection-types": [{"connection-type": "terrace", "hook-class-name": "terrace_airflow.hook.TerraceHook"}],
    }
