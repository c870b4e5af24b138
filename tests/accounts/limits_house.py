"""What tests of limits stand in: a database with people, a real ledger, prices that are told, a clock that is set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlmodel import Session

from terrace import settings
from terrace.accounts.limits.base import Limits, Subject
from terrace.accounts.limits.memory import MemoryLimits
from terrace.accounts.limits.shared.limits import SharedLimits
from terrace.accounts.tables import KeyRow, MembershipRow, TenantRow, UserRow
from terrace.storage import Database
from terrace.telemetry.calls import Call, Demand, Meter, Outcome, Usage
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import FREE, Price
from terrace.types import Scope, new_id

NOON = 1_795_262_400.0  # 2026-11-21 12:00 UTC
DOLLAR = Price(10**6, 10**6, 10**6, "2026-11-21")  # a dollar a million tokens
ADA = Scope("acme", "usr_ada", "key_ada")
ACME, HER, HER_KEY = Subject("acme"), Subject("acme", "user", "usr_ada"), Subject("acme", "key", "key_ada")


class Clock:
    def __init__(self, at: float = NOON) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += seconds


class Told:
    """`gpt` costs a dollar a million tokens, `local` nothing, and of others nobody knows."""

    def of(self, kind: str, provider: str, model: str) -> Price | None:
        return {"gpt": DOLLAR, "local": FREE}.get(model)


class Shelf:
    """What is stored, as the knowledge room would count it."""

    def __init__(self) -> None:
        self.kept: dict[Subject, tuple[int, int]] = {}

    def __call__(self, session: Session, subject: Subject) -> tuple[int, int]:
        return self.kept.get(subject, (0, 0))


class Both(Limits, Meter):
    """What an implementation has to be."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...


Make = Callable[["Bench"], Both]


@dataclass
class Bench:
    database: Database
    folder: Path
    make: Make
    options: settings.Limits = field(default_factory=settings.Limits)
    clock: Clock = field(default_factory=Clock)
    shelf: Any = field(default_factory=Shelf)
    recorded: list[Call] = field(default_factory=list)
    ledger: Ledger = field(init=False)
    limits: Both = field(init=False)

    async def open(self) -> None:
        self.ledger = Ledger(self.database, self.folder / "usage", self.clock)
        await self.ledger.start()
        self.limits = self.make(self)
        await self.limits.start()

    async def close(self) -> None:
        await self.limits.close()
        await self.ledger.close()

    async def restart(self) -> None:
        await self.close()
        await self.open()

    def another(self) -> Both:
        """A second one on the same data, as of another process."""
        return self.make(self)


def in_memory(bench: Bench) -> Both:
    return MemoryLimits(
        bench.database, bench.ledger, Told(), bench.recorded.append, bench.options, bench.clock, stored=bench.shelf
    )  # type: ignore[return-value]


def shared(url: str = "") -> Make:
    """With whoever else is on the same database, through Redis where there is a `url`."""
    redis = settings.Redis(url=url, prefix=new_id("tst"))

    def make(bench: Bench) -> Both:
        return SharedLimits(
            bench.database, bench.ledger, Told(), bench.recorded.append, bench.options, bench.clock,
            stored=bench.shelf, redis=redis,
        )  # type: ignore[return-value]  # fmt: skip

    return make


def people(session: Session) -> None:
    at = NOON - 1000
    for tenant in ("acme", "globex"):
        session.add(TenantRow(id=tenant, name=tenant, name_key=tenant, models=[], created_at=at))
    for name in ("ada", "bob", "cat"):
        session.add(UserRow(id=f"usr_{name}", name=name, email=f"{name}@x", email_key=f"{name}@x", created_at=at))
    session.flush()
    for tenant, name in (("acme", "ada"), ("acme", "cat"), ("globex", "bob")):
        session.add(MembershipRow(tenant_id=tenant, user_id=f"usr_{name}", role="member", created_at=at))
        session.add(KeyRow(id=f"key_{name}", tenant_id=tenant, name=name, secret_hash="", hint="", created_at=at))
    session.flush()


def demand(tokens: int = 100, answer: int | None = 0, *, model: str = "gpt", requests: int = 0) -> Demand:
    return Demand("box", "openai", model, "chat", tokens, answer, requests)


def done(tokens: int = 0, answer: int = 0, *, outcome: Outcome = "ok", model: str = "gpt") -> Call:
    return Call("box", model, "chat", outcome, "", 1.0, 0.1, Usage(tokens, answer), "acme")


def unused() -> Call:
    return Call("box", "gpt", "chat", "error", "upstream_unreachable", 0.0, None, None, "acme")
