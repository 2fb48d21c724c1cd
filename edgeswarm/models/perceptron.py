"""A perceptron with one hidden layer for any table of numbers, made without torch: its gradients are written out here.

x -> (x - mean) * rate -> ReLU(. A + a) -> W, b -> softmax. The hidden layer is the embedding and, with its weights, the
body; W and b are the head. Auxiliary heads, for methods that distil, are one layer V, v on the same embedding. Weights
are drawn as in arXiv 1502.01852, biases begin at 0. The losses are those of `export.losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.errors import ModelError
from edgeswarm.messages import Array
from edgeswarm.models.card import BODY, HEAD, PRIVATE, PUBLIC, InputSpec, LossSpec, ModelCard, Parameter, TensorSpec
from edgeswarm.models.content import seal
from edgeswarm.models.file import Model
from edgeswarm.models.onnx_write import FLOAT32, INT64, Value, node, onnx


def perceptron(
    labels: Sequence[str], mean: Array, std: Array, hidden: int = 32, *, heads: int = 0, seed: int = 0
) -> Model:
    """The model, with its start vector. mean, std: (d,) of the samples (n, d); a number that never changes has std 0
    and counts for nothing.  heads: auxiliary ones; with one or more there is the loss `distill` too.

    Raises ModelError: fewer than two labels, or shapes that do not fit.
    """
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ModelError(f"a classifier needs two or more labels, all different, not {len(labels)}")
    if mean.ndim != 1 or not mean.size or mean.shape != std.shape or hidden < 1 or heads < 0:
        raise ModelError("a perceptron needs mean and std of one length, and at least one hidden unit")
    d, e, c = mean.size, hidden, len(labels)
    shapes: dict[str, tuple[int, ...]] = {"A": (d, e), "a": (e,), "W": (e, c), "b": (c,)}
    if heads:
        shapes |= {"V": (e, heads * c), "v": (heads * c,)}
    card = ModelCard(
        name="perceptron",
        architecture=f"perceptron {d}-{e}-{c}" + (f" and {heads} heads" if heads else ""),
        parameters=tuple(Parameter(key, shape, BODY if key in "Aa" else HEAD) for key, shape in shapes.items()),
        input=InputSpec((d,), "vector", "as the samples it was made for"),
        labels=tuple(labels),
        embedding=e,
        heads=heads,
        losses=_losses(d, e, c, heads),
        flops=2 * e * (d + c * (1 + heads)) + 2 * d,
        activation_bytes=4 * (2 * d + 3 * e + 2 * c * (1 + heads)),
        licence="Apache-2.0",
        producer={"edgeswarm": "perceptron 1"},
    )
    graphs = _graphs(shapes, mean, std, heads)
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(0.0, sqrt(2 / shape[0]), shape) if len(shape) == 2 else np.zeros(shape)
             for shape in shapes.values()]  # fmt: skip
    return seal(card, graphs, np.concatenate([part.ravel() for part in drawn]).astype(np.float32))


def _losses(d: int, e: int, c: int, heads: int) -> dict[str, LossSpec]:
    own = (
        TensorSpec("x", (d,), "float32", PRIVATE),
        TensorSpec("y", (), "int64", PRIVATE),
        TensorSpec("w", (), "float32", PRIVATE, weight=True),
    )
    found = {"ce": LossSpec(own, ("logits",))}
    if heads:
        taught = (
            TensorSpec("public_x", (d,), "float32", PUBLIC),
            TensorSpec("teacher_embedding", (e,), "float32", PUBLIC),
            TensorSpec("embedding_weight", (), "float32", PUBLIC, weight=True),
            TensorSpec("teacher", (heads, c), "float32", PUBLIC),
            TensorSpec("teacher_weight", (heads,), "float32", PUBLIC, weight=True),
        )
        found["distill"] = LossSpec((*own, *taught), ("logits", "public_logits", "public_embedding", "public_aux"))
    return found


def _graphs(shapes: dict[str, tuple[int, ...]], mean: Array, std: Array, heads: int) -> dict[str, bytes]:
    (d, e), (_, c) = shapes["A"], shapes["W"]
    p = sum(prod(shape) for shape in shapes.values())
    constants: dict[str, NDArray[Any]] = {
        "sizes": np.array([prod(shape) for shape in shapes.values()], np.int64),
        "A_shape": np.array([d, e], np.int64),
        "W_shape": np.array([e, c], np.int64),
        "V_shape": np.array([e, heads * c], np.int64),
        "aux_shape": np.array([-1, heads, c], np.int64),
        "heads_flat": np.array([-1, heads * c], np.int64),
        "mean": mean,
        "rate": np.divide(1.0, std, out=np.zeros_like(std), where=std > 1e-6),
        "flat": np.array([-1], np.int64),
        "first": np.array([0], np.int64),
        "last": np.array([1], np.int64),
        "third": np.array([2], np.int64),
        "depth": np.array(c, np.int64),
        "off_on": np.array([0.0, 1.0], np.float32),
        "least": np.array(1e-12, np.float32),
        "shortest": np.array(1e-6, np.float32),
        "zero": np.array(0.0, np.float32),
        "two": np.array(2.0, np.float32),
    }
    start: list[Value] = [("params", FLOAT32, (p,)), ("x", FLOAT32, ("n", d))]
    rows: list[Value] = [*start, ("y", INT64, ("n",)), ("w", FLOAT32, ("n",))]
    logits, embedding = ("logits", FLOAT32, ("n", c)), ("embedding", FLOAT32, ("n", e))
    gradient, value = ("gradient", FLOAT32, (p,)), ("loss", FLOAT32, ())
    keys = list(shapes)
    split = [node("Split", ["params", "sizes"], [f"{key}_flat" for key in keys], axis=0)]
    split += [node("Reshape", [f"{key}_flat", f"{key}_shape"], [key]) for key in keys if key.isupper()]
    embed, classify = [*split, *_embedded("")], _classified("")
    aux = [("aux", FLOAT32, ("n", heads, c))] if heads else []
    of_heads = [*_spoken(""), node("Identity", ["aux_out"], ["aux"])] if heads else []
    unmoved = [node("Mul", [f"{key}_flat", "zero"], [f"d_{key}_flat"]) for key in keys[4:]]
    joined = [node("Concat", [f"d_{key}_flat" for key in keys], ["gradient"], axis=0)]
    ce = [*embed, *classify, *_CE]
    graphs = {
        "forward": onnx([*embed, *classify, *of_heads], start, [logits, embedding, *aux], constants),
        "ce.loss": onnx([*ce, _same("ce", "loss")], rows, [value, logits], constants),
        "ce.gradient": onnx(
            [*ce, _same("ce", "loss"), *_CE_SLOPE, *_into_body(""), *unmoved, *_SUMMED, *joined],
            rows, [gradient, value, logits], constants,
        ),
    }  # fmt: skip
    if heads:
        rows += [
            ("public_x", FLOAT32, ("m", d)), ("teacher_embedding", FLOAT32, ("m", e)),
            ("embedding_weight", FLOAT32, ("m",)), ("teacher", FLOAT32, ("m", heads, c)),
            ("teacher_weight", FLOAT32, ("m", heads)),
        ]  # fmt: skip
        said = [
            ("public_logits", FLOAT32, ("m", c)), ("public_embedding", FLOAT32, ("m", e)),
            ("public_aux", FLOAT32, ("m", heads, c)),
        ]  # fmt: skip
        public = [*_embedded("public_"), *_classified("public_"), *_spoken("public_"),
                  node("Identity", ["public_aux_out"], ["public_aux"])]  # fmt: skip
        distill = [*ce, *public, *_TAUGHT]
        outputs = [value, logits, *said]
        graphs["distill.loss"] = onnx(distill, rows, outputs, constants)
        graphs["distill.gradient"] = onnx(
            [*distill, *_CE_SLOPE, *_into_body(""), *_TAUGHT_SLOPE, *_into_body("public_"), *_SUMMED_TWICE, *joined],
            rows, [gradient, *outputs], constants,
        )  # fmt: skip
    return graphs


def _same(name: str, as_name: str) -> bytes:
    return node("Identity", [name], [as_name])


def _embedded(of: str) -> list[bytes]:
    """<of>x -> <of>embedding."""
    return [
        node("Sub", [f"{of}x", "mean"], [f"{of}centred"]),
        node("Mul", [f"{of}centred", "rate"], [f"{of}rows"]),
        node("MatMul", [f"{of}rows", "A"], [f"{of}weighed_rows"]),
        node("Add", [f"{of}weighed_rows", "a_flat"], [f"{of}inside"]),
        node("Relu", [f"{of}inside"], [f"{of}embedding"]),
    ]


def _classified(of: str) -> list[bytes]:
    """<of>embedding -> <of>logits."""
    return [
        node("MatMul", [f"{of}embedding", "W"], [f"{of}scores"]),
        node("Add", [f"{of}scores", "b_flat"], [f"{of}logits"]),
    ]


def _spoken(of: str) -> list[bytes]:
    """<of>embedding -> <of>aux_out (n, heads, c)."""
    return [
        node("MatMul", [f"{of}embedding", "V"], [f"{of}aux_scores"]),
        node("Add", [f"{of}aux_scores", "v_flat"], [f"{of}aux_flat"]),
        node("Reshape", [f"{of}aux_flat", "aux_shape"], [f"{of}aux_out"]),
    ]


def _into_body(of: str) -> list[bytes]:
    """<of>d_embedding -> <of>d_A, <of>d_a."""
    return [
        node("Greater", [f"{of}inside", "zero"], [f"{of}on"]),
        node("Where", [f"{of}on", f"{of}d_embedding", "zero"], [f"{of}d_inside"]),
        node("ReduceSum", [f"{of}d_inside", "first"], [f"{of}d_a"], keepdims=0),
        node("Transpose", [f"{of}rows"], [f"{of}rows_t"], perm=[1, 0]),
        node("MatMul", [f"{of}rows_t", f"{of}d_inside"], [f"{of}d_A"]),
    ]


_CE = [
    node("LogSoftmax", ["logits"], ["log_p"], axis=1),
    node("OneHot", ["y", "depth", "off_on"], ["truth"], axis=1),
    node("Mul", ["truth", "log_p"], ["picked"]),
    node("ReduceSum", ["picked", "last"], ["minus_ce"], keepdims=0),
    node("Mul", ["minus_ce", "w"], ["weighed"]),
    node("ReduceSum", ["weighed", "first"], ["minus_sum"], keepdims=0),
    node("ReduceSum", ["w", "first"], ["w_sum"], keepdims=0),
    node("Max", ["w_sum", "least"], ["mass"]),
    node("Div", ["minus_sum", "mass"], ["minus_mean"]),
    node("Neg", ["minus_mean"], ["ce"]),
]
"""sum_i w_i CE_i / max(sum_i w_i, 1e-12)."""
_CE_SLOPE = [
    node("Exp", ["log_p"], ["p"]),
    node("Sub", ["p", "truth"], ["off"]),
    node("Div", ["w", "mass"], ["part"]),
    node("Unsqueeze", ["part", "last"], ["parts"]),
    node("Mul", ["off", "parts"], ["d_logits"]),
    node("ReduceSum", ["d_logits", "first"], ["d_b_flat"], keepdims=0),
    node("Transpose", ["embedding"], ["embedding_t"], perm=[1, 0]),
    node("MatMul", ["embedding_t", "d_logits"], ["d_W"]),
    node("Reshape", ["d_W", "flat"], ["d_W_flat"]),
    node("Transpose", ["W"], ["W_t"], perm=[1, 0]),
    node("MatMul", ["d_logits", "W_t"], ["d_embedding"]),
]
_SUMMED = [
    node("Reshape", ["d_A", "flat"], ["d_A_flat"]),
    _same("d_a", "d_a_flat"),
]
_SUMMED_TWICE = [
    node("Add", ["d_A", "public_d_A"], ["both_d_A"]),
    node("Reshape", ["both_d_A", "flat"], ["d_A_flat"]),
    node("Add", ["d_a", "public_d_a"], ["d_a_flat"]),
]
_TAUGHT = [
    node("Mul", ["public_embedding", "public_embedding"], ["squares"]),
    node("ReduceSum", ["squares", "last"], ["squared_length"], keepdims=1),
    node("Sqrt", ["squared_length"], ["length"]),
    node("Max", ["length", "shortest"], ["safe_length"]),
    node("Div", ["public_embedding", "safe_length"], ["unit"]),
    node("Sub", ["unit", "teacher_embedding"], ["away"]),
    node("Mul", ["away", "away"], ["squared_away"]),
    node("Unsqueeze", ["embedding_weight", "last"], ["pulls"]),
    node("Mul", ["pulls", "squared_away"], ["pulled"]),
    node("ReduceSum", ["pulled"], ["pull_loss"], keepdims=0),
    node("LogSoftmax", ["public_aux_out"], ["log_q"], axis=2),
    node("Unsqueeze", ["teacher_weight", "third"], ["trusted"]),
    node("Mul", ["trusted", "teacher"], ["said"]),
    node("Mul", ["said", "log_q"], ["agreed"]),
    node("ReduceSum", ["agreed"], ["agreement"], keepdims=0),
    node("Add", ["ce", "pull_loss"], ["ce_and_pull"]),
    node("Sub", ["ce_and_pull", "agreement"], ["loss"]),
]
"""sum_i v_i |n(e_i) - t_i|^2 + sum_ih u_ih CE(p_ih, softmax(aux_ih)), n(e) = e / max(|e|, 1e-6)."""
_TAUGHT_SLOPE = [
    node("Exp", ["log_q"], ["q"]),
    node("ReduceSum", ["said", "third"], ["said_in_all"], keepdims=1),
    node("Mul", ["q", "said_in_all"], ["weighed_q"]),
    node("Sub", ["weighed_q", "said"], ["d_aux"]),
    node("Reshape", ["d_aux", "heads_flat"], ["d_aux_rows"]),
    node("ReduceSum", ["d_aux_rows", "first"], ["d_v_flat"], keepdims=0),
    node("Transpose", ["public_embedding"], ["public_embedding_t"], perm=[1, 0]),
    node("MatMul", ["public_embedding_t", "d_aux_rows"], ["d_V"]),
    node("Reshape", ["d_V", "flat"], ["d_V_flat"]),
    node("Transpose", ["V"], ["V_t"], perm=[1, 0]),
    node("MatMul", ["d_aux_rows", "V_t"], ["from_heads"]),
    node("Mul", ["pulls", "away"], ["half_g"]),
    node("Mul", ["half_g", "two"], ["g"]),
    node("Mul", ["unit", "g"], ["along"]),
    node("ReduceSum", ["along", "last"], ["along_in_all"], keepdims=1),
    node("Mul", ["unit", "along_in_all"], ["radial"]),
    node("Greater", ["length", "shortest"], ["long"]),
    node("Where", ["long", "radial", "zero"], ["radial_where_long"]),
    node("Sub", ["g", "radial_where_long"], ["tangential"]),
    node("Div", ["tangential", "safe_length"], ["from_pull"]),
    node("Add", ["from_heads", "from_pull"], ["public_d_embedding"]),
]
