"""The kinds of job of corpus health; assembly registers them."""

from typing import Any

from terrace.errors import Invalid
from terrace.jobs.base import Context, JobKind
from terrace.knowledge.doctor import Doctor
from terrace.knowledge.health.base import KINDS
from terrace.knowledge.health.service import Health
from terrace.knowledge.health.store import CHECK

CHECK_ALL = "index.health.all"
TIDY = "library.tidy"


def job_kinds(health: Health, doctor: Doctor) -> tuple[JobKind, ...]:
    """They are shared: whoever may read documents sees what becomes of them."""

    async def check(context: Context) -> dict[str, Any]:
        """The payload says what to `repair` first, and whether to check `anyway`, where nothing has changed."""
        kinds = context.payload.get("repair", [])
        if not isinstance(kinds, list) or not set(kinds) <= set(KINDS):
            raise Invalid("The payload's `repair` is a list of kinds of findings.", code="bad_payload")
        repaired = await health.repair(context.scope, kinds) if kinds else {}
        report = await health.check(context.scope, anyway=bool(kinds) or bool(context.payload.get("anyway")))
        found = {} if report is None else {each.kind: each.count for each in report.findings}
        return {"repaired": repaired, "changed": report is not None, "findings": found}

    async def check_all(context: Context) -> dict[str, Any]:
        return {"checks": await health.check_all()}

    async def tidy(context: Context) -> dict[str, Any]:
        return {"mended": await doctor.keep_house()}

    return (
        JobKind(CHECK, check, lane="cpu", max_failures=2, shared=True),
        JobKind(CHECK_ALL, check_all, max_failures=2, shared=True),
        JobKind(TIDY, tidy, max_failures=2, shared=True),
    )
