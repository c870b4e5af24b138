"""Terrace for Apache Airflow: a hook, a trigger, and operators that start work over the API and wait for its jobs."""

__version__ = "0.1.0"
