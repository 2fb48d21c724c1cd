"""A small model whose graphs, gradients included, are written by hand: it needs neither torch nor the onnx package.

x (n, 3) -> tanh -> embedding (n, 4) -> logits (n, 3); one auxiliary head says the opposite. Losses: `ce`, weighted
cross-entropy, and `both`, the same plus sum_i public_w_i |embedding(public_x_i)|^2, which has rows of both groups.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from edgeswarm.models.card import BODY, HEAD, PRIVATE, PUBLIC, InputSpec, LossSpec, ModelCard, Parameter, TensorSpec
from edgeswarm.models.file import Model, seal
from edgeswarm.models.onnx_parts import write_tensor
from edgeswarm.models.protobuf import write_bytes, write_integer

FEATURES, HIDDEN, CLASSES = 3, 4, 3
SIZE = HIDDEN * FEATURES + HIDDEN + CLASSES * HIDDEN + CLASSES
_CODES = {"float32": 1, "int64": 7}

CONSTANTS = {
    "lengths": np.array([HIDDEN * FEATURES, HIDDEN, CLASSES * HIDDEN, CLASSES]),
    "first": np.array([HIDDEN, FEATURES]), "second": np.array([CLASSES, HIDDEN]), "flat": np.array([-1]),
    "heads": np.array([-1, 1, CLASSES]), "rows": np.array([0]), "columns": np.array([1]),
    "depth": np.array(CLASSES), "off_on": np.float32([0, 1]), "tiny": np.float32(1e-12),
    "one": np.float32(1), "two": np.float32(2),
}  # fmt: skip

Node = tuple[str, str, str, dict[str, Any]]


def text(number: int, value: str) -> bytes:
    return write_bytes(number, value.encode())


def node(op: str, inputs: str, outputs: str, attributes: dict[str, Any]) -> bytes:
    """A NodeProto; names are separated by blanks, attributes are integers."""
    parts = [*(text(1, name) for name in inputs.split()), *(text(2, name) for name in outputs.split()), text(4, op)]
    parts += [write_bytes(5, text(1, key), write_integer(3, value), write_integer(20, 2))
              for key, value in attributes.items()]  # fmt: skip
    return b"".join(parts)


def value(name: str, dtype: str, shape: tuple[Any, ...]) -> bytes:
    """A ValueInfoProto."""
    lengths = [write_bytes(1, text(2, n) if isinstance(n, str) else write_integer(1, n)) for n in shape]
    tensor = write_integer(1, _CODES[dtype]) + write_bytes(2, *lengths)
    return text(1, name) + write_bytes(2, write_bytes(1, tensor))


def model_proto(nodes: list[Node], constants: dict[str, np.ndarray], inputs: list[Any], outputs: list[Any]) -> bytes:
    """An ONNX file of opset 18. inputs, outputs: (name, dtype, shape)."""
    used = {name for _, names, _, _ in nodes for name in names.split()}
    graph = [write_bytes(1, node(*each)) for each in nodes] + [text(2, "hand_made")]
    graph += [write_bytes(5, write_tensor(name, a)) for name, a in constants.items() if name in used]
    graph += [write_bytes(11, value(*each)) for each in inputs] + [write_bytes(12, value(*each)) for each in outputs]
    return write_integer(1, 9) + write_bytes(8, text(1, ""), write_integer(2, 18)) + write_bytes(7, *graph)


PARTS: list[Node] = [
    ("Split", "params lengths", "w1_flat b1 w2_flat b2", {"axis": 0}),
    ("Reshape", "w1_flat first", "w1", {}),
    ("Reshape", "w2_flat second", "w2", {}),
]
BODY_NODES: list[Node] = [("Gemm", "x w1 b1", "z", {"transB": 1}), ("Tanh", "z", "embedding", {})]
HEAD_NODES: list[Node] = [("Gemm", "embedding w2 b2", "logits", {"transB": 1})]
FORWARD: list[Node] = [
    *PARTS, *BODY_NODES, *HEAD_NODES, ("Neg", "logits", "opposite", {}), ("Reshape", "opposite heads", "aux", {}),
]  # fmt: skip
CE: list[Node] = [
    *PARTS, *BODY_NODES, *HEAD_NODES,
    ("LogSoftmax", "logits", "logs", {"axis": 1}),
    ("OneHot", "y depth off_on", "hot", {"axis": 1}),
    ("Mul", "logs hot", "picked", {}),
    ("ReduceSum", "picked columns", "own", {"keepdims": 0}),
    ("ReduceSum", "w rows", "mass", {"keepdims": 0}),
    ("Max", "mass tiny", "total", {}),
    ("Div", "w total", "share", {}),
    ("Mul", "own share", "shared", {}),
    ("ReduceSum", "shared rows", "negative", {"keepdims": 0}),
    ("Neg", "negative", "ce_loss", {}),
]  # fmt: skip
CE_GRADIENT: list[Node] = [
    ("Exp", "logs", "chances", {}),
    ("Sub", "chances hot", "excess", {}),
    ("Unsqueeze", "share columns", "share_column", {}),
    ("Mul", "excess share_column", "d_logits", {}),
    ("Gemm", "d_logits embedding", "d_w2", {"transA": 1}),
    ("ReduceSum", "d_logits rows", "d_b2", {"keepdims": 0}),
    ("MatMul", "d_logits w2", "d_embedding", {}),
    ("Mul", "embedding embedding", "squares", {}),
    ("Sub", "one squares", "bend", {}),
    ("Mul", "d_embedding bend", "d_z", {}),
    ("Gemm", "d_z x", "d_w1_private", {"transA": 1}),
    ("ReduceSum", "d_z rows", "d_b1_private", {"keepdims": 0}),
]
PUBLIC_LOSS: list[Node] = [
    ("Gemm", "public_x w1 b1", "public_z", {"transB": 1}),
    ("Tanh", "public_z", "public_embedding", {}),
    ("Mul", "public_embedding public_embedding", "public_squares", {}),
    ("ReduceSum", "public_squares columns", "lengths_squared", {"keepdims": 0}),
    ("Mul", "lengths_squared public_w", "weighed", {}),
    ("ReduceSum", "weighed rows", "public_loss", {"keepdims": 0}),
]
PUBLIC_GRADIENT: list[Node] = [
    ("Mul", "public_embedding two", "twice", {}),
    ("Unsqueeze", "public_w columns", "public_w_column", {}),
    ("Mul", "twice public_w_column", "d_public_embedding", {}),
    ("Sub", "one public_squares", "public_bend", {}),
    ("Mul", "d_public_embedding public_bend", "d_public_z", {}),
    ("Gemm", "d_public_z public_x", "d_w1_public", {"transA": 1}),
    ("ReduceSum", "d_public_z rows", "d_b1_public", {"keepdims": 0}),
    ("Add", "d_w1_private d_w1_public", "d_w1", {}),
    ("Add", "d_b1_private d_b1_public", "d_b1", {}),
]
COLLECT: list[Node] = [
    ("Reshape", "d_w1 flat", "d_w1_flat", {}),
    ("Reshape", "d_w2 flat", "d_w2_flat", {}),
    ("Concat", "d_w1_flat d_b1 d_w2_flat d_b2", "gradient", {"axis": 0}),
]


def named(nodes: list[Node], **names: str) -> list[Node]:
    """The nodes with some outputs called differently."""
    return [(op, ins, " ".join(names.get(out, out) for out in outs.split()), how) for op, ins, outs, how in nodes]


PARAMS = ("params", "float32", (SIZE,))
ROWS = [("x", "float32", ("n", FEATURES)), ("y", "int64", ("n",)), ("w", "float32", ("n",))]
PUBLIC_ROWS = [("public_x", "float32", ("m", FEATURES)), ("public_w", "float32", ("m",))]
LOSS, LOGITS, SLOPE = ("loss", "float32", ()), ("logits", "float32", ("n", CLASSES)), ("gradient", "float32", (SIZE,))
EMBEDDING, AUX = ("embedding", "float32", ("n", HIDDEN)), ("aux", "float32", ("n", 1, CLASSES))
PUBLIC_EMBEDDING = ("public_embedding", "float32", ("m", HIDDEN))


def graphs() -> dict[str, bytes]:
    """All graphs of the model file."""
    ce = named(CE, ce_loss="loss")
    both = [*CE, *PUBLIC_LOSS, ("Add", "ce_loss public_loss", "loss", {})]
    ce_slope = named(CE_GRADIENT, d_w1_private="d_w1", d_b1_private="d_b1")
    inputs, all_inputs = [PARAMS, *ROWS], [PARAMS, *ROWS, *PUBLIC_ROWS]
    outputs, all_outputs = [LOSS, LOGITS], [LOSS, LOGITS, PUBLIC_EMBEDDING]
    return {
        "forward": model_proto(FORWARD, CONSTANTS, [PARAMS, ROWS[0]], [LOGITS, EMBEDDING, AUX]),
        "ce.loss": model_proto(ce, CONSTANTS, inputs, outputs),
        "ce.gradient": model_proto([*ce, *ce_slope, *COLLECT], CONSTANTS, inputs, [SLOPE, *outputs]),
        "both.loss": model_proto(both, CONSTANTS, all_inputs, all_outputs),
        "both.gradient": model_proto(
            [*both, *CE_GRADIENT, *PUBLIC_GRADIENT, *COLLECT], CONSTANTS, all_inputs, [SLOPE, *all_outputs]
        ),
    }


CARD = ModelCard(
    name="hand-made",
    architecture="hand-made",
    parameters=(
        Parameter("w1", (HIDDEN, FEATURES), BODY), Parameter("b1", (HIDDEN,), BODY),
        Parameter("w2", (CLASSES, HIDDEN), HEAD), Parameter("b2", (CLASSES,), HEAD),
    ),
    input=InputSpec((FEATURES,), "vector", "none"),
    labels=("a", "b", "c"),
    embedding=HIDDEN,
    heads=1,
    losses={
        "ce": LossSpec(
            (TensorSpec("x", (FEATURES,), "float32", PRIVATE), TensorSpec("y", (), "int64", PRIVATE),
             TensorSpec("w", (), "float32", PRIVATE, weight=True)),
            ("logits",),
        ),
        "both": LossSpec(
            (TensorSpec("x", (FEATURES,), "float32", PRIVATE), TensorSpec("y", (), "int64", PRIVATE),
             TensorSpec("w", (), "float32", PRIVATE, weight=True),
             TensorSpec("public_x", (FEATURES,), "float32", PUBLIC),
             TensorSpec("public_w", (), "float32", PUBLIC, weight=True)),
            ("logits", "public_embedding"),
        ),
    },
    flops=2 * (FEATURES * HIDDEN + HIDDEN * CLASSES),
    activation_bytes=4 * (2 * HIDDEN + CLASSES),
    licence="Apache-2.0",
    producer={"tests": "1"},
)  # fmt: skip


@cache
def hand_made() -> Model:
    """The model, sealed."""
    initial = np.random.default_rng(5).normal(size=SIZE).astype(np.float32)
    return seal(CARD, graphs(), initial)


def some_rows(loss: str, n: int = 7, m: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of one of its losses."""
    rng = np.random.default_rng(seed)
    inputs = {
        "x": rng.normal(size=(n, FEATURES)).astype(np.float32),
        "y": rng.integers(0, CLASSES, n),
        "w": rng.uniform(0.2, 2.0, n).astype(np.float32),
    }
    if loss == "both":
        inputs["public_x"] = rng.normal(size=(m, FEATURES)).astype(np.float32)
        inputs["public_w"] = rng.uniform(0.1, 0.5, m).astype(np.float32)
    return inputs
