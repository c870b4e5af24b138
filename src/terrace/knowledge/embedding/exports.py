"""Any other sentence-transformers ONNX export: a folder, or a model fetched from a hub.

model.onnx or onnx/model.onnx    the encoder (with model.onnx_data beside it when it is large)
tokenizer.json                   required
config.json, 1_Pooling/config.json, sentence_bert_config.json, config_sentence_transformers.json
                                 width, pooling, longest input, prompts; each may be missing
"""

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex  # containers that share a folder may share numbers of processes, too
from typing import Any, Literal

from terrace.knowledge.embedding.base import EmbeddingAbsent
from terrace.knowledge.embedding.weights import prepared, sha256_of

MODEL_FILES = ("onnx/model.onnx", "model.onnx")
REQUIRED = ("tokenizer.json",)
OPTIONAL = (
    "config.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
)
MAX_DOWNLOAD = 4 * 1024**3
TIMEOUT_SECONDS = 30.0
DEFAULT_TOKENS = 512
FINGERPRINT_BYTES = 1024 * 1024

Pooling = Literal["mean", "cls"]
POOLINGS: dict[str, Pooling] = {"mean_tokens": "mean", "cls_token": "cls"}  # as sentence-transformers calls them


@dataclass(frozen=True, slots=True)
class Export:
    """What is needed to run a model: its files and how its output becomes one vector."""

    model: Path
    tokenizer: Path
    max_tokens: int
    pooling: Pooling = "mean"
    query_prompt: str = ""
    passage_prompt: str = ""


def model_file(folder: Path) -> Path | None:
    return next((folder / name for name in MODEL_FILES if (folder / name).is_file()), None)


def fingerprint(path: Path) -> str:
    """Eight hex digits that tell two models of one name apart, from the size and both ends of the file."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(FINGERPRINT_BYTES))
        file.seek(max(0, size - FINGERPRINT_BYTES))
        digest.update(file.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:8]


def from_folder(folder: Path, data: Path, precision: str) -> Export:
    """Reads a folder with an export; int8 is made from it once and kept in `data`. Raises EmbeddingAbsent."""
    source = model_file(folder)
    if source is None:
        raise EmbeddingAbsent(f"{folder} holds no ONNX model: expected {' or '.join(MODEL_FILES)} in it.")
    if not (folder / "tokenizer.json").is_file():
        raise EmbeddingAbsent(f"{folder} holds no tokenizer.json.")
    stem = f"{folder.name}-{sha256_of(source)[:12]}-{precision}"
    model = source if precision == "fp32" else prepared(data / "embedding", stem, lambda: quantised(source))
    prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
    tokens = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    longest = _json(folder / "config.json").get("max_position_embeddings", DEFAULT_TOKENS)
    return Export(
        model,
        folder / "tokenizer.json",
        max_tokens=int(tokens or longest),
        pooling=_pooling(folder),
        query_prompt=str(prompts.get("query", "")),
        passage_prompt=str(prompts.get("passage", prompts.get("document", ""))),
    )


def _pooling(folder: Path) -> Pooling:
    """Raises EmbeddingAbsent for one that would need another vector than we make."""
    told = _json(folder / "1_Pooling/config.json")
    modes = {name.removeprefix("pooling_mode_"): on for name, on in told.items() if name.startswith("pooling_mode_")}
    wanted = [name for name, on in modes.items() if on is True]
    if len(wanted) > 1 or not set(wanted) <= POOLINGS.keys():
        raise EmbeddingAbsent(f"{folder} pools by {' and '.join(wanted)}; Terrace takes the mean, or the first token.")
    return POOLINGS[wanted[0]] if wanted else "mean"


def quantised(source: Path) -> bytes:
    """int8 weights per output channel; activations are quantised per call."""
    import tempfile

    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.onnx"
        quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)
        return target.read_bytes()


def from_hub(model: str, hub: str, data: Path) -> Path:
    """The folder of a hub's model, fetched on first use; a half-fetched one is never taken for whole.

    Raises EmbeddingAbsent with the reason when it cannot be had.
    """
    folder = data / "models" / model.replace("/", "--")
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{folder.name}.{token_hex(8)}.part")
    try:
        _fetch_all(f"{hub.rstrip('/')}/{model}/resolve/main", partial)
        partial.replace(folder)
    except urllib.error.HTTPError as error:
        raise EmbeddingAbsent(f"The hub answered {error.code} for the embedding model {model}.") from error
    except OSError as error:  # URLError is one
        if folder.is_dir():  # another server was quicker
            return folder
        reason = getattr(error, "reason", None) or error.strerror or error
        raise EmbeddingAbsent(f"The embedding model {model} could not be fetched: {reason}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _fetch_all(base: str, folder: Path) -> None:
    for name in REQUIRED:
        _fetch(f"{base}/{name}", folder / name)
    for name in OPTIONAL:
        _fetch_if_there(f"{base}/{name}", folder / name)
    for name in MODEL_FILES:
        if _fetch_if_there(f"{base}/{name}", folder / name):
            _fetch_if_there(f"{base}/{name}_data", folder / f"{name}_data")
            return
    raise EmbeddingAbsent(f"The hub's model has no ONNX export: expected {' or '.join(MODEL_FILES)}.")


def _fetch_if_there(url: str, path: Path) -> bool:
    try:
        _fetch(url, path)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # hubs answer 401 for what does not exist
            return False
        raise
    return True


def _fetch(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(url, headers={"User-Agent": "terrace"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response, path.open("wb") as file:
        expected = response.headers.get("Content-Length")
        got = 0
        while piece := response.read(1024 * 1024):
            got += len(piece)
            if got > MAX_DOWNLOAD:
                raise EmbeddingAbsent(f"{path.name} is larger than {MAX_DOWNLOAD} bytes.")
            file.write(piece)
    if expected is not None and got != int(expected):
        raise EmbeddingAbsent(f"{path.name} broke off after {got} of {expected} bytes.")


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as error:
        raise EmbeddingAbsent(f"{path.name} of the embedding model cannot be read: {error}.") from error
    return value if isinstance(value, dict) else {}
