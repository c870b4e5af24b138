"""`terrace campaign`, as typed; the server is the one the command starts for itself."""

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.conftest import invoke
from tests.journeys.scribe import Scribe

from terrace.cli.campaign import dollars, read_template
from terrace.errors import Invalid

ENVIRONMENT = {"TERRACE_MODELS__DISCOVER": "false", "TERRACE_KNOWLEDGE__EMBEDDING__MODEL": "none"}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    template, people = tmp_path / "thanks.md", tmp_path / "people.csv"
    template.write_text("---\nmode: fill\nname: Thanks\n---\nDear {{contact.name}}!\n")
    people.write_text("name,email\nAda,ada@example.org\nBob,bob@example.org\n")
    return str(template), str(people)


@pytest.fixture
def scribe() -> Iterator[Scribe]:
    upstream = Scribe()
    upstream.free.set()
    yield upstream
    upstream.close()


def test_the_same_files_make_one_campaign(files: tuple[str, str], tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "TERRACE_DATA": str(tmp_path / "data")}
    out = tmp_path / "out.jsonl"
    looked = invoke(environment, "campaign", "run", *files, "--preview")
    assert looked.code == 0, looked
    assert "Dear Ada!" in looked.out
    for _ in range(2):
        done = invoke(environment, "campaign", "run", *files, "--yes", "--json", "-o", str(out))
        assert done.code == 0, done
        assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["Dear Ada!", "Dear Bob!"]
    listed = invoke(environment, "campaign", "list", "--json")
    [campaign] = json.loads(listed.out)
    assert (campaign["state"], campaign["counts"]["done"]) == ("finished", 2)


@pytest.fixture
def desk(files: tuple[str, str], tmp_path: Path, scribe: Scribe) -> dict[str, str]:
    """Where a message of the twelve has a price."""
    Path(files[0]).write_text("---\nname: Thanks\n---\nWrite to {{contact.name}}.\n")
    Path(files[1]).write_text("name,email\n" + "".join(f"Person {n},p{n}@example.org\n" for n in range(12)))
    environment = {
        **ENVIRONMENT, "TERRACE_DATA": str(tmp_path / "data"), "TERRACE_MODELS__PROVIDERS__DESK__KIND": "openai",
        "TERRACE_MODELS__PROVIDERS__DESK__BASE_URL": scribe.url,
    }  # fmt: skip
    invoke(environment, "usage", "prices", "set", "desk/scribe", "--input", "1", "--output", "1000")
    return environment


def test_other_wishes_are_no_other_campaign(files: tuple[str, str], desk: dict[str, str], scribe: Scribe) -> None:
    """What the budget stops goes on with a higher one; nobody gets a second message, and nothing is paid for twice."""
    run = functools.partial(invoke, desk, "campaign", "run", *files, "--json")
    looked = run("--preview", "--dry")
    assert looked.code == 0, looked
    ceiling = json.loads(looked.out)["estimate"]["ceiling"]
    stopped = run("--yes", "--budget", str(1.5 * ceiling / 12))
    assert (stopped.code, json.loads(stopped.out)["reason"]["code"]) == (1, "budget_exhausted"), stopped
    done = run("--yes", "--budget", str(2 * ceiling), "--concurrency", "5")
    assert done.code == 0, done
    again = run("--yes", "--skip-incomplete")
    assert "keeps its options" in again.err, again
    [campaign] = json.loads(invoke(desk, "campaign", "list", "--json").out)
    assert (campaign["state"], campaign["counts"]["done"], scribe.answers) == ("finished", 12, 12)


def test_what_a_person_paused_stays_so(files: tuple[str, str], desk: dict[str, str], scribe: Scribe) -> None:
    run = functools.partial(invoke, desk, "campaign", "run", *files, "--json", "--yes", "--budget")
    stopped = json.loads(run("0.000001").out)
    assert stopped["reason"]["code"] == "budget_exhausted"
    for act in ("resume", "pause"):
        assert invoke(desk, "campaign", act, stopped["id"]).code == 0
    paused = run("1000")
    assert (paused.code, json.loads(paused.out)["state"], scribe.answers) == (1, "paused", 0), paused


def test_one_that_was_cancelled_stays_so_until_a_file_changes(
    files: tuple[str, str], desk: dict[str, str], scribe: Scribe
) -> None:
    run = functools.partial(invoke, desk, "campaign", "run", *files, "--json", "--yes")
    stopped = json.loads(run("--budget", "0.000001").out)
    assert invoke(desk, "campaign", "cancel", stopped["id"]).code == 0
    for wishes in ((), ("--budget", "1000"), ("--preview",)):
        refused = run(*wishes)
        assert (refused.code, "change the template" in refused.err, scribe.answers) == (5, True, 0), refused
    Path(files[0]).write_text("---\nname: Thanks\n---\nWrite kindly to {{contact.name}}.\n")
    done = json.loads(run("--budget", "1000").out)
    assert (done["state"], done["counts"]["done"], scribe.answers) == ("finished", 12, 12)


def test_a_head_says_what_a_template_is(tmp_path: Path) -> None:
    file = tmp_path / "t.md"
    file.write_bytes(
        b"\xef\xbb\xbf---\r\nknowledge_query: {{contact.item}} warranty\r\n\r\nmodel: a/b\r\n---\r\nHello\r\n"
    )
    assert read_template(file) == {
        "body": "Hello\n", "knowledge_query": "{{contact.item}} warranty", "model": "a/b",
    }  # fmt: skip
    for bad in (b"---\nname: x\n", b"---\ncolour: red\n---\nx", b"\xff\xfe\x00"):
        file.write_bytes(bad)
        with pytest.raises(Invalid):
            read_template(file)


def test_amounts() -> None:
    assert [dollars(each) for each in (0, 12.5, 0.1, 0.00012, 0.0000001)] == [
        "$0", "$12.50", "$0.10", "$0.00012", "$0",
    ]  # fmt: skip
