"""`terrace` as a person and as a script uses it, beside a running server."""

import fcntl
import json
import signal
import subprocess
import sys
import termios
import time
import zipfile
from pathlib import Path

import pytest
from tests.cli.conftest import Run, invoke, start

pytestmark = pytest.mark.usefixtures("served")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "quay.txt").write_text("The quay is seven metres deep. Ships moor there.")
    (folder / "deep" / "notice.md").write_text("# Notice\n\nThe notice period is three months.")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut")
    (folder / ".hidden.txt").write_text("Hidden.")
    (folder / ".git" / "config").write_text("Hidden too.")
    return folder


def test_a_folder_is_added_searched_and_asked(quickly: Run, papers: Path) -> None:
    added = quickly("ingest", str(papers), "-c", "port", "-t", "sea")
    assert added.returncode == 2, added.stderr  # one could not be read
    assert added.stderr == ""  # no bars in a pipe
    *lines, summary = added.stdout.splitlines()
    assert [line[0] for line in lines] == ["x", "+", "+"]
    assert "Hidden" not in added.stdout
    assert summary == "2 documents added, 1 failed"

    found = quickly("search", "how deep is the quay", "--json", "-c", "port")
    assert json.loads(found.stdout)["hits"][0]["document_name"] == "quay.txt"
    columns = quickly("search", "how deep is the quay", "-k", "1").stdout.splitlines()
    assert columns[0].split("\t") == ["score", "document", "page", "passage"]
    assert len(columns) == 2

    asked = quickly("ask", "-", "-c", "port", input="How deep is the quay?\n")
    assert "seven metres" in asked.stdout
    assert "[1] quay.txt" in asked.stdout
    answer = json.loads(quickly("ask", "How deep is the quay?", "--json").stdout)
    assert "seven metres" in answer["response"]

    again = quickly("ingest", str(papers / "*.txt"), "-c", "port")
    assert again.returncode == 0
    assert again.stdout.startswith("= ")


def test_a_zip_is_opened(quickly: Run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.txt", "One text.")
        archive.writestr("b.txt", "Another text.")
    results = json.loads(quickly("ingest", "two.zip", "--json", "-c", "zipped").stdout)
    assert [Path(each["path"]).name for each in results] == ["a.txt", "b.txt"]
    assert all(each["document"]["state"] == "ready" for each in results)


def test_a_strange_name_arrives_as_it_is(quickly: Run, tmp_path: Path) -> None:
    name = 'we"ird; name=[bold] é.txt'
    (tmp_path / name).write_text("Strange.")
    [result] = json.loads(quickly("ingest", str(tmp_path), "--json", "-c", "strange").stdout)
    assert result["document"]["name"] == name


def test_a_conversation(quickly: Run) -> None:
    said = quickly("chat", "--no-documents", input="First question?\nSecond question?\n\nNever asked.\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("document") >= 2  # the quote model says that it needs some


def test_jobs_are_listed_shown_and_followed(quickly: Run) -> None:
    quickly("ask", "Anything?", "--no-documents")
    [job] = json.loads(quickly("jobs", "--kind", "chat.generate", "--limit", "1", "--json").stdout)
    assert json.loads(quickly("jobs", "show", job["id"], "--json").stdout) == job
    assert job["id"] in quickly("jobs", "show", job["id"]).stdout
    events = [json.loads(line)["type"] for line in quickly("jobs", "follow", job["id"], "--json").stdout.splitlines()]
    assert events[-1] == "done"
    assert quickly("jobs", "retry", job["id"]).returncode == 5


def test_the_server_may_be_named_before_the_command(quickly: Run, served: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other"
    quickly("ask", "Anything?", "--no-documents")
    [job] = json.loads(quickly("jobs", "-n", "1", "--json").stdout)
    assert quickly("jobs", "--server", served, "show", job["id"], on=elsewhere).returncode == 0
    assert quickly("jobs", "show", job["id"], on=elsewhere, TERRACE_SERVER=served).returncode == 0
    assert not elsewhere.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["jobs", "show", "job_0"], 4, "no such job"),
        (["jobs", "cancel", "../x?y"], 4, ""),
        (["ask", " "], 2, "Ask something"),
        (["ask", "x", "-m", "no/such"], 4, "no model"),
        (["ask", "x", "-c", "nowhere", "--documents"], 4, "no collection"),
        (["ask", "x" * 100_001], 2, "100,000"),
        (["ask", "x", "--server", "http://127.0.0.1:1"], 7, "does not answer"),
        (["ask", "x", "--server", "localhost:99999"], 2, "looks like"),
        (["ingest", "nothing.pdf"], 4, "There is no nothing.pdf"),
        (["ingest", "*.none"], 4, "No file matches"),
        (["ingest", "."], 4, "no files in"),
        (["search", "x", "-k", "0"], 2, ""),
        (["jobs", "--state", "lost"], 2, ""),
    ],
)
def test_a_mistake_is_told_and_has_its_exit_code(quickly: Run, arguments: list[str], code: int, says: str) -> None:
    failed = quickly(*arguments)
    assert (failed.returncode, failed.stdout) == (code, "")
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_port_that_is_taken(quickly: Run, served: str) -> None:
    failed = quickly("serve", "--port", served.rpartition(":")[2])
    assert failed.returncode == 5
    assert "running already" in failed.stderr


def test_interrupted_before_the_question(data: Path) -> None:
    with start(data, "ask", "-") as asking:
        assert asking.stdin is not None
        asking.stdin.write("How")
        asking.stdin.flush()
        while fcntl.ioctl(asking.stdin, termios.FIONREAD, b"\0" * 4) != b"\0" * 4:  # until it is being read
            time.sleep(0.05)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(60) == 130
        assert asking.stderr is not None
        assert "Traceback" not in asking.stderr.read()


def test_a_reader_that_leaves_is_no_error_to_tell(data: Path) -> None:
    with start(data, "openapi") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(60)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_nor_is_one_that_leaves_before_a_line_for_people(data: Path) -> None:
    with start(data, "config", "check") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, "")


def test_the_doctor_is_content(quickly: Run) -> None:
    assert quickly("doctor").stdout == "All is well.\n"
    assert json.loads(quickly("doctor", "--json").stdout) == []


def test_help_is_quick_and_imports_no_server() -> None:
    code = "import sys, terrace.cli.app; print({'fastapi', 'sqlalchemy', 'numpy', 'keyring'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n"
    shown = invoke({}, "--help")
    assert shown.code == 0
    commands = "serve worker ask chat ingest search jobs login logout whoami user key tenant limits usage doctor config"
    for command in f"{commands} models openapi".split():
        assert f"  {command} " in shown.out
