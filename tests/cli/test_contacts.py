"""`terrace contacts` beside a running server."""

import json
from pathlib import Path

import pytest
from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("served")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("E-Mail,Name,Town\nada@example.org,Ada,London\nnobody,Eve,Rome\n")
    return path


def test_contacts_are_looked_at_imported_and_listed(quickly: Run, table: Path) -> None:
    looked = quickly("contacts", "import", str(table), "--dry-run", "--map", "Town=city")
    assert looked.returncode == 2, looked.stderr  # a row could not be taken
    assert looked.stdout.splitlines()[-1] == "2 rows: 1 new, 1 invalid; nothing was written"
    assert "Town -> city" in looked.stdout
    assert "line 3: 'nobody' is not an e-mail address." in looked.stderr
    assert quickly("contacts", "lists").stdout.startswith("There are no lists")

    done = quickly("contacts", "import", str(table), "--list", "Clients", "--map", "Town=city", "--json")
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["new"] == 1
    listed = quickly("contacts", "list", "-l", "clients", "-s", "ada")
    assert listed.stdout.splitlines()[1].split("\t") == ["ada@example.org", "Ada", "ada@example.org", "city: London"]
    assert quickly("contacts", "lists").stdout.splitlines()[1].split("\t")[1:] == ["Clients", "1"]
    assert "contact.city\t1 of 1" in quickly("contacts", "fields").stdout


def test_what_is_wrong_is_said(quickly: Run, table: Path) -> None:
    assert "--list NAME" in quickly("contacts", "import", str(table)).stderr
    assert "COLUMN=FIELD" in quickly("contacts", "import", str(table), "-l", "x", "--map", "Town").stderr
    table.write_text("name,name\nAda,Ada\n")
    failed = quickly("contacts", "import", str(table), "-l", "x")
    assert (failed.returncode, "Two columns have the same name" in failed.stderr) == (2, True)
    assert quickly("contacts", "import", str(table.parent / "none.csv"), "-l", "x").returncode == 7
