"""Which models a caller may use: a tenant's and a key's patterns, of each of which a model must match one."""

from fnmatch import fnmatchcase
from functools import lru_cache

from terrace.errors import Denied
from terrace.models.names import shortened
from terrace.types import Scope

Walls = tuple[frozenset[str], ...]


def permits(scope: Scope, model: str) -> bool:
    """`model` is a public id, such as `openai/gpt-5`."""
    return not scope.models or _permits(scope.models, model)


@lru_cache(maxsize=4096)
def _permits(walls: Walls, model: str) -> bool:
    return all(any(fnmatchcase(model, pattern) for pattern in wall) for wall in walls)


def denied(scope: Scope, model: str) -> Denied:
    allowed = allowed_text(scope.models)
    return Denied(
        f"You may not use the model `{shortened(model)}` here. Allowed: {allowed}.",
        code="model_not_allowed",
        allowed=[sorted(wall) for wall in scope.models],
    )


def nothing_left(scope: Scope) -> Denied:
    return Denied(
        f"None of the models you may use is there now. Allowed: {allowed_text(scope.models)}.",
        code="model_not_allowed",
        allowed=[sorted(wall) for wall in scope.models],
    )


def allowed_text(walls: Walls) -> str:
    """Such as `openai/*` or `quote`; and of these `*/gpt-5`."""
    return "; and of these ".join(" or ".join(f"`{pattern}`" for pattern in sorted(wall)) for wall in walls)
