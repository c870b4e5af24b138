"""The mapping file, how its paths find values, and what `--guess` proposes."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.moving.mongo_qdrant.conftest import MAPPING, Records

from terrace.errors import Invalid, Missing
from terrace.moving.mongo_qdrant import fields
from terrace.moving.mongo_qdrant.binding import bind
from terrace.moving.mongo_qdrant.guessing import guess
from terrace.moving.mongo_qdrant.mapping import ChunkFields, DocumentFields, VectorFields, checked, load, written
from terrace.moving.mongo_qdrant.settling import TOLD
from terrace.moving.mongo_qdrant.sources.opening import open_documents, open_points


def test_what_is_written_reads_back() -> None:
    mapping = checked({**MAPPING, "collection": 'A "quoted" \\ näme\n'}, "test")
    assert checked(tomllib.loads(written(mapping)), "test") == mapping


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ({"chunks": {"source": "mysql"}}, "chunks.source"),
        ({"vectors": {"colection": "x"}}, "vectors.colection"),
        ({}, r"vectors\.collection must name"),
        ({"chunks": {"source": "mongo"}}, r"chunks\.collection must name"),
        ({"chunks": {"source": "documents"}}, r"documents\.collection must name"),
        ({"vectors": {"collection": "p"}, "chunks": {"text": ""}}, r"chunks\.text"),
    ],
)
def test_a_wrong_mapping_says_what_is_wrong(told: dict[str, Any], match: str) -> None:
    with pytest.raises(Invalid, match=match):
        checked(told, "mapping.toml")


def test_a_file_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        load(tmp_path / "nothing.toml")
    (tmp_path / "a.toml").write_text("a = = 1")
    with pytest.raises(Invalid, match="not TOML"):
        load(tmp_path / "a.toml")


def test_paths_go_into_records_and_lists() -> None:
    record = {"a": {"b": [{"c": 1}, 2]}, "x.y": 3}
    assert fields.find(record, "a.b.0.c") == 1
    assert fields.find(record, "a.b.1") == 2
    assert fields.find(record, "x.y") == 3
    assert fields.find(record, "a.b.9") is fields.find(record, "a.q.r") is fields.find(record, "") is None


def test_times_in_each_of_their_forms() -> None:
    assert fields.seconds("2024-05-01T00:00:00Z") == fields.seconds(1714521600) == fields.seconds(1714521600000)
    assert fields.seconds("yesterday") is fields.seconds(-1) is fields.seconds(True) is None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_any_value_becomes_json_that_a_database_keeps(value: Any) -> None:
    told = json.dumps(fields.plain(value), allow_nan=False)
    assert "\\u0000" not in told
    told.encode()


@given(st.lists(st.text(min_size=1, max_size=60), max_size=8), st.integers(0, 40))
def test_every_passage_is_where_its_span_says(passages: list[str], overlap: int) -> None:
    for at in range(1, len(passages)):
        passages[at] = passages[at - 1][-overlap:] + passages[at] if overlap else passages[at]
    for whole in ("", "\n".join(passages), "something else"):
        text, spans = bind(whole, passages)
        assert [text[start:end] for start, end in spans] == passages


def test_overlapping_passages_are_put_together_once() -> None:
    whole = "The crane lifts forty tonnes. It is driven by wind alone. Ships wait two days for a berth here."
    text, spans = bind("", [whole[:60], whole[35:]])
    assert text == whole
    assert spans == [(0, 60), (35, len(whole))]


# -- guessing


async def test_documents_passages_and_points_are_told_apart(records: Records, tmp_path: Path) -> None:
    documents = open_documents(str(records.dump(tmp_path / "dump", users=[{"_id": 1, "name": "Ada"}])))
    mapping = await guess(documents, open_points(str(records.local(tmp_path / "store"))))
    assert mapping.documents.collection == "app.documents"
    assert (mapping.documents.title, mapping.documents.name) == ("title", "filename")
    assert (mapping.documents.text, mapping.documents.url, mapping.documents.tags) == ("text", "url", ("tags",))
    assert mapping.chunks.document == "document_id"
    assert (mapping.chunks.text, mapping.chunks.order) == ("text", "chunk_index")
    assert mapping.vectors.collection == "points"


async def test_passages_in_mongodb_meet_points_by_a_field(records: Records, tmp_path: Path) -> None:
    for number, each in enumerate(records.points):
        each["payload"] = {"chunk_id": each["id"]}
        each["id"] = number
    documents = open_documents(str(records.dump(tmp_path / "dump")))
    mapping = await guess(documents, open_points(str(records.lines(tmp_path / "points.jsonl"))))
    assert (mapping.chunks.source, mapping.chunks.collection) == ("mongo", "app.chunks")
    assert (mapping.chunks.page, mapping.chunks.headings) == ("page", "headings")
    assert mapping.vectors.chunk == "chunk_id"


async def test_points_as_langchain_leaves_them(tmp_path: Path) -> None:
    points = [
        {
            "id": n,
            "vector": [0.1, 0.2],
            "payload": {"page_content": f"Text {n}", "metadata": {"source": "a.pdf", "page": n}},
        }
        for n in range(4)
    ]
    (tmp_path / "docs.jsonl").write_text("\n".join(map(json.dumps, points)))
    mapping = await guess(None, open_points(str(tmp_path / "docs.jsonl")))
    assert (mapping.chunks.source, mapping.chunks.text, mapping.chunks.document) == (
        "qdrant", "page_content", "metadata.source",
    )  # fmt: skip
    assert (mapping.chunks.page, mapping.chunks.first_page) == ("metadata.page", 0)
    assert mapping.documents.name == "metadata.source"


async def test_a_mongodb_of_other_things_is_left_alone(records: Records, tmp_path: Path) -> None:
    dump = Records(documents=[{"_id": 1, "name": "Ada", "email": "ada@example.org"}]).dump(tmp_path / "dump")
    mapping = await guess(open_documents(str(dump)), open_points(str(records.lines(tmp_path / "points.jsonl"))))
    assert (mapping.documents.collection, mapping.chunks.source) == ("", "qdrant")


async def test_lists_within_documents_are_seen(records: Records, tmp_path: Path) -> None:
    for each in records.documents:
        each["chunks"] = [{"text": "a", "page": 1}]
    mapping = await guess(open_documents(str(records.dump(tmp_path / "dump"))), None)
    assert (mapping.chunks.source, mapping.chunks.within) == ("documents", "chunks")


async def test_nothing_to_guess(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(Missing):
        await guess(None, open_points(str(tmp_path / "empty.jsonl")))


def test_the_mapping_in_the_docs_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()
    told = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    checked(told, "docs/importing.md")
    assert set(told["documents"]) == set(DocumentFields.model_fields)
    assert set(told["chunks"]) == set(ChunkFields.model_fields)
    assert set(told["vectors"]) == set(VectorFields.model_fields)


def test_every_problem_is_in_the_docs() -> None:
    page = (Path(__file__).parents[3] / "docs" / "importing.md").read_text()
    assert [code for code in TOLD if f"`{code}`" not in page] == []
