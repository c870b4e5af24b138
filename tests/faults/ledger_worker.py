"""Makes calls until it is killed: `ledger_worker.py DATA NAME`. What it is about to do, and has done, it writes to a
log of its own first and after, so that whoever killed it knows what the books must say."""

import asyncio
import os
import random
import sys
from pathlib import Path

from terrace.storage import SQLiteDatabase
from terrace.telemetry.calls import Call, Demand, Usage
from terrace.telemetry.ledger import Ledger
from terrace.telemetry.prices import Price, cost
from terrace.types import Scope

PRICE = Price(2_500_000, 1_250_000, 10_000_000, "2026-11-21")
RESERVED = Usage(5000, 5000)
DEMAND = Demand("openai", "openai", "gpt-4o", "chat", RESERVED.input_tokens, RESERVED.output_tokens)


class Story:
    """begin n / begun n / end n cost / ended n, a line each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


async def work(data: Path, name: str) -> None:
    chance = random.Random(name)
    database = SQLiteDatabase(data / "terrace.db", durability="normal")
    ledger = Ledger(database, data / "usage")
    print("starting", flush=True)
    await ledger.start()
    print("working", flush=True)
    story = Story(data / f"{name}.story")
    under_way: list[tuple[str, int]] = []
    number = 0
    while True:
        if len(under_way) < 50 and chance.random() < 0.6:
            call = f"job_{name}_{number}"
            number += 1
            story("begin", call)
            scope = Scope("acme", f"usr_{number % 7}", None, call)
            slot = ledger.begin(
                scope, DEMAND, RESERVED.input_tokens, RESERVED.output_tokens, PRICE, cost(PRICE, RESERVED)
            )
            story("begun", call)
            under_way.append((call, slot))
        elif under_way:
            call, slot = under_way.pop(chance.randrange(len(under_way)))
            usage = Usage(chance.randrange(5000), chance.randrange(5000))
            story("end", call, cost(PRICE, usage))
            ledger.end(
                slot,
                Call("openai", "gpt-4o", "chat", "ok", "", 0.1, None, usage, "acme"),
                cost(PRICE, usage),
                PRICE.dated,
            )
            story("ended", call)
        if chance.random() < 0.02:
            await ledger.flush()
        elif chance.random() < 0.05:
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), sys.argv[2]))
