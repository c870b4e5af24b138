"""The model server put together from the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from terrace.errors import Invalid, TerraceError
from terrace.inference.door import Door
from terrace.inference.measures import Measures
from terrace.inference.vectors import Vectors
from terrace.inference.writing import Writer
from terrace.knowledge.embedding import open_embedder
from terrace.models.transport.lean import LeanTransport
from terrace.settings import Settings
from terrace.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MIN_KEY = 16
CONNECT_SECONDS = 5.0
SPARE = 16  # connections to llama.cpp beyond one a slot
AGAIN_SECONDS = 10.0


class Inference:
    def __init__(self, door: Door, metrics: Metrics) -> None:
        self.door = door
        self.metrics = metrics


@asynccontextmanager
async def open_inference(settings: Settings, stop: asyncio.Event, *, loopback: bool) -> AsyncIterator[Inference]:
    """Loads the model in the background: `/ready` says when it can be asked.

    Raises Invalid for settings that serve nothing, or serve it to everybody.
    """
    options = settings.inference
    key = options.key.get_secret_value()
    check_key(key, loopback=loopback)
    metrics = Metrics()
    measures = Measures(metrics)
    async with AsyncExitStack() as stack:
        writer = None
        if options.model is not None:
            transport = LeanTransport(connect_timeout=CONNECT_SECONDS, connections_per_host=options.slots + SPARE)
            stack.push_async_callback(transport.close)
            writer = Writer(options, transport, measures)
            await asyncio.to_thread(writer.check)
            stack.push_async_callback(writer.close)
            loading = asyncio.create_task(_keep_loaded(writer), name="load the model")
            stack.push_async_callback(_end, loading)
        vectors = None
        if options.embeddings:
            embedder = open_embedder(settings.knowledge.embedding, settings.data)
            stack.push_async_callback(embedder.close)
            vectors = Vectors(embedder, measures)
        if writer is None and vectors is None:
            raise Invalid(
                "The role `inference` has nothing to serve: name a GGUF file in TERRACE_INFERENCE__MODEL, or leave "
                "TERRACE_INFERENCE__EMBEDDINGS on.",
                code="bad_settings",
            )
        door = Door(writer, vectors, measures, key=key, max_body=options.max_body_bytes, stop=stop)
        yield Inference(door, metrics)


def check_key(key: str, *, loopback: bool) -> None:
    """Raises Invalid for a model server that anybody on the network could use."""
    if key and len(key) < MIN_KEY:
        raise Invalid(
            f"TERRACE_INFERENCE__KEY is too short: give {MIN_KEY} random characters or more.", code="weak_key"
        )
    if not key and not loopback:
        raise Invalid(
            "Beyond loopback the role `inference` needs a key that its callers know: set TERRACE_INFERENCE__KEY here, "
            "and as the provider's API_KEY at Terrace.",
            code="key_missing",
        )


async def _keep_loaded(writer: Writer) -> None:
    """Until it is loaded: memory that is short now may be free later."""
    while True:
        try:
            await writer.load()
        except TerraceError as error:
            log.error("the model is not loaded, and is tried again in %g s: %s", AGAIN_SECONDS, error)
            await asyncio.sleep(AGAIN_SECONDS)
        else:
            return


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
