"""A hundred and fifty people ask in the same moment, through one real server on PostgreSQL: nobody is refused."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest
from tests.faults.running import Terrace, end_all
from tests.faults.slow_upstream import MODEL, upstream

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

AT_ONCE = 150


@pytest.fixture(autouse=True)
async def nothing_left() -> AsyncIterator[None]:
    yield
    await end_all()


async def test_none_of_many_at_once_is_refused(postgres_url: str, tmp_path: Path) -> None:
    async with upstream(words=5) as slow:
        terrace = Terrace(
            tmp_path,
            {
                "TERRACE_STORAGE__URL": postgres_url,
                "TERRACE_MODELS__PROVIDERS__SLOW__KIND": "openai",
                "TERRACE_MODELS__PROVIDERS__SLOW__BASE_URL": slow.url,
                "TERRACE_MODELS__DEFAULT": f"slow/{MODEL}",
            },
        )
        await terrace.start()
        bounds = httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=terrace.url, timeout=120, limits=bounds) as client:

            async def ask(number: int) -> tuple[int, str]:
                answer = await client.post("/api/chat", json={"message": f"Question {number}?", "use_rag": False})
                said = answer.json()
                return answer.status_code, said["code"] if answer.status_code != 200 else said["response"]

            answers = await asyncio.gather(*(ask(number) for number in range(AT_ONCE)))
        refused = Counter(answer for answer in answers if answer[0] != 200)
        assert not refused
        assert len({words for _, words in answers}) == AT_ONCE, "each has an answer of its own"
        with psycopg.connect(postgres_url) as connection:
            states = connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
            written = connection.execute(
                "SELECT role, state, count(*) FROM messages GROUP BY 1, 2 ORDER BY 1"
            ).fetchall()
        assert states == [("succeeded", AT_ONCE)]
        assert written == [("assistant", "complete", AT_ONCE), ("user", "complete", AT_ONCE)]
        assert await terrace.terminate() == 0
