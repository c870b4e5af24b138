"""Builds the ONNX graph of a small BERT sentence encoder from its weights.

Devlin et al., 2019 (post-norm encoder) with the mean pooling and normalisation of Reimers & Gurevych, 2019
inside the graph: `(input_ids, attention_mask)`, both int64 (batch, tokens), to `sentence_embedding`,
float32 (batch, width), unit rows. Query, key and value are one matrix product, and weights are laid out as
the runtime wants them, so that loading optimises nothing away.

int8: weights are quantised per output channel, activations by the runtime per call; the word embeddings per row.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
MICROSOFT = "com.microsoft"  # operators of onnxruntime itself, in every build of it
MASKED = np.float32(-1e9)

Weights = Mapping[str, "np.ndarray[Any, Any]"]


class _Graph:
    """Nodes and constants as they come; every method returns the name of its result."""

    def __init__(self, *, int8: bool) -> None:
        self.int8 = int8
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def apply(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.apply_many(kind, 1, *inputs, domain=domain, **attributes)[0]

    def apply_many(self, kind: str, outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        names = [f"n{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def dense(self, x: str, weight: Any, bias: Any) -> str:
        """x @ weight.T + bias; `weight` is (out, in)."""
        matrix = weight.T
        if not self.int8:
            return self.apply("Add", self.apply("MatMul", x, self.constant(matrix)), self.constant(bias))
        quantised, scale = _quantise(matrix, axis=0)
        return self.apply(
            "DynamicQuantizeMatMul", x, self.constant(quantised), self.constant(scale[0]),
            self.constant(np.zeros(scale.shape[1], np.int8)), self.constant(bias), domain=MICROSOFT,
        )  # fmt: skip

    def rows(self, table: Any, indices: str) -> str:
        """table[indices]"""
        if not self.int8:
            return self.apply("Gather", self.constant(table), indices)
        quantised, scale = _quantise(table, axis=1)
        values = self.apply("Cast", self.apply("Gather", self.constant(quantised), indices), to=TensorProto.FLOAT)
        return self.apply("Mul", values, self.apply("Gather", self.constant(scale), indices))

    def norm(self, x: str, weights: Weights, name: str, epsilon: float) -> str:
        scale, bias = self.constant(weights[f"{name}.weight"]), self.constant(weights[f"{name}.bias"])
        return self.apply("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)


def build(weights: Weights, config: Mapping[str, Any], *, int8: bool) -> bytes:
    """The model as a serialised ONNX file. `config` is the checkpoint's config.json.

    Raises KeyError when the weights are not those of a BERT encoder.
    """
    graph = _Graph(int8=int8)
    width, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config["layer_norm_eps"]
    attended = graph.apply("Cast", "attention_mask", to=TensorProto.FLOAT)
    x = _embeddings(graph, weights, epsilon)
    bias = _mask_bias(graph, attended)
    for layer in range(config["num_hidden_layers"]):
        x = _layer(graph, weights, f"encoder.layer.{layer}", x, bias, (width, heads, epsilon))
    _pool(graph, x, attended)
    return _serialise(graph, width)


def _embeddings(graph: _Graph, weights: Weights, epsilon: float) -> str:
    """Word + position + type. Positions are a Slice: a Gather of a Range is miscompiled by onnxruntime 1.31."""
    shape = graph.apply("Shape", "input_ids", start=1, end=2)
    zero = graph.constant(np.array([0]))
    table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    positions = graph.apply("Slice", graph.constant(table), zero, shape, zero)
    words = graph.rows(weights["embeddings.word_embeddings.weight"], "input_ids")
    return graph.norm(graph.apply("Add", words, positions), weights, "embeddings.LayerNorm", epsilon)


def _mask_bias(graph: _Graph, attended: str) -> str:
    """(batch, 1, 1, tokens): 0 where a token counts, very negative where it is padding."""
    padding = graph.apply("Sub", graph.constant(np.float32(1)), attended)
    bias = graph.apply("Mul", padding, graph.constant(MASKED))
    return graph.apply("Unsqueeze", bias, graph.constant(np.array([1, 2])))


def _layer(graph: _Graph, weights: Weights, name: str, x: str, bias: str, shape: tuple[int, int, float]) -> str:
    epsilon = shape[2]
    mixed = _attention(graph, weights, f"{name}.attention", x, bias, shape)
    x = graph.norm(graph.apply("Add", x, mixed), weights, f"{name}.attention.output.LayerNorm", epsilon)
    wide = graph.dense(x, *_linear(weights, f"{name}.intermediate.dense"))
    narrow = graph.dense(graph.apply("Gelu", wide, domain=MICROSOFT), *_linear(weights, f"{name}.output.dense"))
    return graph.norm(graph.apply("Add", x, narrow), weights, f"{name}.output.LayerNorm", epsilon)


def _attention(graph: _Graph, weights: Weights, name: str, x: str, bias: str, shape: tuple[int, int, float]) -> str:
    width, heads, _ = shape
    size = width // heads
    parts = [_linear(weights, f"{name}.self.{part}") for part in ("query", "key", "value")]
    parts[0] = (parts[0][0] * size**-0.5, parts[0][1] * size**-0.5)  # the usual scaling, folded into the query
    joined = graph.dense(x, np.concatenate([w for w, _ in parts]), np.concatenate([b for _, b in parts]))
    split = graph.apply("Reshape", joined, graph.constant(np.array([0, 0, 3, heads, size])))
    by_head = graph.apply("Transpose", split, perm=[2, 0, 3, 1, 4])
    axis = graph.constant(np.array([0]))
    query, key, value = (graph.apply("Squeeze", part, axis) for part in graph.apply_many("Split", 3, by_head, axis=0))
    scores = graph.apply("MatMul", query, graph.apply("Transpose", key, perm=[0, 1, 3, 2]))
    shares = graph.apply("Softmax", graph.apply("Add", scores, bias), axis=-1)
    mixed = graph.apply("Transpose", graph.apply("MatMul", shares, value), perm=[0, 2, 1, 3])
    flat = graph.apply("Reshape", mixed, graph.constant(np.array([0, 0, width])))
    return graph.dense(flat, *_linear(weights, f"{name}.output.dense"))


def _pool(graph: _Graph, x: str, attended: str) -> None:
    """The sum over real tokens, normalised: the mean only differs by a factor that normalising removes."""
    axis = graph.constant(np.array([1]))
    total = graph.apply("Squeeze", graph.apply("MatMul", graph.apply("Unsqueeze", attended, axis), x), axis)
    unit = graph.apply("LpNormalization", total, axis=-1, p=2)
    graph.nodes.append(helper.make_node("Identity", [unit], ["sentence_embedding"]))


def _serialise(graph: _Graph, width: int) -> bytes:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", width])
    body = helper.make_graph(graph.nodes, "sentence_encoder", inputs, [output], graph.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def _linear(weights: Weights, name: str) -> tuple[Any, Any]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _quantise(matrix: Any, *, axis: int) -> tuple[Any, Any]:
    """Symmetric int8 along `axis`: (values, scale) with matrix ~ values * scale, scale keeping its dimensions."""
    largest = np.maximum(matrix.max(axis, keepdims=True), -matrix.min(axis, keepdims=True))
    scale = np.where(largest == 0, 1, largest / 127).astype(np.float32)
    steps = matrix / scale
    np.clip(np.rint(steps, out=steps), -127, 127, out=steps)  # in place: the table of words is half of all weights
    return steps.astype(np.int8), scale
