"""JSON in what models write, schemas that callers bring, and how both meet."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terrace.analysis import schema
from terrace.analysis.extraction import find_object, without_fence
from terrace.analysis.groups import of_sheets
from terrace.analysis.parsing import parsed
from terrace.analysis.prompt import Sheet, Task, moved
from terrace.analysis.steps import Said
from terrace.analysis.types import TYPES
from terrace.errors import Invalid

VALUE = {"markdown": 'A line.\nAnother {with} "quotes".', "fields": {"n": 1, "list": [1, {"a": None}]}}
TEXT = json.dumps(VALUE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"Sure! Here you are:\n\n```\n{json.dumps(VALUE, indent=2)}\n```\nAnything else?",
        f'<think>Is {{this}} it? {{"no": 1}}</think>{TEXT}',
        f"The set {{a, b}} and then {TEXT} and {{}} after.",
        TEXT.replace("}]}}", "},]},}"),
        TEXT.replace("\\n", "\n"),
        f'{{"note": "short"}}\n{TEXT}',
    ],
)
def test_json_is_found_wherever_it_stands(text: str) -> None:
    assert find_object(text) == VALUE


@given(
    value=st.dictionaries(st.text(min_size=1), JSON, min_size=1, max_size=4),
    before=st.text("abc ,.\n"),
    after=st.text("abc ,.\n"),
)
def test_any_object_in_prose_is_found(value: dict[str, Any], before: str, after: str) -> None:
    assert find_object(f"{before}{json.dumps(value)}{after}") == value


@given(st.text(max_size=300) | st.text('{}[]",:\\ ab1`\n', max_size=300))
def test_no_text_is_too_wild(text: str) -> None:
    found = find_object(text)
    assert found is None or isinstance(found, dict)
    assert isinstance(without_fence(text), str)


@given(st.integers(1, len(TEXT) - 1))
def test_an_answer_that_was_cut_off_gives_what_it_holds(length: int) -> None:
    found = find_object(TEXT[:length])
    if found and "markdown" in found and found["markdown"] is not None:
        assert str(VALUE["markdown"]).startswith(found["markdown"].rstrip("\\"))
    assert length < 25 or found


def test_very_deep_and_very_long_answers_do_no_harm() -> None:
    assert find_object('{"a":' * 100_000) is None
    assert find_object("{" * 200_000) is None
    assert find_object("[" * 100_000 + TEXT) in (VALUE, None)


@pytest.mark.parametrize("type", [each for each in TYPES.values() if each.schema])
def test_the_types_have_schemas_that_are_some(type: Any) -> None:
    schema.check(schema.measured(dict(type.schema)))
    assert schema.violations({}, dict(type.schema))


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "poem"},
        {"$ref": "https://example.org/schema.json"},
        {"$id": "https://example.org/", "type": "object"},
        {"properties": {"a": {"$dynamicRef": "file:///etc/passwd"}}},
        {"$schema": "http://json-schema.org/draft-04/schema#"},
        {"required": "name"},
        {"description": "x" * 70_000},
    ],
)
def test_what_is_no_schema_or_leads_elsewhere_is_refused(wrong: Any) -> None:
    with pytest.raises(Invalid) as refused:
        schema.check(schema.measured(wrong))
    assert refused.value.code == "bad_schema"


def test_a_property_may_be_called_as_it_likes() -> None:
    schema.check({"properties": {"$ref": {"type": "string"}, "default": {"type": "object"}}, "enum": [{"$ref": "x"}]})


def test_schemas_without_end_are_told() -> None:
    assert schema.violations(1, {"$ref": "#"}) == ["The schema refers to itself without end."]
    assert "something it does not hold" in schema.violations(1, {"$ref": "#/$defs/gone"})[0]


def test_a_schema_that_refers_to_itself_still_does_inside_another() -> None:
    from jsonschema import Draft202012Validator

    kids = {"type": "array", "items": {"$ref": "#/$defs/node"}}
    node = {"type": "object", "properties": {"kids": kids}, "required": ["kids"]}
    tree = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    whole = Draft202012Validator(Task("?", tree).envelope())
    good = {"markdown": "", "pages": [], "fields": {"kids": [{"kids": []}]}}
    assert whole.is_valid(good)
    assert not whole.is_valid({**good, "fields": {"kids": [{}]}})
    assert moved({"properties": {"$ref": {"const": {"$ref": "#"}}}}, "#/x") == {
        "properties": {"$ref": {"const": {"$ref": "#"}}}
    }


def test_an_answer_is_taken_however_it_is_wrapped() -> None:
    task = Task("?", {"type": "object"})
    alone = parsed(Said('{"name": "Ada"}', "stop", "m"), task)
    assert (alone.fields, alone.has_fields, alone.markdown.startswith("```json")) == ({"name": "Ada"}, True, True)
    free = parsed(Said('{"name": "Ada"}', "stop", "m"), Task("?"))
    assert (free.markdown, free.is_object) == ('{"name": "Ada"}', False)
    prose = parsed(Said("```markdown\n# Ada\n```", "length", "m"), Task("?"))
    assert (prose.markdown, prose.cut) == ("# Ada", True)
    noted = parsed(
        Said('{"markdown": "x\\u0000", "pages": [{"page": 2, "note": "n"}, {"page": "3"}, 4]}', "stop", "m"), task
    )
    assert (noted.markdown, noted.notes, noted.has_fields) == ("x", {2: "n"}, False)


@given(st.lists(st.integers(0, 9000), min_size=1, max_size=30), st.integers(1, 10), st.integers(100, 5000))
def test_groups_keep_the_order_and_their_bounds(sizes: list[int], most: int, room: int) -> None:
    sheets = [Sheet(number, f"Page {number}", "x" * size) for number, size in enumerate(sizes)]
    found = of_sheets(sheets, most, room)
    assert [sheet for group in found for sheet in group] == sheets
    for group in found:
        assert len(group) <= most
        assert len(group) == 1 or sum(len(sheet.text) for sheet in group) / 4 <= room


def test_thoughts_that_begin_and_never_end_are_read_at_once() -> None:
    began = time.process_time()
    assert find_object("<think>a</think>" + "<think>" * 30_000 + '{"a": 1}') == {"a": 1}
    assert without_fence("<think>a</think> b <THINK>c</thinking>d") == "b d"
    assert time.process_time() - began < 5  # of our own; a search that goes back would take longer
