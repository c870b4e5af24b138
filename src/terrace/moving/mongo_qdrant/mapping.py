"""The mapping file: which collections and fields of the source are what. docs/importing.md describes it."""

import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from terrace.errors import Invalid

MAX_BYTES = 1024**2


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DocumentFields(_Section):
    """Fields of a document. Without `collection` documents are put together from what their passages say of them."""

    collection: str = Field("", description="MongoDB's `database.collection`; empty: made of the chunks.")
    id: str = Field("_id", description="What passages refer to.")
    title: str = Field("title", description="Its title.")
    name: str = Field("", description="Its file name; the title when empty.")
    text: str = Field("", description="The whole text, where it is kept.")
    url: str = Field("", description="Where it came from on the web.")
    created: str = Field("", description="When it came: a date, or seconds or milliseconds.")
    tags: tuple[str, ...] = Field((), description="Fields whose words become tags.")
    into: str = Field("", description="The field that names the collection in Terrace.")
    metadata: tuple[str, ...] = Field(("*",), description="Fields kept as metadata; `*` is all that is not text.")


class ChunkFields(_Section):
    """Fields of a passage."""

    source: Literal["mongo", "qdrant", "documents"] = Field(
        "qdrant", description="A collection of MongoDB, the payload of the points, or a list within each document."
    )
    collection: str = Field("", description="mongo: `database.collection`.")
    within: str = Field("chunks", description="documents: the field with the list.")
    id: str = Field("", description="Its id; empty: `_id`, the point's id, or the place in the list.")
    document: str = Field("document_id", description="The id of its document.")
    text: str = Field("text", description="The text.")
    order: str = Field("", description="Its place in the document; empty: as they come.")
    page: str = Field("", description="The page it begins on.")
    first_page: int = Field(1, ge=0, le=1, description="What the first page is called: 1, or 0 as some tools count.")
    headings: str = Field("", description="Headings above it.")


class VectorFields(_Section):
    """Where vectors are."""

    collection: str = Field("", description="The collection of Qdrant; empty: no vectors come.")
    name: str = Field("", description="The named vector; empty: the unnamed one.")
    chunk: str = Field("", description="The payload's field with the chunk's id; empty: the point's id is it.")
    model: str = Field("", description="What made them, as `knowledge.embedding.model` would name it.")
    precision: Literal["", "int8", "fp32"] = Field("", description="Of the built-in model.")


class Mapping(_Section):
    collection: str = Field("Imported", min_length=1, description="The collection in Terrace, where no field says it.")
    orphans: Literal["leave", "keep"] = Field(
        "leave", description="Passages whose document is gone: left out, or brought as documents of their own."
    )
    documents: DocumentFields = DocumentFields()
    chunks: ChunkFields = ChunkFields()
    vectors: VectorFields = VectorFields()

    @property
    def needs_mongo(self) -> bool:
        return bool(self.documents.collection) or self.chunks.source == "mongo"

    @property
    def needs_qdrant(self) -> bool:
        return bool(self.vectors.collection)

    def fingerprint(self) -> str:
        return sha256(self.model_dump_json().encode()).hexdigest()


def load(path: Path) -> Mapping:
    """Raises Invalid naming each thing that is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Invalid(f"{path} is too large for a mapping file.", code="bad_mapping")
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Invalid(f"The mapping {path} cannot be read: {error.strerror}.", code="bad_mapping") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The mapping {path} is not TOML: {error}", code="bad_mapping") from error
    return checked(told, str(path))


def checked(told: dict[str, Any], where: str) -> Mapping:
    try:
        mapping = Mapping.model_validate(told)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'it'}: {each['msg']}" for each in error.errors())
        raise Invalid(f"The mapping {where} is wrong. {wrong}", code="bad_mapping") from error
    if told_wrong := _contradiction(mapping):
        raise Invalid(f"The mapping {where} is wrong. {told_wrong}", code="bad_mapping")
    return mapping


def _contradiction(mapping: Mapping) -> str:
    chunks, documents = mapping.chunks, mapping.documents
    if chunks.source == "qdrant" and not mapping.vectors.collection:
        return "chunks.source is qdrant, so vectors.collection must name Qdrant's collection."
    if chunks.source == "mongo" and not chunks.collection:
        return "chunks.source is mongo, so chunks.collection must name MongoDB's `database.collection`."
    if chunks.source == "documents" and not documents.collection:
        return "chunks.source is documents, so documents.collection must name MongoDB's `database.collection`."
    if not chunks.text:
        return "chunks.text must name the field with the text."
    return ""


def written(mapping: Mapping) -> str:
    """As a file, with what each line means; what is as it would be anyway is a comment."""
    lines = [*_lines(mapping, ("documents", "chunks", "vectors"))]
    for name in ("documents", "chunks", "vectors"):
        lines += ["", f"[{name}]", *_lines(getattr(mapping, name))]
    return "\n".join(lines) + "\n"


def _lines(section: BaseModel, without: tuple[str, ...] = ()) -> list[str]:
    lines = []
    for name, field in type(section).model_fields.items():
        if name not in without:
            value = getattr(section, name)
            mark = "# " if value == field.default else ""
            lines.append(f"{mark}{name} = {_toml(value)}  # {field.description}")
    return lines


def _toml(value: str | int | tuple[str, ...]) -> str:
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in escaped) + '"'
