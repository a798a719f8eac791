"""all-MiniLM-L6-v2 as a graph whose products ONNX Runtime computes in whole numbers.

The graph in the weights' package makes floats of its int8 weights when it is loaded: four times
the memory, more than twice the time. Source: BERT's layers; ONNX Runtime's contributed operators.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]

_LAYERS, _HEADS = 6, 12
_EPSILON = 1e-12
_MOST = 64
_LOUD, _DAMPED = 10, np.float32(0.25)
_CONTRIBUTED = {"DynamicQuantizeMatMul", "Gelu", "MultiHeadAttention"}


def built(weights: Path) -> bytes:
    """The model: `ids` (1, tokens) of a text's tokens, and `mean` (1, 384) of their vectors."""
    graph = _Graph(onnx.load(weights).graph)
    states = _embedded(graph)
    for number in range(_LAYERS):
        states = _layer(graph, states, f"encoder.layer.{number}")
    graph.add("ReduceMean", [states, graph.constant(np.array([1]))], ["mean"], keepdims=0)
    return graph.model()


class _Graph:
    """A graph that grows by one node at a time; `given` has the weights under their names."""

    def __init__(self, given: onnx.GraphProto) -> None:
        self._weights = {one.name: numpy_helper.to_array(one) for one in given.initializer}
        # The weights of products have numbers for names; the biases added next tell whose they are.
        factors = {node.output[0]: node.input[1] for node in given.node if node.op_type == "MatMul"}
        self._factors = {
            bias: factors[product]
            for node in given.node
            if node.op_type == "Add"
            for product, bias in (node.input, reversed(node.input))
            if product in factors
        }
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def weights(self, name: str) -> Array:
        return self._weights[f"inner.{name}"]

    def quantized(self, name: str) -> tuple[Array, Array]:
        """int8 weights, and the scale of each row or column."""
        return self._weights[f"{name}_q"], self._weights[f"{name}_scale"]

    def factors(self, name: str) -> tuple[Array, Array, Array]:
        """What the layer `name` multiplies with (inputs, outputs), its scales and its biases."""
        weights, scales = self.quantized(self._factors[f"inner.{name}.bias"])
        return weights, scales[0], self.weights(f"{name}.bias")

    def constant(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(
        self,
        operator: str,
        inputs: list[str],
        outputs: list[str] | None = None,
        **more: Any,  # noqa: ANN401 - as onnx takes them
    ) -> str:
        """A node; gives the name of its first output."""
        outputs = outputs or [f"{operator}_{len(self._nodes)}"]
        domain = "com.microsoft" if operator in _CONTRIBUTED else ""
        self._nodes.append(helper.make_node(operator, inputs, outputs, domain=domain, **more))
        return outputs[0]

    def model(self) -> bytes:
        ids = helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "tokens"])
        mean = helper.make_tensor_value_info("mean", TensorProto.FLOAT, [1, None])
        graph = helper.make_graph(self._nodes, "minilm", [ids], [mean], self._constants)
        versions = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=8)
        return bytes(model.SerializeToString())


def _embedded(graph: _Graph) -> str:
    """The vectors of the tokens, of their places, and of the first of two texts."""
    weights, scales = graph.quantized("inner.embeddings.word_embeddings.weight")
    rows = graph.add("Gather", [graph.constant(weights), "ids"])
    words = graph.add(
        "Mul",
        [
            graph.add("Cast", [rows], to=TensorProto.FLOAT),
            graph.add("Gather", [graph.constant(scales), "ids"]),
        ],
    )
    weights, scales = graph.quantized("inner.embeddings.position_embeddings.weight")
    table = weights * scales + graph.weights("embeddings.token_type_embeddings.weight")[0]
    start, axis = graph.constant(np.array([0])), graph.constant(np.array([0]))
    count = graph.add("Shape", ["ids"], start=1)
    places = graph.add("Slice", [graph.constant(table), start, count, axis])
    return _normalized(graph, words, places, "embeddings")


def _layer(graph: _Graph, states: str, name: str) -> str:
    attended = graph.add("MultiHeadAttention", _asked(graph, states, name), num_heads=_HEADS)
    attended = _product(graph, attended, f"{name}.attention.output.dense")
    states = _normalized(graph, attended, states, f"{name}.attention.output")
    inner = graph.add("Gelu", [_product(graph, states, f"{name}.intermediate.dense")])
    inner = _damped_product(graph, inner, f"{name}.output.dense")
    return _normalized(graph, inner, states, f"{name}.output")


def _asked(graph: _Graph, states: str, name: str) -> list[str]:
    """Queries, keys and values, by one product."""
    parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    together = _product(graph, states, *parts)
    graph.add("Split", [together], parts, axis=2, num_outputs=3)
    return parts


def _normalized(graph: _Graph, states: str, others: str, name: str) -> str:
    inputs = [
        graph.add("Add", [states, others]),
        graph.constant(graph.weights(f"{name}.LayerNorm.weight")),
        graph.constant(graph.weights(f"{name}.LayerNorm.bias")),
    ]
    return graph.add("LayerNormalization", inputs, axis=-1, epsilon=_EPSILON)


def _product(graph: _Graph, states: str, *names: str) -> str:
    """By weights of all `names`, side by side."""
    factors = [graph.factors(name) for name in names]
    weights, scales, biases = (np.concatenate(part, axis=-1) for part in zip(*factors, strict=True))
    halves = np.rint(weights * np.float32(0.5)).astype(np.int8)
    return _multiplied(graph, states, halves, scales * 2, biases)


def _damped_product(graph: _Graph, states: str, name: str) -> str:
    """One or two of the states are so large that by the scale of all the others would be lost.

    They are made smaller, and their weights larger. Which they are the weights tell. Source:
    SmoothQuant (arXiv 2211.10438).
    """
    weights, scales, biases = graph.factors(name)
    largest = np.abs(weights * scales).max(axis=1)
    damping = np.where(largest > _LOUD * np.median(largest), _DAMPED, np.float32(1))
    exact = weights * scales / damping[:, np.newaxis]
    scales = np.abs(exact).max(axis=0) / np.float32(_MOST)
    states = graph.add("Mul", [states, graph.constant(damping)])
    return _multiplied(graph, states, np.rint(exact / scales).astype(np.int8), scales, biases)


def _multiplied(graph: _Graph, states: str, weights: Array, scales: Array, biases: Array) -> str:
    """By one scale for all states, and weights of 7 bits.

    Processors with AVX2 and without VNNI add two products of 8 bits in 16, and cut what is larger.
    """
    inputs = [graph.constant(weights), graph.constant(scales), "", graph.constant(biases)]
    return graph.add("DynamicQuantizeMatMul", [states, *inputs])
