"""The file of calls under way: what is written is there, what is half written is not, and no disk is too full."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry.calls import ADA, call, demand, died

from terrace.errors import Unavailable
from terrace.telemetry.calls import Call, Demand, Usage
from terrace.telemetry.journal import MAX_COST, MAX_TOKENS, STEP, Journal, leftovers
from terrace.telemetry.records import SLOT, Entry, decode, id_at
from terrace.types import Scope

STARTED = 1_795_000_000.25


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "usage")
    yield journal
    journal.close()


def begin(journal: Journal, scope: Scope = ADA, wanted: Demand | None = None, cost: int | None = 700) -> int:
    return journal.begin(scope, wanted or demand(), STARTED, 100, 50, cost, "2026-11-21")


def entry(journal: Journal, slot: int) -> Entry:
    return decode(journal.read([slot])[0], journal.id)


def test_a_call_is_booked_as_it_ended(journal: Journal) -> None:
    slot = begin(journal, Scope("acme", "usr_ada", "key_ada", "job_1"))
    assert journal.end(slot, call(Usage(12, 7, 4, estimated=True), "error", "upstream_broke"), 42, "2026-11-20")
    assert entry(journal, slot)[1:] == (
        "acme", "usr_ada", "key_ada", "job_1", "openai", "gpt-4o", "chat", "error", "upstream_broke",
        12, 4, 7, True, 42, "2026-11-20", STARTED, 1.5, 0.25,
    )  # fmt: skip


def test_a_call_under_way_is_booked_as_its_reservation(journal: Journal) -> None:
    assert entry(journal, begin(journal, Scope("acme")))[1:] == (
        "acme", None, None, None, "openai", "gpt-4o", "chat", "lost", "",
        100, 0, 50, True, 700, "2026-11-21", STARTED, 0.0, None,
    )  # fmt: skip


def test_an_unknown_price_stays_unknown(journal: Journal) -> None:
    slot = begin(journal, cost=None)
    assert entry(journal, slot).cost is None
    journal.end(slot, call(), None, None)
    ended = entry(journal, slot)
    assert (ended.cost, ended.price_dated, ended.input_tokens, ended.estimated) == (None, None, 0, False)


def test_ids_sort_by_the_beginning_and_no_two_are_alike(journal: Journal) -> None:
    first, second = (journal.begin(ADA, demand(), STARTED + later, 1, 1, 1, None) for later in (0, 0))
    third = journal.begin(ADA, demand(), STARTED + 0.01, 1, 1, 1, None)
    ids = [entry(journal, slot).id for slot in (first, second, third)]
    assert ids == sorted(set(ids))
    assert id_at(STARTED) < ids[0] < ids[1] < id_at(STARTED + 0.01) < ids[2]


def test_a_slot_that_is_used_again_holds_nothing_of_the_call_before(journal: Journal) -> None:
    slot = begin(journal, Scope("acme", "usr_ada", "key_ada", "job_1"))
    first = entry(journal, slot).id
    journal.end(slot, call(Usage(12, 7, 4), "error", "upstream_broke"), 42, "2026-11-20")
    journal.free([slot])
    assert begin(journal, Scope("globex"), Demand("x", "openai", "m", "embed", 1, 1)) == slot
    again = entry(journal, slot)
    assert again.id != first
    assert again[1:10] == ("globex", None, None, None, "x", "m", "embed", "lost", "")


def test_no_call_ends_twice(journal: Journal) -> None:
    slot = begin(journal)
    assert journal.end(slot, call(Usage(1, 1)), 1, None)
    assert not journal.end(slot, call(Usage(9, 9)), 9, None)
    assert entry(journal, slot).cost == 1


def test_what_was_cut_off_while_written_counts_as_before(journal: Journal, tmp_path: Path) -> None:
    """The state is the first byte and is written last; a death in between leaves the one before."""
    slot = begin(journal)
    journal.end(slot, call(Usage(12, 7)), 42, None)
    at = slot * SLOT
    for state, expected in ((0, []), (1, [("lost", 700)]), (2, [("ok", 42)])):
        path = died(journal, tmp_path / "dead")
        content = bytearray(path.read_bytes())
        content[at] = state
        path.write_bytes(content)
        (left,) = leftovers(path.parent)
        found = [decode(each, left.journal) for each in left.slots]
        left.close()
        assert [(each.outcome, each.cost) for each in found] == expected


def test_an_end_of_another_call_is_not_believed(journal: Journal) -> None:
    """A power cut may leave pages of different moments."""
    first, second = begin(journal), begin(journal)
    journal.end(first, call(Usage(12, 7)), 42, None)
    journal.end(second, call(Usage(1, 1)), 1, None)
    one, two = journal.read([first, second])
    assert decode(one[:64] + two[64:192] + one[192:], journal.id).outcome == "lost"


@given(
    ids=st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=16)] * 3),
    model=st.text(max_size=500),
    numbers=st.tuples(*[st.integers(-(2**70), 2**70)] * 4),
    code=st.text(max_size=80),
)
def test_whatever_a_client_or_provider_says_fits(
    tmp_path_factory: pytest.TempPathFactory,
    ids: tuple[str, str, str],
    model: str,
    numbers: tuple[int, int, int, int],
    code: str,
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    try:
        slot = journal.begin(Scope("acme", *ids), demand(model), STARTED, numbers[0], numbers[1], numbers[2], "x" * 99)
        lost = entry(journal, slot)
        journal.end(slot, call(Usage(*numbers[:3]), "error", code), numbers[3], "y" * 99)
        ended = entry(journal, slot)
    finally:
        journal.close()
    for each in (lost, ended):
        assert (each.tenant_id, each.user_id, each.key_id, each.job_id) == ("acme", *(id or None for id in ids))
        said = model.encode(errors="replace").decode().replace("\0", "\ufffd")
        assert each.model == said or (each.model.endswith("…") and said.startswith(each.model[:-1]))
        assert 0 <= each.cached_tokens <= each.input_tokens <= MAX_TOKENS
        assert 0 <= each.output_tokens <= MAX_TOKENS
        assert 0 <= (each.cost or 0) <= MAX_COST
        assert "\0" not in f"{each.code}{each.price_dated}"
    assert ended.outcome == "error"


def test_the_file_grows_in_steps_and_goes_when_it_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "usage")
    assert journal.path.stat().st_size == STEP * SLOT
    slots = [begin(journal) for _ in range(STEP + 10)]
    assert len(set(slots)) == len(slots) == journal.busy
    assert journal.path.stat().st_size == 2 * STEP * SLOT
    assert journal.path.stat().st_mode & 0o777 == 0o600
    for slot in slots:
        journal.end(slot, call(Usage(1, 1)), slot, None)
    assert [entry(journal, slot).cost for slot in slots] == slots
    journal.free(slots)
    journal.close()
    assert list((tmp_path / "usage").iterdir()) == []


def test_no_more_calls_are_noted_than_may_be(tmp_path: Path) -> None:
    journal = Journal(tmp_path, most=STEP)
    slots = [begin(journal) for _ in range(STEP - 1)]
    with pytest.raises(Unavailable) as refused:
        begin(journal)
    assert refused.value.code == "ledger_full"
    journal.free(slots[:1])
    assert begin(journal) == slots[0]
    journal.close()


@contextmanager
def file_size(limit: int) -> Iterator[None]:
    """As on a full disk: no file of ours may become larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_calls_and_kills_nobody(journal: Journal, tmp_path: Path) -> None:
    slots = [begin(journal) for _ in range(STEP - 1)]
    with file_size(STEP * SLOT):
        with pytest.raises(Unavailable) as refused:
            begin(journal)
        journal.end(slots[0], call(Usage(1, 1)), 1, None)
    assert refused.value.code == "disk_full"
    assert begin(journal) not in slots
    with file_size(SLOT), pytest.raises(Unavailable):
        Journal(tmp_path / "other")
    assert not any((tmp_path / "other").iterdir())


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "usage").write_text("a file")
    with pytest.raises(Unavailable) as refused:
        Journal(tmp_path / "usage")
    assert refused.value.code == "journal_unwritable"


def test_a_living_process_keeps_its_file(journal: Journal) -> None:
    begin(journal)
    assert list(leftovers(journal.path.parent)) == []


def test_a_file_left_is_taken_by_one_alone(journal: Journal, tmp_path: Path) -> None:
    begin(journal)
    died(journal, tmp_path / "dead")
    first = leftovers(tmp_path / "dead")
    taken = next(first)
    assert len(taken.slots) == 1
    assert list(leftovers(tmp_path / "dead")) == []
    taken.remove()
    taken.close()
    assert list(first) == list(leftovers(tmp_path / "dead")) == []


def test_files_of_others_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1-a.journal").write_bytes(b"something else")
    (tmp_path / "2-b.journal").write_bytes(b"")  # died before it had a header
    (left,) = leftovers(tmp_path)
    assert (left.path.name, left.slots) == ("2-b.journal", [])
    left.close()
    assert "1-a.journal" in caplog.text
    assert (tmp_path / "1-a.journal").exists()


def test_children_do_not_keep_the_lock(journal: Journal) -> None:
    """A program we start must not outlive us with our journal."""
    open_files = {os.path.realpath(f"/proc/self/fd/{each}"): int(each) for each in os.listdir("/proc/self/fd")}
    assert not os.get_inheritable(open_files[str(journal.path)])


def test_calls_are_typed_as_the_meter_tells_them(journal: Journal) -> None:
    slot = begin(journal)
    journal.end(slot, Call("openai", "gpt-4o", "chat", "cancelled", "", 2.0, None, None, None), 0, None)
    ended = entry(journal, slot)
    assert (ended.outcome, ended.first_token, ended.cost, ended.input_tokens) == ("cancelled", None, 0, 0)
