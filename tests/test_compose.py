"""The Compose file, its image and its dashboards name what there is. (No Docker is needed, and none is asked.)"""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from terrace.cli.app import command
from terrace.cli.config import NOT_SETTINGS
from terrace.inference.measures import Measures
from terrace.models.discovery import candidates
from terrace.settings import Settings
from terrace.telemetry.metrics import Metrics
from tests.test_docs import variables

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = dict(
    line.split("=", 1)
    for line in (FOLDER / "env.example").read_text().splitlines()
    if line and not line.startswith("#")
)
DOCKERFILE = (ROOT / "Dockerfile").read_text()

KEYS = {
    "image", "build", "restart", "read_only", "tmpfs", "cap_drop", "security_opt", "volumes", "stop_grace_period",
    "depends_on", "command", "environment", "profiles", "ports", "healthcheck", "user", "shm_size", "secrets",
    "env_file",
}  # fmt: skip
OURS = [name for name, service in SERVICES.items() if "terrace" in service["image"]]
FILLED = {"POSTGRES_PASSWORD": "p" * 32, "INFERENCE_KEY": "k" * 32, "GRAFANA_PASSWORD": "g", "METRICS_KEY": "m"}


def filled(value: str) -> str:
    """As Compose puts in variables: `${NAME}`, `${NAME:-otherwise}`, `${NAME:?why}`."""

    def put(found: re.Match[str]) -> str:
        name, how, rest = found.groups()
        given = {**EXAMPLE, **FILLED}.get(name, "")
        if not given and how == ":?":
            raise AssertionError(f"{name} must be given: {rest}")
        return given or (rest if how == ":-" else "")

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", put, value)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


@pytest.mark.parametrize("name", SERVICES)
def test_services_use_what_is_declared(name: str) -> None:
    service = SERVICES[name]
    assert service.keys() <= KEYS
    assert "healthcheck" in service or name in OURS, "the image of ours has one"
    for other in service.get("depends_on", {}):
        assert other in SERVICES
        assert not SERVICES[other].get("profiles") or SERVICES[other]["profiles"] == service.get("profiles")
    for mounted in service.get("volumes", []):
        source = filled(mounted).split(":")[0]
        if source.startswith("."):
            assert (FOLDER / source).exists() or source == EXAMPLE["MODELS_FOLDER"], source
        else:
            assert source in COMPOSE["volumes"]
    for secret in service.get("secrets", []):
        assert COMPOSE["secrets"][secret]["environment"] in EXAMPLE
        assert not service.get("read_only"), "Compose writes a secret of the environment into the container's root"
    for file in service.get("env_file", []):
        assert (FOLDER / f"{file['path']}.example").exists()


def test_every_volume_and_secret_is_used() -> None:
    mounted = {filled(each).split(":")[0] for service in SERVICES.values() for each in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= mounted
    assert set(COMPOSE["secrets"]) == {each for service in SERVICES.values() for each in service.get("secrets", [])}


def test_what_must_be_filled_in_is_in_the_example() -> None:
    demanded = {name for text in strings(COMPOSE) for name in re.findall(r"\$\{(\w+):\?", text)}
    assert demanded <= EXAMPLE.keys()
    assert {name for name in demanded if EXAMPLE[name]} == set(), "no secret has a default"
    named = {name for text in strings(COMPOSE) for name in re.findall(r"\$\{(\w+)", text)}
    assert EXAMPLE.keys() - {"METRICS_KEY"} <= named
    first = (FOLDER / "env.example").read_text().split("\n\n")[1]
    assert set(re.findall(r"^(\w+)=", first, re.MULTILINE)) == demanded, "whatever is started, Compose asks for it"


def test_keys_of_providers_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**SERVICES["api"]["environment"], "OPENAI_API_KEY": "sk-1"}
    for key, value in given.items():
        monkeypatch.setenv(key, filled(value))
    assert "openai" in [each.name for each in candidates(Settings.load().models, given)]


@pytest.mark.parametrize("name", OURS)
def test_our_services_are_closed_and_take_their_time_to_stop(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    target = service["build"]["target"]
    assert f" AS {target}\n" in DOCKERFILE
    given = {key: filled(value) for key, value in service["environment"].items()}
    known = set(variables(Settings))
    assert {
        re.sub(r"PROVIDERS__[A-Z]+__", "PROVIDERS__NAME__", key) for key in given if key.startswith("TERRACE_")
    } <= known
    for key, value in given.items():
        monkeypatch.setenv(key, value)
    settings = Settings.load()
    grace = max(settings.web.shutdown_grace, settings.jobs.drain) + settings.web.shutdown_delay
    assert int(service["stop_grace_period"].removesuffix("s")) > grace


@pytest.mark.parametrize("name", [name for name in OURS if name != "flower"])
def test_commands_are_commands(name: str) -> None:
    root = command()
    first, *rest = SERVICES[name]["command"]
    found = root.get_command(click.Context(root), first)
    assert found is not None
    context = found.make_context(first, rest)
    if role := context.params.get("role"):
        assert Settings.load(role=role).role == role == name


def test_the_roles_are_all_there() -> None:
    roles = {
        SERVICES[name]["command"][2] for name in OURS if SERVICES[name].get("command", [])[:2] == ["serve", "--role"]
    }
    assert roles == {"api", "worker", "scheduler", "inference"}


def test_only_the_door_is_open_and_only_on_this_machine() -> None:
    open_here = {
        name: [filled(port) for port in service["ports"]] for name, service in SERVICES.items() if "ports" in service
    }
    assert set(open_here) == {"nginx", "grafana", "flower"}
    assert all(port.startswith("127.0.0.1:") for ports in open_here.values() for port in ports)


def test_nginx_is_believed_and_nobody_else() -> None:
    subnet = COMPOSE["networks"]["default"]["ipam"]["config"][0]["subnet"]
    for name in ("api", "worker", "scheduler"):
        assert json.loads(filled(SERVICES[name]["environment"]["TERRACE_WEB__TRUSTED_PROXIES"])) == [subnet]


# What Compose, Airflow's DAGs, the command line and the tests themselves read.
OTHERS = {
    "TERRACE_IMAGE", "TERRACE_INFERENCE_IMAGE", "TERRACE_FLOWER_IMAGE",
    "TERRACE_INGEST_FOLDER", "TERRACE_INGEST_COLLECTION", "TERRACE_KEY", "TERRACE_TEST_DATABASE", *NOT_SETTINGS,
}  # fmt: skip


def naming() -> list[Path]:
    """Files that tell people of variables."""
    folders = [path for name in ("docs", "deploy") for path in (ROOT / name).rglob("*") if ".venv" not in path.parts]
    kinds = ("", ".md", ".yaml", ".example", ".sh", ".py")
    return [
        ROOT / "README.md",
        ROOT / "Dockerfile",
        *(each for each in folders if each.suffix in kinds and each.is_file()),
    ]


@pytest.mark.parametrize("file", naming(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_variable_that_is_named_is_there(file: Path) -> None:
    named = {each.rstrip("_") for each in re.findall(r"\bTERRACE_[A-Z0-9_]+", file.read_text())}
    kinds = {re.sub(r"(PROVIDERS|OIDC)__[A-Z0-9]+__", r"\1__NAME__", name) for name in named}
    sections = {name for name in kinds if any(each.startswith(f"{name}__") for each in variables(Settings))}
    assert kinds - sections - OTHERS <= set(variables(Settings))


# The image


def test_the_image_runs_as_nobody_and_says_how_it_does() -> None:
    stages = dict(re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE))
    assert set(stages) <= {"${BASE}", "packages", "bare"}
    final = DOCKERFILE[DOCKERFILE.index(" AS bare") :]
    assert "USER 10001:10001" in final
    assert final.count("USER ") == 1, "nothing after it is root again"
    assert "HEALTHCHECK" in final
    assert "apt-get" not in DOCKERFILE
    for lock in re.findall(r"requirements/\w+\.lock", DOCKERFILE):
        assert (ROOT / lock).exists()
    for setting in re.findall(r"(TERRACE_\w+)=", DOCKERFILE):
        assert setting in set(variables(Settings))


@pytest.mark.parametrize("name", ["image", "inference", "flower"])
def test_the_image_has_the_versions_that_are_tested(name: str) -> None:
    def pins(lock: str) -> dict[str, str]:
        text = (ROOT / "requirements" / f"{lock}.lock").read_text()
        return dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE))

    tested = {**pins("run"), **pins("dev")}
    assert {
        package: version for package, version in pins(name).items() if tested.get(package, version) != version
    } == {}


def test_the_build_sees_what_it_copies() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {
        path.split("/")[0]
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for path in shlex.split(line)[:-1]
    }
    assert {f"!{each}" for each in copied} <= set(ignored)
    assert "*" in ignored, "everything else stays out: secrets, data, histories"


# Prometheus and Grafana


def exposed() -> set[str]:
    """Names of what we tell Prometheus, as it stores them."""
    metrics = Metrics()
    Measures(metrics)
    names = set()
    for family in metrics.registry.collect():
        names |= {
            family.name,
            f"{family.name}_total",
            f"{family.name}_bucket",
            f"{family.name}_count",
            f"{family.name}_sum",
        }
    return names


def test_prometheus_looks_where_our_services_are() -> None:
    config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    assert config.keys() <= {"global", "scrape_configs"}
    asked = set()
    for job in config["scrape_configs"]:
        assert job.keys() <= {"job_name", "authorization", "dns_sd_configs"}
        secret = Path(job["authorization"]["credentials_file"])
        assert secret.parent == Path("/run/secrets")
        assert secret.name in SERVICES["prometheus"]["secrets"]
        for found in job["dns_sd_configs"]:
            assert (found["type"], found["port"]) == ("A", 8000)
            asked |= set(found["names"])
    assert asked == {"api", "worker", "scheduler", "inference"}


def test_grafana_is_provisioned_with_what_is_there() -> None:
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert sources["apiVersion"] == 1
    assert [each["uid"] for each in sources["datasources"]] == ["prometheus"]
    assert sources["datasources"][0]["url"] == "http://prometheus:9090"
    providers = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/terrace.yaml").read_text())
    path = providers["providers"][0]["options"]["path"]
    assert f"./grafana/dashboards:{path}:ro" in SERVICES["grafana"]["volumes"]


def test_the_dashboard_asks_for_metrics_there_are() -> None:
    board = json.loads((FOLDER / "grafana/dashboards/terrace.json").read_text())
    assert board["uid"] == "terrace"
    assert board["schemaVersion"] >= 36
    panels = board["panels"]
    assert len({each["id"] for each in panels}) == len(panels) > 0
    known = exposed()
    for panel in panels:
        place = panel["gridPos"]
        assert {"x", "y", "w", "h"} == place.keys()
        assert place["x"] + place["w"] <= 24
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        for target in panel["targets"]:
            asked = re.findall(r"\b(?:terrace|process)_\w+", target["expr"])
            assert asked, target["expr"]
            assert set(asked) <= known, (panel["title"], set(asked) - known)
            assert target["expr"].count("(") == target["expr"].count(")")
