"""Who looks at a file, and which way it goes: seen by a vision model, read as text, or merely quoted."""

from dataclasses import dataclass

from terrace.analysis.base import Choice, Models, Way
from terrace.types import Scope

QUOTE = "quote"
CONNECT = (
    "Connect one in the settings (models.providers, or OPENAI_API_KEY or ANTHROPIC_API_KEY), or fetch one for Ollama, "
    "such as `ollama pull gemma3`."
)


@dataclass(frozen=True, slots=True)
class Route:
    """`why` is a sentence for the person who asked."""

    way: Way
    model: str
    kind: str  # of the model's provider
    why: str


async def choose(models: Models, scope: Scope, wanted: str | None, *, pictures: bool) -> Route:
    """`wanted` is a model's name, or None for the best there is. Raises Missing, Invalid, Denied."""
    if wanted is None and pictures and (seeing := await models.seeing(scope)) is not None:
        choice = await models.resolve(seeing, scope)
        return Route("vision", choice.id, choice.kind, f"`{choice.id}` reads images, so it looked at the pages.")
    choice = await models.resolve(wanted, scope)
    if choice.kind == QUOTE:
        return Route("quote", choice.id, choice.kind, _quoted(wanted))
    if not pictures:
        return Route("text", choice.id, choice.kind, "The file holds text and no pictures, so its text was read.")
    if wanted is None:
        why = f"No model that reads images is connected, so `{choice.id}` was given the text of the pages. {CONNECT}"
        return Route("text", choice.id, choice.kind, why)
    if await models.sees(wanted, scope) is False:
        return Route("text", choice.id, choice.kind, f"`{choice.id}` reads no images: it was given the pages' text.")
    return Route("vision", choice.id, choice.kind, f"`{choice.id}` was asked for, and looked at the pages.")


async def again(models: Models, scope: Scope, way: Way, model: str, why: str) -> Route:
    """The way an earlier attempt went."""
    choice: Choice = await models.resolve(model, scope)
    return Route(way, choice.id, choice.kind, why)


def _quoted(wanted: str | None) -> str:
    if wanted is not None:
        return "The quote model was asked for: it gives the text as it stands, and quotes from it."
    return f"No model is connected, so the text is given as it was read, and quoted from. {CONNECT}"
