"""Fetching a model as a job: it goes on when the page that asked for it is closed."""

from terrace.errors import Invalid
from terrace.jobs.base import Context, Done, JobKind
from terrace.models.service import Models

PULL = "models.pull"
PULL_SECONDS = 6 * 3600.0  # 40 GB over a slow line
MAX_NAME_CHARS = 300


def pull_kind(models: Models) -> JobKind:
    """Payload `{model}`; progress in bytes of the file under way, with Ollama's own words as the note."""

    async def pull(context: Context) -> Done:
        model = context.payload.get("model")
        if not isinstance(model, str) or not model.strip() or len(model) > MAX_NAME_CHARS:
            raise Invalid('Say which model to fetch, such as {"model": "llama3.2"}.')
        async for step in models.pull(model.strip()):
            total = float(step.get("total") or 0)
            context.progress(float(step.get("completed") or 0), total, str(step.get("status") or ""))
        return Done({"model": model.strip()})

    return JobKind(PULL, pull, timeout=PULL_SECONDS, public=True)
