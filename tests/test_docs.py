"""The docs name what there is: every setting, command, kind of error and route."""

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import BaseModel

from terrace import assembly
from terrace.accounts.roles import PERMISSIONS, ROLES
from terrace.cli.app import EXIT, command
from terrace.settings import OIDC, Provider, Section, Settings
from terrace.web.problems import STATUS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


NAMED: dict[str, type[BaseModel]] = {"providers": Provider, "oidc": OIDC}
"""Sections of which there may be several, each by its name."""


def variables(section: type[BaseModel], prefix: str = "TERRACE_") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from variables(kind, f"{prefix}{name.upper()}__")
        elif name in NAMED:
            yield from variables(NAMED[name], f"{prefix}{name.upper()}__NAME__")
        else:
            yield f"{prefix}{name.upper()}"


def test_every_setting_is_told() -> None:
    text = (DOCS / "settings.md").read_text()
    assert [variable for variable in variables(Settings) if f"`{variable}`" not in text] == []


def test_no_setting_is_told_that_is_not_there() -> None:
    told = set(re.findall(r"TERRACE_[A-Z0-9_]+[A-Z0-9]", (DOCS / "settings.md").read_text()))
    assert told - {"TERRACE_JOBS__LEASE"} <= set(variables(Settings))


@pytest.mark.parametrize("kind", list(STATUS))
def test_every_kind_of_error_is_told(kind: str) -> None:
    assert f"`{kind}`" in (DOCS / "api.md").read_text()
    assert f"`{kind}`" in (DOCS / "cli.md").read_text()
    assert kind in EXIT


def test_every_route_is_told() -> None:
    text = (DOCS / "api.md").read_text()
    paths = list(assembly.openapi()["paths"])
    assert paths
    assert [path for path in paths if path not in text] == []


def test_the_table_of_roles_is_the_one_in_force() -> None:
    rows = re.findall(r"^\| `([a-z:]+)` \|(.*?)\|[^|]*\|$", (DOCS / "accounts.md").read_text(), re.MULTILINE)
    told = {name: [bool(cell.strip()) for cell in cells.split("|")] for name, cells in rows if name in PERMISSIONS}
    held = {
        name: [name in ROLES[role] or (name, role) == ("operator", "owner") for role in ROLES] for name in PERMISSIONS
    }
    assert told == held


def test_every_command_is_told() -> None:
    text = (DOCS / "cli.md").read_text()
    for name in command().commands:
        assert f"`terrace {name}" in text


def named_commands() -> Iterator[tuple[str, list[str]]]:
    """(file, words) of each `terrace ...` that a page or a file of deploy tells somebody to type."""
    files = [each for name in ("docs", "deploy") for each in (ROOT / name).rglob("*") if ".venv" not in each.parts]
    kinds = (".md", ".yaml", ".yml", ".example", ".sh")
    for file in [ROOT / "README.md", *(each for each in files if each.suffix in kinds)]:
        typed = r"(?:`|^\s*|\$\(|\| )(?:[A-Z_]+=\S+ )*terrace ([a-z][a-z-]*(?: [a-z][a-z-]*)*)"
        for found in re.finditer(typed, file.read_text(), re.MULTILINE):
            yield file.name, found[1].split()


def test_every_command_that_is_named_is_there() -> None:
    def known(group: Any, words: list[str]) -> bool:
        there = getattr(group, "commands", None)
        if not words or not there:  # what follows is an argument
            return True
        return known(there[words[0]], words[1:]) if words[0] in there else group.invoke_without_command

    root = command()
    named = list(named_commands())
    assert len(named) > 50
    assert [(file, " ".join(words)) for file, words in named if words[0] not in root.commands] == []
    assert [(file, " ".join(words)) for file, words in named if not known(root, words)] == []


def test_every_dependency_has_its_reason() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (DOCS / "dependencies.md").read_text()
    for requirement in project["dependencies"]:
        assert re.split(r"[\[>=<;]", requirement)[0] in text


def test_every_extra_can_be_had() -> None:
    """In the version that is tested."""
    asked = [Requirement(each) for each in metadata.requires("terrace") or () if "extra ==" in each]
    asked = [each for each in asked if each.name != "terrace"]
    assert len(asked) > 8
    assert [str(each) for each in asked if metadata.version(each.name) not in each.specifier] == []


@pytest.mark.parametrize(
    "page", [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
