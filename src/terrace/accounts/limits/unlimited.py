"""Limits where nobody has any: for tests, and for rooms used on their own."""

from collections.abc import Callable, Mapping

from sqlmodel import Session

from terrace.accounts.limits.base import Hold, Limit, LimitName, Subject
from terrace.errors import Conflict
from terrace.telemetry.calls import Demand
from terrace.types import Scope


class Unlimited:
    """`accounts.limits.base.Limits` that let everything pass."""

    shared = False

    def count(self, scope: Scope) -> None: ...

    async def count_waiting(self, scope: Scope, patience: float) -> None: ...

    def hold(self, scope: Scope, demand: Demand) -> Hold:
        return _Nothing()

    async def hold_waiting(self, scope: Scope, demand: Demand) -> Hold:
        return _Nothing()

    def release(self, job_id: str) -> None: ...

    def admit(self, session: Session, scope: Scope, *, documents: int, bytes: int) -> None: ...

    async def show(self, subject: Subject) -> list[Limit]:
        return []

    async def subjects(self, tenant: str) -> list[Subject]:
        return []

    async def change(
        self,
        subject: Subject,
        values: Mapping[LimitName, float | None],
        by: str,
        also: Callable[[Session], None] | None = None,
    ) -> list[Limit]:
        raise Conflict("Nothing is limited here, and nothing can be.", code="no_limits")


class _Nothing:
    def bind(self, job_id: str) -> None: ...

    def release(self) -> None: ...
