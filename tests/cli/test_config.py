"""`terrace config`: what is in force, what is wrong, and no secret."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import QUICK, Done, invoke

from terrace.cli.app import EXIT

PROVIDER = "TERRACE_MODELS__PROVIDERS__MINE__"


def config(command: str, data: Path, **given: str) -> Done:
    return invoke({**QUICK, "TERRACE_DATA": str(data), **given}, "config", command)


def test_secrets_are_hidden(tmp_path: Path) -> None:
    secrets = {
        f"{PROVIDER}KIND": "openai",
        f"{PROVIDER}API_KEY": "hush-hush-hush",
        f"{PROVIDER}BASE_URL": "http://me:swordfish@10.0.0.1/v1",
        "TERRACE_REDIS__URL": "redis://:swordfish@10.0.0.1/0",
        "TERRACE_JOBS__BROKER": "amqp://me:s/swordfish@10.0.0.1//",
        "TERRACE_STORAGE__URL": "postgresql://me:s@swordfish@10.0.0.1/terrace",
    }
    shown = config("show", tmp_path, **secrets)
    assert json.loads(shown.out)["models"]["providers"]["mine"]["kind"] == "openai"
    assert "hush" not in shown.out + shown.err
    assert "swordfish" not in shown.out + shown.err


def test_fine_settings(tmp_path: Path) -> None:
    checked = config(
        "check", tmp_path / "new", TERRACE_PROT="9000", TERRACE_SERVER="http://localhost:1", TERRACE_API_KEY="x"
    )
    assert checked.code == 0
    assert "fine" in checked.out
    told = [line for line in checked.err.splitlines() if "TERRACE_TEST_DATABASE" not in line]  # ours, not a mistake
    assert told == ["terrace: TERRACE_PROT is not a setting and changes nothing. Is TERRACE_PORT meant?"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"TERRACE_PORT": "many"}, "TERRACE_PORT"),
        ({"TERRACE_JOBS__SLOTS": "3"}, "TERRACE_JOBS__SLOTS"),
        ({f"{PROVIDER}KIND": "magic"}, "MINE__KIND"),
        ({"TERRACE_ACCOUNTS__SECRET": "changeme"}, "TERRACE_ACCOUNTS__SECRET"),
        ({"TERRACE_DATA": "/dev/null/x"}, "TERRACE_DATA"),
        ({"TERRACE_WEB__TRUSTED_PROXIES": "10.0.0.1"}, "as JSON"),
        ({"TERRACE_WEB__TRUSTED_PROXIES": '["10.0.0.0/99"]'}, "TERRACE_WEB__TRUSTED_PROXIES"),
        ({"TERRACE_OUTBOUND__ALLOW": '["10.0.0.300"]'}, "TERRACE_OUTBOUND__ALLOW"),
        ({"TERRACE_REDIS__URL": "foo"}, "redis.url"),
        ({"TERRACE_JOBS__ENGINE": "celery"}, "TERRACE_JOBS__BROKER"),
        ({"TERRACE_STORAGE__URL": "mysql://x/y"}, "storage.url"),
        ({"TERRACE_STORAGE__URL": "postgresql://me:p@ss@host/terrace"}, "%40"),
        ({"TERRACE_STORAGE__BLOBS": "s3://B/x"}, "storage.blobs"),
        ({f"{PROVIDER}KIND": "openai", f"{PROVIDER}BASE_URL": "lab:8080"}, "base_url of the provider `mine`"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, given: dict[str, str], says: str) -> None:
    checked = config("check", tmp_path, **given)
    assert checked.code == EXIT["invalid"]
    assert says in checked.err
