"""What the class of every table derives from."""

from sqlmodel import SQLModel


class Row(SQLModel):
    # SQLModel does not validate tables, so pydantic need not prepare to: that took a tenth of each start.
    model_config = {"defer_build": True}
