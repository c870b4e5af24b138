"""The /v1 door alone under uvicorn: what the gateway costs without the house around it."""

import gc

from terrace.models.service import open_models
from terrace.models.transport import open_transport
from terrace.settings import Settings
from terrace.web.openai import OpenAIDoor


class NoRanker:
    """The quote model is not asked here."""

    async def rank(self, question: str, passages: object) -> list[object]:
        return []


async def main() -> None:
    import uvicorn

    settings = Settings()
    transport = open_transport(settings.models)
    models = open_models(settings.models, transport, NoRanker())  # type: ignore[arg-type]
    door = OpenAIDoor(models, transport, settings=settings.models, web=settings.web)
    models.start()
    gc.freeze()  # as `terrace serve` should: the house itself is never garbage
    gc.set_threshold(20_000, 20, 50)
    config = uvicorn.Config(
        door,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        timeout_keep_alive=75,
        backlog=4096,
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
