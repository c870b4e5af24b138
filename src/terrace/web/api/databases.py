"""Other databases that contacts come from: asked read-only."""

from typing import Annotated

from pydantic import BaseModel, Field
from starlette.responses import Response

from terrace.campaigns.databases.base import TLS, Database, Kind, NewDatabase, Shown
from terrace.web.access import Me, Who, resource
from terrace.web.api.contacts import Imported, Mapping
from terrace.web.api.fields import Name
from terrace.web.api.pages import Page
from terrace.web.services import House

router = resource(prefix="/databases", tags=["contacts"])

SQL = Annotated[
    str,
    Field(min_length=1, max_length=20_000, examples=["SELECT email, name, city FROM customers"]),
]


class DatabaseGiven(BaseModel):
    name: Name
    kind: Kind
    host: str = Field("", max_length=253)
    port: int | None = Field(None, ge=1, le=65_535)
    database: str = Field("", max_length=200, description="Its name there.")
    user: str = Field("", max_length=1_000)
    password: str = Field("", max_length=1_000, json_schema_extra={"format": "password", "writeOnly": True})
    tls: TLS = Field(
        "require", description="require: encrypted; verify: and its certificate is checked; off: in the clear."
    )
    ca: str = Field("", max_length=100_000, description="Certificates (PEM) that `verify` trusts.")
    file: str = Field("", max_length=4_000, description="SQLite: the whole path, in a folder the operator allows.")
    test: bool = Field(True, description="Connect first, and keep nothing when that fails.")


class Query(BaseModel):
    query: SQL


class Import(BaseModel):
    query: SQL
    list: str = Field("", max_length=200, description="Name or id of the list they go into; made when missing.")
    mapping: Mapping = Field(default_factory=dict, description="Columns that are not named are guessed.")
    dry_run: bool = False


@router.get("")
async def list_databases(house: House, who: Who) -> Page[Database]:
    """By name; credentials are shown nowhere."""
    return Page(items=await house.databases.list(who))


@router.post("", status_code=201)
async def add_database(house: House, me: Me, body: DatabaseGiven) -> Database:
    """PostgreSQL, MySQL or MariaDB, or a SQLite file."""
    given = body.model_dump(exclude={"test"})
    added = await house.databases.add(me.scope, NewDatabase(**given), test=body.test)
    await house.audit.note(me, "database.added", added.id)
    return added


@router.get("/{database_id}")
async def get_database(house: House, who: Who, database_id: str) -> Database:
    return await house.databases.get(who, database_id)


@router.delete("/{database_id}", status_code=204)
async def remove_database(house: House, me: Me, database_id: str) -> None:
    """What came from it stays."""
    await house.databases.remove(me.scope, database_id)
    await house.audit.note(me, "database.removed", database_id)


@router.post("/{database_id}/query")
async def query_database(house: House, who: Who, database_id: str, body: Query) -> Shown:
    """One SELECT, in a transaction that cannot write: its first 20 rows, and which column would be which field."""
    return await house.databases.query(who, database_id, body.query)


@router.post("/{database_id}/import", status_code=202, responses={200: {"model": Imported}})
async def import_from_database(house: House, who: Who, database_id: str, body: Import, response: Response) -> Imported:
    """202 with the job that brings its rows in as contacts; 200 with what it would do, of a dry run."""
    if body.dry_run:
        response.status_code = 200
        examined = await house.databases.examine(who, database_id, body.query, body.mapping)
        return Imported(job_id=None, list=None, examined=examined)
    job_id, made = await house.databases.start(who, database_id, body.query, body.list, body.mapping)
    return Imported(job_id=job_id, list=made, examined=None)
