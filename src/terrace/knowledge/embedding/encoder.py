"""Runs a sentence encoder: tokens, batches of like length, vectors. Lives in the embedding process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from terrace.knowledge.embedding.base import EmbeddingAbsent
from terrace.knowledge.embedding.exports import Export, from_folder, from_hub
from terrace.knowledge.embedding.weights import builtin_model
from terrace.knowledge.embedding.wire import Model

BUILTIN_TOKENS = 256  # what the model was trained with; the tokenizer's own 128 is a leftover
CHARACTERS_PER_TOKEN = 100  # far more than any: WordPiece knows no longer word


def load(model: Model) -> "Encoder":
    """Raises EmbeddingAbsent when the model cannot be had or is not a sentence encoder."""
    data = Path(model.data)
    if model.source == "builtin":
        weights = Path(model.weights)
        export = Export(builtin_model(weights, data, model.precision), weights / "tokenizer.json", BUILTIN_TOKENS)
    else:
        folder = Path(model.model) if model.source == "folder" else from_hub(model.model, model.hub, data)
        export = from_folder(folder, data, model.precision)
    return Encoder(export, model.batch_tokens)


class Encoder:
    """One session shared by threads: each call computes on the thread that makes it."""

    def __init__(self, export: Export, batch_tokens: int) -> None:
        self._export = export
        self._batch_tokens = batch_tokens
        try:
            self._tokenizer = Tokenizer.from_file(str(export.tokenizer))
            self._session = onnxruntime.InferenceSession(
                str(export.model), _options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # both libraries raise bare exceptions of their own
            raise EmbeddingAbsent(f"The embedding model cannot be loaded: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        padding = [self._tokenizer.token_to_id(name) for name in ("[PAD]", "<pad>")]
        self._pad = next((token for token in padding if token is not None), 0)
        self._inputs = {each.name for each in self._session.get_inputs()}
        names = [each.name for each in self._session.get_outputs()]
        self._output = "sentence_embedding" if "sentence_embedding" in names else names[0]
        self.dimensions = int(self.run([self.tokens(["width"])[0]]).shape[1])

    def tokens(self, texts: Sequence[str], *, query: bool = False) -> list[list[int]]:
        """Token ids of each text, cut to what the model takes, the closing mark kept."""
        prompt = self._export.query_prompt if query else self._export.passage_prompt
        most = self._export.max_tokens
        most_characters = most * CHARACTERS_PER_TOKEN  # what lies beyond would only be cut later, at a cost
        encoded = self._tokenizer.encode_batch_fast([(prompt + text)[:most_characters] for text in texts])
        return [ids if len(ids) <= most else ids[: most - 1] + ids[-1:] for ids in (each.ids for each in encoded)]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each whole text, without the marks a model adds."""
        return [len(each.ids) for each in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def batches(self, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
        """Places of `tokens` grouped by like length, each group within the budget of padded tokens."""
        groups: list[list[int]] = []
        for place in sorted(range(len(tokens)), key=lambda place: len(tokens[place])):
            if not groups or (len(groups[-1]) + 1) * len(tokens[place]) > self._batch_tokens:
                groups.append([])
            groups[-1].append(place)
        return groups

    def run(self, batch: Sequence[Sequence[int]]) -> Any:
        """float32 (len(batch), dimensions), unit rows."""
        longest = max(1, max(map(len, batch)))
        ids = np.full((len(batch), longest), self._pad, np.int64)
        mask = np.zeros((len(batch), longest), np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        output = self._session.run([self._output], {name: given[name] for name in self._inputs})[0]
        return self._unit(output if output.ndim == 2 else self._pooled(output, mask))

    def _pooled(self, states: Any, mask: Any) -> Any:
        """(batch, tokens, width) to (batch, width)."""
        if self._export.pooling == "cls":
            return states[:, 0]
        weights = mask[:, :, None].astype(np.float32)
        return (states * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)

    @staticmethod
    def _unit(vectors: Any) -> Any:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)


def _options() -> Any:
    """One thread a call (ours are enough), no spinning, and no arena: it never gives back its peak."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
