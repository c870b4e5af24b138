"""Fields that several bodies have, each with its bounds."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, Field

Name = Annotated[str, Field(min_length=1, max_length=200)]
Email = Annotated[str, Field(min_length=3, max_length=320, examples=["ada@example.org"])]
Password = Annotated[str, Field(max_length=1024, json_schema_extra={"format": "password"})]
Token = Annotated[str, Field(min_length=1, max_length=500)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Scopes = Annotated[list[Annotated[str, Field(min_length=1, max_length=50)]], Field(max_length=100)]
Patterns = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=300)]], Field(max_length=100, examples=[["openai/*"]])
]
Addresses = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=100, examples=[["10.0.0.0/8"]])
]
Until = Annotated[AwareDatetime | datetime, Field(description="Without a time zone it is UTC.")]
