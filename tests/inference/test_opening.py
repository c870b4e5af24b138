"""What the model server starts on, and what it refuses to."""

from pathlib import Path
from typing import Any

import pytest
from tests.inference.conftest import inferring, settings_of

from terrace.errors import Invalid
from terrace.inference.measures import WINDOW, Speed
from terrace.inference.opening import check_key


async def test_ready_tells_role_and_each_model(tmp_path: Path, gguf: Path) -> None:
    async with inferring(settings_of(tmp_path, gguf, name="small")) as server:
        said = await server.ready()
    assert said["role"] == "inference"
    assert said["checks"]["model"] == "ok: small"
    assert said["checks"]["embedding"].startswith("ok: all-MiniLM")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"model": None, "embeddings": False}, "bad_settings"),
        ({"model": Path("/nowhere/model.gguf")}, "model_file_unreadable"),
        ({"key": "short"}, "weak_key"),
    ],
)
async def test_what_it_does_not_start_on(tmp_path: Path, gguf: Path, options: dict[str, Any], code: str) -> None:
    settings = settings_of(tmp_path, gguf, **options)
    with pytest.raises(Invalid) as caught:
        async with inferring(settings):
            pass
    assert caught.value.code == code


def test_beyond_loopback_it_needs_a_key() -> None:
    check_key("", loopback=True)
    check_key("sixteen-or-more-letters", loopback=False)
    with pytest.raises(Invalid, match="TERRACE_INFERENCE__KEY"):
        check_key("", loopback=False)


async def test_a_model_that_cannot_be_loaded_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    settings = settings_of(tmp_path / "data", tmp_path / "broken.gguf", embeddings=False)
    async with inferring(settings) as server, server.client() as client:
        answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["checks"] == {"model": "loading"}


def test_speed_is_over_the_last_seconds() -> None:
    at = [100.0]
    speed = Speed(lambda: at[0])
    for second in range(20):
        at[0] = 100.0 + second
        speed.count(3)
        speed.count(4)
    at[0] += 1
    assert speed.now() == 7
    at[0] += WINDOW
    assert speed.now() == 0
