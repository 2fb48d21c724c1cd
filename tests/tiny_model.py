"""A model file made by hand, for tests that need one and must not need torch or the onnx package.

x -> tanh(x A) -> W, b -> softmax: the embedding is the tanh, and its gradient is written out below as ONNX nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from edgeswarm.models.card import BODY, HEAD, PRIVATE, InputSpec, LossSpec, ModelCard, Parameter, TensorSpec
from edgeswarm.models.content import seal
from edgeswarm.models.file import Model
from edgeswarm.models.onnx_write import FLOAT32, INT64, node, onnx


def tiny(
    shape: tuple[int, ...] = (3,), labels: Sequence[str] = ("no", "yes"), embedding: int = 4, seed: int = 0
) -> Model:
    """The model, its start vector drawn by `seed`. shape: of a sample; three axes are an image."""
    d, e, c = prod(shape), embedding, len(labels)
    sizes = {"A": (d, e), "W": (e, c), "b": (c,)}
    loss = LossSpec(
        (
            TensorSpec("x", shape, "float32", PRIVATE),
            TensorSpec("y", (), "int64", PRIVATE),
            TensorSpec("w", (), "float32", PRIVATE, weight=True),
        ),
        ("logits",),
    )
    card = ModelCard(
        name="tiny",
        architecture="tanh",
        parameters=tuple(Parameter(name, size, BODY if name == "A" else HEAD) for name, size in sizes.items()),
        input=InputSpec(shape, "image" if len(shape) == 3 else "vector", "0 to 1" if len(shape) == 3 else ""),
        labels=tuple(labels),
        embedding=e,
        heads=0,
        losses={"ce": loss},
        flops=2 * e * (d + c),
        activation_bytes=4 * (d + 2 * e + c),
        licence="Apache-2.0",
        producer={"test": "1"},
    )
    rng = np.random.default_rng(seed)
    initial = np.concatenate([rng.normal(0, 1 / np.sqrt(size[0]), prod(size)) for size in sizes.values()])
    p = int(initial.size)
    start = [("params", FLOAT32, (p,)), ("x", FLOAT32, ("n", *shape))]
    private = [*start, ("y", INT64, ("n",)), ("w", FLOAT32, ("n",))]
    logits, embedded = ("logits", FLOAT32, ("n", c)), ("embedding", FLOAT32, ("n", e))
    value = ("loss", FLOAT32, ())
    constants = {
        "sizes": np.array([d * e, e * c, c], np.int64),
        "a_shape": np.array([d, e], np.int64),
        "w_shape": np.array([e, c], np.int64),
        "row": np.array([-1, d], np.int64),
        "flat": np.array([-1], np.int64),
        "first": np.array([0], np.int64),
        "last": np.array([1], np.int64),
        "depth": np.array(c, np.int64),
        "off_on": np.array([0.0, 1.0], np.float32),
        "least": np.array(1e-12, np.float32),
        "one": np.array(1.0, np.float32),
    }
    forward = [
        node("Split", ["params", "sizes"], ["a_flat", "w_flat", "b"], axis=0),
        node("Reshape", ["a_flat", "a_shape"], ["A"]),
        node("Reshape", ["w_flat", "w_shape"], ["W"]),
        node("Reshape", ["x", "row"], ["rows"]),
        node("MatMul", ["rows", "A"], ["inside"]),
        node("Tanh", ["inside"], ["embedding"]),
        node("MatMul", ["embedding", "W"], ["scores"]),
        node("Add", ["scores", "b"], ["logits"]),
    ]
    ce = [
        *forward,
        node("LogSoftmax", ["logits"], ["log_p"], axis=1),
        node("OneHot", ["y", "depth", "off_on"], ["truth"], axis=1),
        node("Mul", ["truth", "log_p"], ["picked"]),
        node("ReduceSum", ["picked", "last"], ["minus_ce"], keepdims=0),
        node("Mul", ["minus_ce", "w"], ["weighed"]),
        node("ReduceSum", ["weighed", "first"], ["minus_sum"], keepdims=0),
        node("ReduceSum", ["w", "first"], ["w_sum"], keepdims=0),
        node("Max", ["w_sum", "least"], ["mass"]),
        node("Div", ["minus_sum", "mass"], ["minus_loss"]),
        node("Neg", ["minus_loss"], ["loss"]),
    ]
    slope = [
        *ce,
        node("Exp", ["log_p"], ["p"]),
        node("Sub", ["p", "truth"], ["off"]),
        node("Div", ["w", "mass"], ["share"]),
        node("Unsqueeze", ["share", "last"], ["shares"]),
        node("Mul", ["off", "shares"], ["d_logits"]),
        node("ReduceSum", ["d_logits", "first"], ["d_b"], keepdims=0),
        node("Transpose", ["embedding"], ["embedding_t"], perm=[1, 0]),
        node("MatMul", ["embedding_t", "d_logits"], ["d_w"]),
        node("Transpose", ["W"], ["w_t"], perm=[1, 0]),
        node("MatMul", ["d_logits", "w_t"], ["d_embedding"]),
        node("Mul", ["embedding", "embedding"], ["squared"]),
        node("Sub", ["one", "squared"], ["steep"]),
        node("Mul", ["d_embedding", "steep"], ["d_inside"]),
        node("Transpose", ["rows"], ["rows_t"], perm=[1, 0]),
        node("MatMul", ["rows_t", "d_inside"], ["d_a"]),
        node("Reshape", ["d_a", "flat"], ["d_a_flat"]),
        node("Reshape", ["d_w", "flat"], ["d_w_flat"]),
        node("Concat", ["d_a_flat", "d_w_flat", "d_b"], ["gradient"], axis=0),
    ]
    graphs = {
        "forward": onnx(forward, start, [logits, embedded], constants),
        "ce.loss": onnx(ce, private, [value, logits], constants),
        "ce.gradient": onnx(slope, private, [("gradient", FLOAT32, (p,)), value, logits], constants),
    }
    return seal(card, graphs, initial.astype(np.float32))
