"""What a token costs. The table that ships is dated; an operator's own prices win; what nobody knows is None, not zero.

Prices are told in dollars a million tokens with at most six decimals, which is a whole number of picodollars a token.
"""

import asyncio
import logging
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from sqlmodel import Session, col, func, select

from terrace.errors import Invalid, Missing, TerraceError
from terrace.storage import Database, after_commit
from terrace.telemetry.calls import Usage
from terrace.telemetry.tables import PriceRow
from terrace.types import moment, now

log = logging.getLogger(__name__)

TABLE = Path(__file__).with_name("prices.toml")
UNIT = 10**6  # picodollars a token in a dollar a million tokens
LOCAL_KINDS = frozenset({"ollama", "llamacpp", "quote", "builtin", "fake"})  # they run here, and cost nothing
MAX_NAME = 300
MAX_SET = 10_000  # prices an operator may set
MAX_DOLLARS = 100_000  # a million tokens
REMEMBERED = 10_000  # models looked up; a client may name models that nobody lists
RELOAD_SECONDS = 1.0  # after another process has written

_DATED = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{3,4}|latest)$")


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars a token."""

    input: int
    cached: int  # of an input token that the provider had in its cache
    output: int
    dated: str  # when it was looked up or set: 2026-11-21; empty for what is free


FREE = Price(0, 0, 0, "")


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """A price as shown: dollars a million tokens."""

    model: str
    input: float
    cached: float
    output: float
    dated: str
    source: Literal["shipped", "set"]


def cost(price: Price, usage: Usage) -> int:
    """Picodollars. Cached tokens are some of the input tokens."""
    cached = max(0, min(usage.cached_tokens, usage.input_tokens))
    return (usage.input_tokens - cached) * price.input + cached * price.cached + usage.output_tokens * price.output


class Prices:
    """Kept in memory; `load` reads them and follows what other processes change."""

    def __init__(self, database: Database, clock: Callable[[], float] = now) -> None:
        self._database = database
        self._clock = clock
        self._shipped: Mapping[str, Price] = {}  # by `<vendor>/<model>`
        self._anywhere: Mapping[str, Price] = {}  # by the name alone
        self._set: Mapping[str, Price] = {}
        self._found: dict[tuple[str, str, str], Price | None] = {}
        self._unwatch: Callable[[], None] | None = None
        self._reload: asyncio.TimerHandle | None = None
        self._reloading: asyncio.Task[None] | None = None

    async def load(self) -> None:
        self._shipped, self._anywhere = await asyncio.to_thread(_shipped)
        self._found = {}
        await self.refresh()
        if self._unwatch is None:
            self._unwatch = self._database.watch(self._others_wrote)

    async def refresh(self) -> None:
        """What an operator has set, read anew."""
        self._replace(await self._database.read(_all))

    async def close(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
        if self._reload is not None:
            self._reload.cancel()
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)

    def of(self, kind: str, provider: str, model: str) -> Price | None:
        """What a model of a provider (its kind and name in the settings) costs; None when nobody knows."""
        key = (kind, provider, model)
        try:
            return self._found[key]
        except KeyError:
            if len(self._found) >= REMEMBERED:
                self._found.clear()
            price = self._found[key] = self._look_up(kind, provider, model)
            return price

    def list(self) -> list[ListedPrice]:
        """By model; where an operator has set a price, theirs instead of ours."""
        shown = {model: (price, "shipped") for model, price in self._shipped.items()}
        shown |= {model: (price, "set") for model, price in self._set.items()}
        return [_listed(model, *shown[model]) for model in sorted(shown)]

    async def set(
        self,
        model: str,
        *,
        input: float,
        output: float,
        cached: float | None = None,
        by: str,
        also: Callable[[Session], None] | None = None,
    ) -> ListedPrice:
        """Dollars a million tokens of `<provider>/<model>`, or of a model wherever it is. `cached` left out is as dear
        as `input`. `also` is done in the same transaction. Raises Invalid."""
        row = PriceRow(
            model=_name(model),
            input=_picodollars("input", input),
            cached=_picodollars("cached", input if cached is None else cached),
            output=_picodollars("output", output),
            dated=moment(self._clock()).date().isoformat(),
            set_by=by,
            set_at=self._clock(),
        )
        price = _price(row)
        await self._database.write(self._keep, row, also)
        return _listed(model, price, "set")

    async def remove(self, model: str, *, also: Callable[[Session], None] | None = None) -> None:
        """Back to the price that ships, if there is one. Raises Missing."""
        await self._database.write(self._drop, model, also)

    def _keep(self, session: Session, row: PriceRow, also: Callable[[Session], None] | None) -> None:
        known = session.get(PriceRow, row.model)
        if known is None and session.exec(select(func.count()).select_from(PriceRow)).one() >= MAX_SET:
            raise Invalid(f"At most {MAX_SET:,} prices can be set; remove some.", code="too_many_prices")
        session.merge(row)
        self._changed(session, also)

    def _drop(self, session: Session, model: str, also: Callable[[Session], None] | None) -> None:
        if (row := session.get(PriceRow, model)) is None:
            raise Missing("No price has been set for this model.", code="price_missing")
        session.delete(row)
        self._changed(session, also)

    def _changed(self, session: Session, also: Callable[[Session], None] | None) -> None:
        if also is not None:
            also(session)
        session.flush()
        prices = _all(session)
        after_commit(session, lambda: self._replace(prices))

    def _replace(self, prices: Mapping[str, Price]) -> None:
        if prices != self._set:
            self._set = prices
            self._found = {}

    def _others_wrote(self) -> None:
        if self._reload is None:
            self._reload = asyncio.get_running_loop().call_later(RELOAD_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._reload = None
        self._reloading = asyncio.get_running_loop().create_task(self._try_again(), name="prices")

    async def _try_again(self) -> None:
        try:
            await self.refresh()
        except TerraceError as error:
            log.warning("the prices could not be read again: %s", error)

    def _look_up(self, kind: str, provider: str, model: str) -> Price | None:
        names = list(_names(provider, model))
        for name in names:
            if (price := self._set.get(name)) is not None:
                return price
        if kind in LOCAL_KINDS:
            return FREE
        for name in names:
            if (price := self._shipped.get(name) or self._anywhere.get(name)) is not None:
                return price
        return None


def _names(provider: str, model: str) -> Iterator[str]:
    """What a price may be kept under, the most exact first."""
    plain = model.removeprefix("models/")  # so Google lists its own
    for name in dict.fromkeys((model, plain, _DATED.sub("", plain))):
        yield f"{provider}/{name}"
        yield name


def _shipped() -> tuple[dict[str, Price], dict[str, Price]]:
    everywhere: dict[str, Price] = {}
    anywhere: dict[str, Price] = {}
    vendors: dict[str, dict[str, Any]] = tomllib.loads(TABLE.read_text("utf-8"), parse_float=Decimal)
    for vendor, about in vendors.items():
        for model, told in about["models"].items():
            read, cached, written = (
                int(told.get(name, told["input"]) * UNIT) for name in ("input", "cached", "output")
            )
            price = everywhere[f"{vendor}/{model}"] = Price(read, cached, written, told.get("dated", about["dated"]))
            if about["anywhere"]:
                anywhere[model] = price
    return everywhere, anywhere


def _all(session: Session) -> dict[str, Price]:
    return {row.model: _price(row) for row in session.exec(select(PriceRow).order_by(col(PriceRow.model)))}


def _price(row: PriceRow) -> Price:
    return Price(row.input, row.cached, row.output, row.dated)


def _listed(model: str, price: Price, source: Any) -> ListedPrice:
    return ListedPrice(model, price.input / UNIT, price.cached / UNIT, price.output / UNIT, price.dated, source)


def _name(model: str) -> str:
    if not 0 < len(model) <= MAX_NAME or not model.isprintable() or model != model.strip():
        raise Invalid(
            f"Name the model as `<provider>/<model>`, in at most {MAX_NAME} characters.", code="bad_model_name"
        )
    return model


def _picodollars(name: str, dollars: float) -> int:
    try:
        told = Decimal(str(dollars))
    except InvalidOperation:
        told = Decimal("NaN")
    if not told.is_finite() or not 0 <= told <= MAX_DOLLARS or told * UNIT != int(told * UNIT):
        raise Invalid(
            f"`{name}` is a price in dollars a million tokens: from 0 to {MAX_DOLLARS:,}, with at most six decimals.",
            code="bad_price",
        )
    return int(told * UNIT)
