"""What whoever runs it asks: alive, able, and how it does."""

from starlette.responses import JSONResponse, Response

from terrace.telemetry.metrics import CONTENT_TYPE
from terrace.types import Scope
from terrace.web.access import resource
from terrace.web.api.media import produces
from terrace.web.services import House, Services

router = resource(tags=["operations"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Alive: the event loop turns."""
    return {"status": "healthy"}


@router.get("/ready", responses={503: {"description": "Something it needs is away"}})
async def ready(house: House) -> Response:
    """Able to serve, with a line for each thing it depends on."""
    checks = await house.ready()
    fine = all(state.startswith("ok") for state in checks.values())
    said = {"status": "ready" if fine else "not ready", "role": house.settings.role, "checks": checks}
    return JSONResponse(said, 200 if fine else 503)


@router.get("/metrics", response_class=Response, responses=produces("text/plain"))
async def metrics(house: House) -> Response:
    """Prometheus text."""
    await _gauge(house)
    return Response(house.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


async def _gauge(house: Services) -> None:
    """What is counted only when somebody looks."""
    status = await house.status(Scope())
    metrics = house.metrics
    metrics.set_all(metrics.jobs, status["jobs"])
    metrics.set_all(metrics.documents, status["document_states"])
    metrics.chunks.set(status["chunks"])
    metrics.vectors.set(status["vectors"])
    metrics.set_all(metrics.corpus_findings, await house.health.totals())
