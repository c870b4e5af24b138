"""Text to unit vectors. `open_embedder` gives the one the settings ask for.

The model itself lives in a process of its own (`child`), so that the server never carries onnxruntime,
a crash in it ends nothing else, and the memory is given back when nobody asks.
This module stays light because that process imports it too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from terrace.knowledge.embedding.base import StatefulEmbedder
    from terrace.knowledge.embedding.provided import Embeds
    from terrace.settings import Embedding


def open_embedder(
    settings: "Embedding", data: Path, providers: "Mapping[str, Embeds] | None" = None
) -> "StatefulEmbedder":
    """The embedder the settings name; loads nothing yet.

    Never raises for a model that cannot be had: the embedder then says so in `state()`, and search goes on
    by words alone.
    """
    from terrace.knowledge.embedding.opening import choose

    return choose(settings, data, providers or {})
