"""`terrace worker` with settings that can't be."""

from pathlib import Path

import pytest
from tests.cli.conftest import invoke


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--engine", "celery"), "TERRACE_JOBS__BROKER"),
        (("--engine", "celery", "--port", "0"), "leave out --port"),
        (("--engine", "steam"), "TERRACE_JOBS__ENGINE"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = invoke({"TERRACE_DATA": str(tmp_path)}, "worker", *arguments)
    assert done.code == 2
    assert told in done.err
