"""Contacts and their lists: imported from files, added, changed, with what was said to them."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import AwareDatetime, BaseModel, Field
from starlette.responses import Response

from terrace.campaigns.base import Contact, ContactList, Role, Turn
from terrace.campaigns.contacts.files import FileImports, How, Upload
from terrace.campaigns.contacts.intake import Examined
from terrace.campaigns.contacts.service import ContactDetail
from terrace.errors import Denied, Invalid
from terrace.types import Scope
from terrace.web.access import Me, Who, resource
from terrace.web.api.documents import UPLOAD_BYTES
from terrace.web.api.fields import Id
from terrace.web.api.pages import IdCursor, Limit, Page
from terrace.web.services import House
from terrace.web.uploads import Part, parts

router = resource(tags=["contacts"])

_STRING = {"type": "string"}
FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "CSV or XLSX."},
                        "list": {**_STRING, "description": "Name or id of the list they go into; made when missing."},
                        "mapping": {
                            **_STRING,
                            "description": 'JSON, column -> field, such as {"E-mail": "email", "Town": "city"}; "" '
                            "leaves a column out, and columns that are not named are guessed.",
                        },
                        "dry_run": {**_STRING, "enum": ["true", "false"], "description": "true writes nothing."},
                        "encoding": {**_STRING, "description": "Found out when absent."},
                        "delimiter": {**_STRING, "description": "Found out when absent."},
                        "sheet": {**_STRING, "description": "The first when absent."},
                    },
                }
            }
        },
    }
}
FIELDS = ("list", "mapping", "dry_run", "encoding", "delimiter", "sheet")
MAX_MAPPED = 1_000

ListWanted = Annotated[str | None, Query(alias="list", max_length=200, description="A list's name or id.")]
Lists = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=100)]
Values = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=100_000)]],
    Field(max_length=1_000, examples=[{"city": "Rome"}]),
]
Mapping = Annotated[
    dict[Annotated[str, Field(max_length=1_000)], Annotated[str, Field(max_length=64)]],
    Field(max_length=MAX_MAPPED, examples=[{"E-mail": "email", "Town": "city"}]),
]


class NewContact(BaseModel):
    key: str = Field("", max_length=320, description="What makes them one person; the e-mail address when absent.")
    name: str = Field("", max_length=300)
    email: str = Field("", max_length=320)
    fields: Values = Field(default_factory=dict)
    lists: Lists = Field(default_factory=list, description="Names or ids; made when missing.")


class ContactChange(BaseModel):
    """What is left out stays. A field that is set to nothing goes."""

    name: str | None = Field(None, max_length=300)
    email: str | None = Field(None, max_length=320)
    fields: Values | None = None
    lists: Lists | None = Field(None, description="All it is in from now on.")


class NewTurn(BaseModel):
    role: Role = Field(description="user: the contact; assistant: whoever wrote to them.")
    text: str = Field(min_length=1, max_length=100_000)
    at: AwareDatetime


class History(BaseModel):
    turns: list[NewTurn] = Field(default_factory=list, max_length=1_000)
    conversation_id: Id | None = Field(None, description="One of your own conversations, to be copied.")


class Imported(BaseModel):
    job_id: str | None = Field(description="The job that brings them in; its result has the errors by row.")
    list: ContactList | None
    examined: Examined | None = Field(description="What it would do, of a dry run.")


class FieldCounts(BaseModel):
    contacts: int
    fields: dict[str, int] = Field(description="Field -> how many contacts have it filled.")


@router.get("/contacts")
async def list_contacts(
    house: House,
    who: Who,
    list_id: ListWanted = None,
    q: Annotated[str, Query(max_length=200, description="Part of a key, name or e-mail address.")] = "",
    limit: Limit = 50,
    cursor: IdCursor = None,
) -> Page[Contact]:
    """Newest first."""
    items, following = await house.contacts.list(who, list_id=list_id, q=q, limit=limit, cursor=cursor)
    return Page(items=items, next=following)


@router.post("/contacts", status_code=201)
async def create_contact(house: House, who: Who, body: NewContact) -> Contact:
    return await house.contacts.create(
        who, key=body.key, name=body.name, email=body.email, fields=body.fields, lists=body.lists
    )


@router.post(
    "/contacts/import",
    status_code=202,
    responses={200: {"model": Imported, "description": "A dry run."}},
    openapi_extra=FORM,
    max_body_size=UPLOAD_BYTES,
)
async def import_contacts(house: House, who: Who, request: Request, response: Response) -> Imported:
    """CSV or XLSX into a list. 202 with the job; 200 with what it would do, of a dry run, which writes nothing.

    A contact that is there already takes the row's values; importing the same file twice changes nothing.
    """
    imported = await _received(house.contact_imports, who, request)
    response.status_code = 200 if imported.job_id is None else 202
    return imported


@router.get("/contacts/fields")
async def contact_fields(house: House, who: Who, list_id: ListWanted = None) -> FieldCounts:
    """The fields of a list's contacts, or of all: what a template may name."""
    contacts, counts = await house.contacts.field_counts(who, list_id)
    return FieldCounts(contacts=contacts, fields=counts)


@router.get("/contacts/{contact_id}")
async def get_contact(house: House, who: Who, contact_id: str) -> ContactDetail:
    """With the latest of what was said."""
    return await house.contacts.get(who, contact_id)


@router.patch("/contacts/{contact_id}")
async def change_contact(house: House, who: Who, contact_id: str, body: ContactChange) -> Contact:
    return await house.contacts.change(
        who, contact_id, name=body.name, email=body.email, fields=body.fields, lists=body.lists
    )


@router.delete("/contacts/{contact_id}", status_code=204)
async def delete_contact(house: House, who: Who, contact_id: str) -> None:
    """With all that was said."""
    await house.contacts.remove(who, contact_id)


@router.post("/contacts/{contact_id}/history")
async def add_history(house: House, me: Me, contact_id: str, body: History) -> ContactDetail:
    """What was said elsewhere, or a copy of one of your conversations. Sent twice it is kept once."""
    if body.conversation_id is not None and "chat" not in me.permissions:
        raise Denied(
            "Copying a conversation needs the permission `chat`, too.", code="not_permitted", permission="chat"
        )
    turns = [Turn(each.role, each.text, each.at) for each in body.turns]
    return await house.contacts.add_history(me.scope, contact_id, turns, conversation_id=body.conversation_id)


@router.get("/contact-lists")
async def list_contact_lists(house: House, who: Who) -> Page[ContactList]:
    """By name."""
    return Page(items=await house.contacts.lists(who))


@router.delete("/contact-lists/{list_id}", status_code=204)
async def delete_contact_list(house: House, who: Who, list_id: str) -> None:
    """With the contacts that are in no other list."""
    await house.contacts.remove_list(who, list_id)


async def _received(imports: FileImports, who: Scope, request: Request) -> Imported:
    """The one file of the body; fields come before or after it, as the client sends them."""
    fields: dict[str, str] = {}
    files = _files(request, fields)
    async for name, stream in files:
        async with imports.receive(who, name, stream) as upload:
            if await anext(files, None) is not None:
                raise Invalid("This takes one file; import each by itself.", code="one_file_only")
            return await _begun(imports, who, upload, fields)
    raise Invalid("There is no file in the upload. Send one as the field `file`.", code="file_missing")


async def _begun(imports: FileImports, who: Scope, upload: Upload, fields: dict[str, str]) -> Imported:
    how = How(
        _mapping(fields.get("mapping", "")),
        encoding=fields.get("encoding", ""),
        delimiter=fields.get("delimiter", ""),
        sheet=fields.get("sheet", ""),
    )
    if _yes(fields.get("dry_run", "")):
        return Imported(job_id=None, list=None, examined=await imports.examine(who, upload, how))
    if not fields.get("list"):
        raise Invalid("Name the list they go into: the field `list`.", code="list_wanted")
    job_id, made = await imports.start(who, upload, fields["list"], how)
    return Imported(job_id=job_id, list=made, examined=None)


async def _files(request: Request, fields: dict[str, str]) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    async for part in parts(request):
        if part.filename is not None:
            yield part.filename, aiter(part)
        else:
            await _field(part, fields)


async def _field(part: Part, fields: dict[str, str]) -> None:
    if part.name == "file":
        raise Invalid("The field 'file' holds no file. With curl it is -F file=@name, with the @.")
    if part.name not in FIELDS:
        raise Invalid(f"The field {part.name[:100]!r} is not known here; use file, {', '.join(FIELDS)}.")
    text = await part.text()
    fields[part.name] = text if part.name == "delimiter" else text.strip()


def _mapping(text: str) -> dict[str, str]:
    try:
        mapping: Any = json.loads(text) if text else {}
    except (ValueError, RecursionError) as error:
        raise Invalid(f"The mapping is not JSON: {str(error)[:200]}.", code="bad_mapping") from error
    if not isinstance(mapping, dict) or len(mapping) > MAX_MAPPED:
        raise Invalid('The mapping is a JSON object such as {"Town": "city"}.', code="bad_mapping")
    if not all(isinstance(field, str | None) for field in mapping.values()):
        raise Invalid("A column is mapped to a field's name, or to nothing.", code="bad_mapping")
    return {column: field or "" for column, field in mapping.items()}


def _yes(text: str) -> bool:
    if text.lower() not in ("", "true", "false", "1", "0", "yes", "no", "on", "off"):
        raise Invalid("dry_run is true or false.", code="bad_dry_run")
    return text.lower() in ("true", "1", "yes", "on")
