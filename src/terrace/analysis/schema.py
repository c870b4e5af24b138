"""JSON schemas that callers bring, and what is wrong with fields that shall fit one.

Both are checked in a subprocess: a pattern or a web of references can take for ever.
"""

import json
from collections.abc import Iterator
from typing import Any

from terrace.errors import Invalid

MAX_BYTES = 64 * 1024
MAX_DEPTH = 24
MAX_TOLD = 12  # violations named
DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
LITERAL = ("const", "enum", "default", "examples")  # what stands under these is data, no schema
NAMED = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")  # under these, names of theirs


def measured(schema: Any) -> dict[str, Any]:
    """The schema, if it is an object of a bearable size. Raises Invalid."""
    if not isinstance(schema, dict):
        raise _bad('A schema is a JSON object such as {"type": "object", "properties": {...}}.')
    try:
        size = len(json.dumps(schema))
    except (ValueError, RecursionError) as error:
        raise _bad(f"A schema is nested at most {MAX_DEPTH} deep.") from error
    if size > MAX_BYTES:
        raise _bad(f"A schema has at most {MAX_BYTES:,} bytes; this one has {size:,}.")
    return schema


def check(schema: dict[str, Any]) -> None:
    """Raises Invalid for what is no JSON schema, is nested too deeply, or refers to something outside itself."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    for depth, name, value in _walk(schema, 0):
        if depth > MAX_DEPTH:
            raise _bad(f"A schema is nested at most {MAX_DEPTH} deep.")
        if name in REFERENCES and not (isinstance(value, str) and value.startswith("#")):
            raise _bad(f"A schema refers only to itself (#/$defs/...), not to {str(value)[:100]!r}.")
        if name in ("$id", "$vocabulary"):
            raise _bad(f"A schema without `{name}`, please: nothing is fetched by it.")
    if schema.get("$schema", DIALECT).rstrip("#") != DIALECT:
        raise _bad(f"Schemas are read as {DIALECT}; leave `$schema` out.")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise _bad(f"This is no JSON schema: {_place(error.absolute_path)}{error.message[:300]}.") from error


def violations(value: Any, schema: dict[str, Any]) -> list[str]:
    """What is wrong with `value`, a sentence each; nothing when it fits."""
    from jsonschema import Draft202012Validator
    from referencing.exceptions import Unresolvable

    found: list[str] = []
    try:
        for error in Draft202012Validator(schema).iter_errors(value):
            found.append(f"{_place(error.absolute_path)}{error.message[:300]}")
            if len(found) == MAX_TOLD:
                break
    except RecursionError:
        return ["The schema refers to itself without end."]
    except Unresolvable as error:
        return [f"The schema refers to something it does not hold: {str(error)[:200]}"]
    return found


def _place(path: Any) -> str:
    where = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path).lstrip(".")
    return f"{where[:200]}: " if where else ""


def _walk(node: Any, depth: int, name: str = "") -> Iterator[tuple[int, str, Any]]:
    """(depth, keyword or nothing, value) of everything in it."""
    if depth > MAX_DEPTH + 1:
        return
    if isinstance(node, dict):
        named = name in NAMED
        for key, value in node.items():
            yield depth, "" if named else key, value
            if named or key not in LITERAL:
                yield from _walk(value, depth + 1, "" if named else key)
    elif isinstance(node, list):
        for value in node:
            yield depth, "", value
            yield from _walk(value, depth + 1)


def _bad(why: str) -> Invalid:
    return Invalid(why, code="bad_schema")
