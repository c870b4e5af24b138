"""When local mode ends, a person is erased, or a tenant is deleted. Functions of a session."""

from collections.abc import Collection

from sqlalchemy import String, bindparam, text
from sqlmodel import Session

from terrace.types import DEFAULT_TENANT, Scope

ADOPT = text("UPDATE jobs SET user_id = :user WHERE tenant_id = :tenant AND user_id IS NULL")
PRIVATE = "FROM jobs WHERE user_id = :user AND kind NOT IN :shared"
DROP_EVENTS = text(f"DELETE FROM job_events WHERE (tenant_id, job_id) IN (SELECT tenant_id, id {PRIVATE})").bindparams(
    bindparam("shared", expanding=True, type_=String)
)
DROP_JOBS = text(f"DELETE {PRIVATE}").bindparams(bindparam("shared", expanding=True, type_=String))
RELEASE = text("UPDATE jobs SET user_id = NULL, key_id = NULL WHERE user_id = :user")
DROP_ALL_EVENTS = text("DELETE FROM job_events WHERE tenant_id = :tenant")
DROP_ALL_JOBS = text("DELETE FROM jobs WHERE tenant_id = :tenant")


def adopt(session: Session, user_id: str) -> None:
    """What nobody in particular had asked for on this machine becomes the first person's."""
    session.execute(ADOPT, {"tenant": DEFAULT_TENANT, "user": user_id})


def erase_user(session: Session, user_id: str, shared: Collection[str]) -> None:
    """A person's jobs go with all they said; those of kinds that are shared stay the tenants' and lose the name.

    One that runs now is stopped at its next heartbeat: its worker finds that it owns nothing any more.
    """
    if not user_id:
        raise ValueError("nobody cannot be erased")
    values = {"user": user_id, "shared": list(shared)}
    session.execute(DROP_EVENTS, values)
    session.execute(DROP_JOBS, values)
    session.execute(RELEASE, {"user": user_id})


def erase_tenant(session: Session, scope: Scope) -> None:
    """All jobs of the tenant; those that run now stop as above."""
    session.execute(DROP_ALL_EVENTS, {"tenant": scope.tenant})
    session.execute(DROP_ALL_JOBS, {"tenant": scope.tenant})
