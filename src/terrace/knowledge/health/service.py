"""A tenant's corpus looked through, and mended where that is asked for."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from sqlmodel import Session

from terrace.errors import Invalid
from terrace.jobs.base import Jobs
from terrace.knowledge.doctor import Case, Doctor
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.health import documents, store
from terrace.knowledge.health.base import (
    EXAMPLES,
    KINDS,
    Condition,
    Example,
    Finding,
    Found,
    InspectedIndex,
    Report,
    Strays,
)
from terrace.knowledge.health.documents import Ailment
from terrace.knowledge.health.likeness import Means, Pair
from terrace.storage import Database
from terrace.types import Scope, moment, now

HISTORY = 50
PIECE = 1000  # vectors read at a time
MOST_COMPARED = 10_000  # documents, the latest: twice as many take four times as long
AT_ONCE = 200  # documents mended in one transaction
FRESH_SECONDS = 60.0  # the sums for the metrics are read at most so often
UNCHANGED_SECONDS = 86_400.0  # a corpus that nobody touched is looked through again after this
PRIORITY = -10  # what somebody waits for goes first
APART_SECONDS = 5.0  # between the checks of two tenants

Remove = Callable[[Scope, str], Awaitable[Any]]


class Health:
    """`remove` deletes a document; `serving` names models whose vectors are wanted besides the present one's, such as
    an older generation's."""

    def __init__(
        self,
        database: Database,
        jobs: Jobs,
        index: InspectedIndex,
        embedder: StatefulEmbedder,
        doctor: Doctor,
        remove: Remove,
        *,
        serving: Callable[[], Collection[str]] = tuple,
        clock: Callable[[], float] = now,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._index = index
        self._embedder = embedder
        self._doctor = doctor
        self._remove = remove
        self._also_serving = serving
        self._clock = clock
        self._totals: tuple[float, dict[str, int]] = (-FRESH_SECONDS, {})

    # -- what doors ask

    async def condition(self, scope: Scope) -> Condition:
        """The last report, and how it was before."""

        def read(session: Session) -> Condition:
            report, history = store.latest(session, scope, HISTORY)
            return Condition(report, history, store.going(session, scope))

        return await self._database.read(read)

    def begin(self, session: Session, scope: Scope, payload: dict[str, Any]) -> str:
        """Put in a check; the one that goes on already, if there is one. Returns the job."""
        return store.going(session, scope) or self._jobs.enqueue(session, scope, store.CHECK, payload)

    async def check_soon(self, scope: Scope) -> str:
        """Have the corpus looked through; the job that does it."""
        return await self._database.write(self.begin, scope, {"anyway": True})

    async def repair_soon(self, scope: Scope, kinds: Sequence[str]) -> str:
        """Have findings of these kinds mended, and the corpus looked through again. Raises Invalid."""
        wanted = list(dict.fromkeys(kinds))
        mendable = [kind.name for kind in KINDS.values() if kind.repair]
        if not wanted or not set(wanted) <= set(mendable):
            raise Invalid(f"Say which kinds to repair: {', '.join(mendable)}.", code="bad_kind")
        payload = {"repair": wanted}
        return await self._database.write(lambda session: self._jobs.enqueue(session, scope, store.CHECK, payload))

    async def totals(self) -> dict[str, int]:
        """What the latest checks found, over all tenants: kind -> how many. A minute old at most."""
        read_at, sums = self._totals
        if time.monotonic() - read_at >= FRESH_SECONDS:
            sums = await self._database.read(store.totals)
            self._totals = time.monotonic(), sums
        return sums

    # -- over all tenants

    async def check_all(self) -> int:
        """Put in a check for each tenant whose corpus has changed, one after another; how many."""
        waiting = 0
        for tenant in await self._database.read(store.tenants):
            waiting += await self._database.write(self._begin_if_changed, Scope(tenant), waiting * APART_SECONDS)
        return waiting

    def _begin_if_changed(self, session: Session, scope: Scope, delay: float) -> bool:
        if not self._changed(session, scope) or store.going(session, scope):
            return False
        self._jobs.enqueue(session, scope, store.CHECK, {}, priority=PRIORITY, delay=delay)
        return True

    def _changed(self, session: Session, scope: Scope) -> bool:
        before = store.watched(session, scope)
        return (
            before is None
            or before.checked_at < self._clock() - UNCHANGED_SECONDS
            or before.seen != store.seen(session, scope, self._embedder.name)
        )

    # -- checking

    async def check(self, scope: Scope, *, anyway: bool = True) -> Report | None:
        """Look through the corpus and keep the report; None when nothing has changed, unless `anyway`."""
        if not anyway and not await self._database.read(self._changed, scope):
            return None
        began, at = time.perf_counter(), self._clock()
        as_seen = await self._database.read(store.seen, scope, self._embedder.name)
        since = await self._database.write(store.watch, scope, at)
        alike, notes = await self._alike(scope)
        found = [
            *[await self._database.read(_ailing, each, scope) for each in self._ailments()],
            *await self._astray(scope),
            *alike,
            await self._database.read(store.stale, scope, at),
            await self._database.read(store.never_retrieved, scope, at, since),
        ]
        counts = await self._database.read(self._index.counts, scope)
        many = await self._database.read(store.documents, scope)
        report = Report(
            moment(at), round(time.perf_counter() - began, 2), many, counts["chunks"], counts["vectors"],
            _shown(found), notes,
        )  # fmt: skip
        await self._database.write(store.keep, scope, report, as_seen)
        return report

    def _ailments(self) -> list[Ailment]:
        return [documents.failed(), *self._doctor.ailments()]

    async def _astray(self, scope: Scope) -> list[Found]:
        """What the doctor finds of this tenant outside the documents' own rows."""
        strays = await self._strays(scope)
        by_kind: dict[str, list[Case]] = {}
        for case in await self._cases(scope, strays):
            by_kind.setdefault(case.finding.code, []).append(case)
        return [
            Found("vectors_left", strays.left, []),
            *(
                Found(code, sum(case.count for case in cases), [_example(scope, case) for case in cases[:EXAMPLES]])
                for code, cases in by_kind.items()
            ),
        ]

    async def _cases(self, scope: Scope, strays: Strays) -> list[Case]:
        tenant = scope.tenant
        return [*await self._doctor.index_astray(tenant, strays), *await self._doctor.blobs_astray(tenant)]

    async def _strays(self, scope: Scope) -> Strays:
        return await self._database.read(self._index.strays, scope, self._serving())

    def _serving(self) -> list[str] | None:
        """None: of all, where no model is there to say otherwise."""
        absent = self._embedder.state().state == "absent"
        return None if absent else [self._embedder.name, *self._also_serving()]

    async def _alike(self, scope: Scope) -> tuple[list[Found], list[str]]:
        """Documents with the same text, and those almost the same; and what was left out."""
        notes = []
        exact, twins, whole = await self._database.read(store.duplicates, scope)
        if not whole:
            notes.append(f"Of documents of one length, only the first {store.MOST_ALIKE:,} passages were compared.")
        means = await self._means(scope)
        pairs, compared = await asyncio.to_thread(means.pairs, MOST_COMPARED)
        if compared < len(means):
            notes.append(f"Only the latest {compared:,} of {len(means):,} documents were compared by meaning.")
        near = await self._near(scope, [pair for pair in pairs if not {pair.document, pair.other} & twins])
        return [*exact, near], notes

    async def _means(self, scope: Scope) -> Means:
        means, place, following = Means(), 0, -1
        while following != place:
            place, model = max(following, 0), self._embedder.name
            following, names, vectors = await self._database.read(self._index.vectors_after, scope, model, place, PIECE)
            if names:
                await asyncio.to_thread(means.add, names, vectors)
        return means

    async def _near(self, scope: Scope, pairs: Sequence[Pair]) -> Found:
        """Each later document once, with the one it is most like."""
        best: dict[str, Pair] = {}
        for pair in pairs:
            if pair.other not in best or best[pair.other].likeness < pair.likeness:
                best[pair.other] = pair
        shown = sorted(best.values(), key=lambda pair: -pair.likeness)[:EXAMPLES]
        ids = [each for pair in shown for each in (pair.document, pair.other)]
        names = await self._database.read(store.named, scope, ids)
        told = [
            Example(
                pair.other, names[pair.other], f"{pair.likeness:.1%} like {names[pair.document]!r} ({pair.document})."
            )
            for pair in shown
            if pair.document in names and pair.other in names
        ]
        return Found("duplicate_near", len(best), told)

    # -- repairing

    async def repair(self, scope: Scope, kinds: Collection[str]) -> dict[str, int]:
        """Mend what there is of these kinds now; how many of each. Running it twice is harmless."""
        mended: dict[str, int] = {}
        for ailment in self._ailments():
            if ailment.code in kinds:
                mended[ailment.code] = await self._read_again(scope, ailment)
        strays = await self._strays(scope)
        for case in await self._cases(scope, strays):
            code = case.finding.code
            if code in kinds and case.repair is not None:
                await case.repair()
                mended[code] = mended.get(code, 0) + case.count
        if "vectors_left" in kinds:
            mended["vectors_left"] = strays.left
            await self._doctor.drop_vectors(scope, "left", self._serving())
        if "duplicate" in kinds:
            exact, _, _ = await self._database.read(store.duplicates, scope)
            for example in exact[0].examples:
                await self._remove(scope, example.id)
            mended["duplicate"] = exact[0].count
        return mended

    async def _read_again(self, scope: Scope, ailment: Ailment) -> int:
        """A piece at a time: each one's job is put in with it."""

        def mend(session: Session, after: str) -> tuple[int, str]:
            rows = documents.ailing(session, ailment, scope.tenant, limit=AT_ONCE, after=after)
            done = sum(documents.again(session, self._jobs, row, ailment.job) for row in rows)
            return done, rows[-1].id if len(rows) == AT_ONCE else ""

        count, after = await self._database.write(mend, "")
        while after:
            more, after = await self._database.write(mend, after)
            count += more
        return count


def _ailing(session: Session, ailment: Ailment, scope: Scope) -> Found:
    count = documents.count(session, ailment, scope.tenant)
    rows = documents.ailing(session, ailment, scope.tenant, limit=EXAMPLES) if count else ()
    reasons = [str((row.error or {}).get("message", "")) for row in rows]
    told = [Example(row.id, row.name, why) for row, why in zip(rows, reasons, strict=True)]
    return Found(ailment.code, count, told)


def _example(scope: Scope, case: Case) -> Example:
    finding = case.finding
    about = "" if finding.subject == scope.tenant else finding.subject
    return Example(about, about, finding.message)


def _shown(found: Sequence[Found]) -> list[Finding]:
    """In the order of the kinds, without what was not found."""
    by_kind = {each.kind: each for each in found if each.count}
    return [
        Finding(kind.name, kind.title, each.count, each.examples[:EXAMPLES], bool(kind.repair), kind.repair)
        for kind in KINDS.values()
        if (each := by_kind.get(kind.name)) is not None
    ]
