"""The /v1 door alone on our server: what the gateway costs without the house around it."""

import asyncio
import signal

from terrace.accounts.base import LOCAL, Caller
from terrace.models.service import open_models
from terrace.models.transport import open_transport
from terrace.settings import Settings
from terrace.telemetry.calls import Counting
from terrace.types import Scope
from terrace.web.openai import OpenAIDoor
from terrace.web.server import bind, serve


class NoRanker:
    """The quote model is not asked here."""

    async def rank(self, question: str, passages: object, scope: object = None) -> list[object]:
        return []


class Everybody:
    """Lets everybody in."""

    def known(self, asgi: object) -> Caller:
        return LOCAL

    async def authenticate(self, asgi: object) -> Caller:
        return LOCAL


class NoLimits(Counting):
    shared = False

    def count(self, scope: Scope) -> None: ...

    async def count_waiting(self, scope: Scope, patience: float) -> None: ...


async def main() -> None:
    settings = Settings()
    transport = open_transport(settings.models)
    models = open_models(settings.models, transport, NoRanker())  # type: ignore[arg-type]
    limits = NoLimits(lambda _: None)
    door = OpenAIDoor(
        models, transport, settings=settings.models, web=settings.web, doorkeeper=Everybody(), limits=limits
    )
    models.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(door, bind(settings), settings, started=lambda: None, stop=stop)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
