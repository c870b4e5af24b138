"""Folders: what comes in, what goes out, and what is never lost."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.knowledge.sources.conftest import Lab, write

from terrace.errors import Invalid, Missing
from terrace.knowledge.sources import folder as scanning
from terrace.knowledge.sources.watching import Watcher
from terrace.types import Scope

HERE = Scope()


async def furnished(lab: Lab, folder: Path, **more: Any) -> Any:
    for number in range(4):
        write(folder / "notes" / f"{number}.txt", f"Note number {number}.")
    return await lab.make(HERE, "folder", str(folder), **more)


@pytest.mark.both
async def test_files_come_in_change_and_go(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    report = await lab.run(HERE, source)
    assert (report.added, report.failed, report.complete) == (4, 0, True)
    first = await lab.texts(HERE)
    assert first == {f"{number}.txt": f"Note number {number}." for number in range(4)}
    before = {each.name: each.id for each in (await lab.library.knowledge.list(HERE))[0]}

    write(folder / "notes" / "1.txt", "Another note.", age=30)
    (folder / "notes" / "2.txt").unlink()
    write(folder / "new.md", "# New")
    report = await lab.run(HERE, source)
    assert (report.added, report.changed, report.removed, report.unchanged) == (1, 1, 1, 2)
    after = {each.name: each.id for each in (await lab.library.knowledge.list(HERE))[0]}
    assert after["1.txt"] == before["1.txt"]  # links to it stay good
    assert set(after) == {"0.txt", "1.txt", "3.txt", "new.md"}
    assert (await lab.texts(HERE))["1.txt"] == "Another note."
    report = await lab.run(HERE, source)
    assert (report.added, report.changed, report.removed, report.unchanged) == (0, 0, 0, 4)


async def test_a_touched_file_is_no_change(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    write(folder / "notes" / "1.txt", "Note number 1.", age=20)
    report = await lab.run(HERE, source)
    assert (report.changed, report.unchanged) == (0, 4)
    assert len([key for key in await lab.library.keys() if key.endswith("original")]) == 4


async def test_what_somebody_else_uploaded_stays(lab: Lab, folder: Path) -> None:
    mine, _ = await lab.library.upload(HERE, "Note number 1.", "mine.txt")
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    (folder / "notes" / "1.txt").unlink()
    report = await lab.run(HERE, source)
    assert report.removed == 1
    assert (await lab.library.knowledge.get(HERE, mine.id)).name == "mine.txt"
    await lab.sources.delete(HERE, source.id, documents=True)
    assert set(await lab.texts(HERE)) == {"mine.txt"}


async def test_two_files_of_the_same_bytes_share_a_document(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    write(folder / "copy.txt", "Note number 1.")
    await lab.run(HERE, source)
    (folder / "notes" / "1.txt").unlink()
    await lab.run(HERE, source)
    assert "Note number 1." in (await lab.texts(HERE)).values()
    (folder / "copy.txt").unlink()
    await lab.run(HERE, source)
    assert "Note number 1." not in (await lab.texts(HERE)).values()


async def test_a_folder_that_vanishes_removes_nothing(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    shutil.move(folder, folder.with_name("elsewhere"))
    report = await lab.run(HERE, source, confirm=True)
    assert (report.removed, report.complete) == (0, False)
    assert "everything from it is kept" in report.notes[0]
    assert len(await lab.texts(HERE)) == 4


async def test_a_folder_that_is_suddenly_empty_asks_first(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    shutil.rmtree(folder / "notes")
    report = await lab.run(HERE, source)
    assert (report.removed, report.needs_confirm) == (0, 4)
    assert len(await lab.texts(HERE)) == 4
    report = await lab.run(HERE, source, confirm=True)
    assert report.removed == 4
    assert await lab.texts(HERE) == {}


async def test_most_of_a_folder_goes_only_with_a_yes(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    for number in range(3):
        (folder / "notes" / f"{number}.txt").unlink()
    assert (await lab.run(HERE, source)).needs_confirm == 3
    assert len(await lab.texts(HERE)) == 4
    assert (await lab.run(HERE, source, confirm=True)).removed == 3


async def test_a_part_that_cannot_be_looked_into_removes_nothing(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    await lab.run(HERE, source)
    (folder.joinpath(*(["deep"] * (scanning.MAX_DEPTH + 1)))).mkdir(parents=True)
    (folder / "notes" / "0.txt").unlink()
    report = await lab.run(HERE, source)
    assert (report.removed, report.complete) == (0, False)
    assert len(await lab.texts(HERE)) == 4


async def test_patterns_hidden_and_half_written_files(lab: Lab, folder: Path) -> None:
    for name in ("a.txt", "b.md", ".hidden.txt", ".git/c.txt", "~$d.txt", "e.txt.part", "drafts/f.txt"):
        write(folder / name, f"This is {name}.")
    source = await lab.make(HERE, "folder", str(folder), include=("*.txt",), exclude=("drafts/**",))
    await lab.run(HERE, source)
    assert set(await lab.texts(HERE)) == {"a.txt"}


async def test_links_lead_nowhere(lab: Lab, folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret" / "s.txt", "A secret.")
    write(folder / "a.txt", "Good.")
    (folder / "link.txt").symlink_to(tmp_path / "secret" / "s.txt")
    (folder / "in").symlink_to(tmp_path / "secret")
    source = await lab.make(HERE, "folder", str(folder))
    report = await lab.run(HERE, source)
    assert set(await lab.texts(HERE)) == {"a.txt"}
    assert "2 links were left out" in report.notes[0]


async def test_a_file_that_becomes_a_link_while_we_look_is_not_followed(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "secret" / "s.txt", "A secret.")
    write(folder / "in" / "s.txt", "Good.....")
    seen = scanning.scan(folder, folder, (), ())
    shutil.rmtree(folder / "in")
    (folder / "in").symlink_to(tmp_path / "secret")
    with pytest.raises(Invalid, match="can't be read"):
        async for _ in scanning.pieces(folder, folder, "in/s.txt", seen.files["in/s.txt"]):
            pass
    with pytest.raises(NotADirectoryError):
        scanning.scan(folder, folder / "in", (), ())


@pytest.mark.parametrize("wanted", ["/", "/etc", "relative", "{folder}/../secret", "{folder}/link", "/x\0y"])
async def test_only_folders_the_operator_named(lab: Lab, folder: Path, tmp_path: Path, wanted: str) -> None:
    (tmp_path / "secret").mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(Invalid):
        await lab.make(HERE, "folder", wanted.format(folder=folder))


async def test_each_tenant_has_folders_of_its_own(lab: Lab, folder: Path, tmp_path: Path, scope: Scope) -> None:
    write(tmp_path / "acme" / "a.txt", "Of Acme.")
    with pytest.raises(Invalid, match="may not be read"):
        await lab.make(scope, "folder", str(folder))
    source = await lab.make(scope, "folder", str(tmp_path / "acme"))
    await lab.run(scope, source)
    assert await lab.texts(scope) == {"a.txt": "Of Acme."}
    with pytest.raises(Missing):
        await lab.sources.run(HERE, source.id)


async def test_a_file_we_cannot_read_is_told_once_and_tried_again_when_it_changes(lab: Lab, folder: Path) -> None:
    write(folder / "a.txt", "")
    source = await lab.make(HERE, "folder", str(folder))
    report = await lab.run(HERE, source)
    assert [each.item for each in report.failures] == ["a.txt"]
    assert (await lab.run(HERE, source)).failed == 1
    (folder / "a.txt").unlink()
    report = await lab.run(HERE, source)
    assert (report.failed, report.removed, await lab.items(HERE, source)) == (0, 0, {})
    write(folder / "a.txt", "Now it says something.", age=10)
    assert (await lab.run(HERE, source)).added == 1


async def test_a_file_still_being_written_waits(lab: Lab, folder: Path) -> None:
    write(folder / "a.txt", "Half a", age=0)
    source = await lab.make(HERE, "folder", str(folder))
    report = await lab.run(HERE, source)  # it rests while we wait
    assert report.added == 1
    seen = scanning.scan(folder, folder, (), ())
    write(folder / "a.txt", "Half a sentence", age=0)
    with pytest.raises(scanning.StillWritten):
        async for _ in scanning.pieces(folder, folder, "a.txt", seen.files["a.txt"]):
            pass


async def test_killed_anywhere_each_file_is_one_document(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    job_id = await lab.sources.run(HERE, source.id)
    for writes in range(1, 8):
        try:
            await lab.library.run(HERE, job_id, writes=writes)
        except lab.library.died:
            continue
        break
    assert (await lab.sources.get(HERE, source.id)).report.added == 4
    assert len(await lab.texts(HERE)) == 4
    await lab.end(HERE, job_id)
    assert (await lab.run(HERE, source)).unchanged == 4
    assert len([key for key in await lab.library.keys() if key.endswith("original")]) == 4


async def test_one_run_at_a_time(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder)
    job_id = await lab.sources.run(HERE, source.id)
    assert await lab.sources.run(HERE, source.id) == job_id
    assert (await lab.sources.get(HERE, source.id)).running


async def test_a_watched_folder_runs_when_it_changed_and_rests(lab: Lab, folder: Path) -> None:
    source = await furnished(lab, folder, watch=True)
    watcher = Watcher(lab.library.database, lab.options.folders, lab.sources.start)
    assert await watcher.look() == []
    [job_id] = await watcher.look()
    await lab.library.run(HERE, job_id)
    await lab.end(HERE, job_id)
    assert await watcher.look() == []
    write(folder / "more.txt", "More.")
    assert await watcher.look() == []  # it may still be growing
    assert len(await watcher.look()) == 1
    assert await watcher.look() == []
    await lab.sources.delete(HERE, source.id)
    assert await watcher.look() == []
