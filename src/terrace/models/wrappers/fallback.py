"""Another model when the first cannot begin."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from terrace.errors import Limited, Missing, TerraceError, Unavailable
from terrace.models.base import ChatRequest, Delta, Provider


@dataclass(frozen=True, slots=True)
class Choice:
    """A model that can be called: `id` is what users call it, `model` what its provider does."""

    id: str
    provider: Provider
    model: str
    kind: str = ""  # of the provider, as in the settings


class Fallback:
    """Tries choices in turn until one sends its first delta; from then on that one's failures are final.

    Moves on when a provider is away, busy or has no such model; a request refused as wrong is refused for good, and so
    is one for which the caller's own limits leave no room.
    `answering` hears the id of each choice tried, the last being the one that answers. If all fail, the first's
    error is raised: it is the one the user asked for.
    """

    def __init__(self, choices: Sequence[Choice], answering: Callable[[str], None]) -> None:
        self._choices = choices
        self._answering = answering

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        first: TerraceError | None = None
        for choice in self._choices:
            self._answering(choice.id)
            begun = False
            try:
                request = replace(request, model=choice.model, requests=request.requests if first is None else 0)
                async with aclosing(choice.provider.stream(request)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except (Unavailable, Limited, Missing) as error:
                if begun or error.code == "limit_reached":
                    raise
                first = first or error
        if first is not None:
            self._answering(self._choices[0].id)
            raise first
