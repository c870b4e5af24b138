"""A connection to a Terrace: its address as host and port, an API key as password."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from airflow.sdk import BaseHook

from terrace_airflow.answers import TIMEOUT, TerraceAway, base_url, headers, read


class TerraceHook(BaseHook):
    conn_name_attr = "terrace_conn_id"
    default_conn_name = "terrace_default"
    conn_type = "terrace"
    hook_name = "Terrace"

    def __init__(self, terrace_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.terrace_conn_id = terrace_conn_id

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        return {
            "hidden_fields": ["login", "extra"],
            "relabeling": {"password": "API key", "schema": "http or https"},
            "placeholders": {"host": "terrace.example.org", "port": "8000"},
        }

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON it answers. Raises TerraceRefused or TerraceAway with its own sentence."""
        with self._client() as client:
            return read(client.request(method, path, **options))

    async def acall(self, method: str, path: str, **options: Any) -> Any:
        async with self._aclient() as client:
            return read(await client.request(method, path, **options))

    def items(self, path: str) -> Iterator[Mapping[str, Any]]:
        """All of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.call("GET", path, params={"cursor": cursor} if cursor else {})
            yield from page["items"]
            if (cursor := page["next"]) is None:
                return

    def test_connection(self) -> tuple[bool, str]:
        """What Airflow's button asks."""
        try:
            self.call("GET", "/api/jobs", params={"limit": 1})
        except Exception as error:
            return False, str(error)
        return True, "Terrace answers."

    @contextmanager
    def _client(self) -> Iterator[httpx.Client]:
        told = self.get_connection(self.terrace_conn_id)
        with _away(), httpx.Client(**_options(told)) as client:
            yield client

    @asynccontextmanager
    async def _aclient(self) -> AsyncIterator[httpx.AsyncClient]:
        told = await self.aget_connection(self.terrace_conn_id)
        with _away():
            async with httpx.AsyncClient(**_options(told)) as client:
                yield client


def _options(connection: Any) -> dict[str, Any]:
    url = base_url(connection.schema, connection.host, connection.port)
    return {"base_url": url, "headers": headers(connection.password), "timeout": TIMEOUT, "trust_env": False}


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as error:
        raise TerraceAway(f"Terrace cannot be reached ({type(error).__name__}).") from error
