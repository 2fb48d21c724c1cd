"""A model file made by hand, for tests that need one and must not need torch or the onnx package.

x -> tanh(x A) -> W, b -> softmax: the embedding is the tanh, and its gradient is written out below as ONNX nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from edgeswarm.models.card import BODY, HEAD, PRIVATE, InputSpec, LossSpec, ModelCard, Parameter, TensorSpec
from edgeswarm.models.content import seal
from edgeswarm.models.file import Model
from edgeswarm.models.onnx_parts import write_tensor
from edgeswarm.models.protobuf import write_bytes, write_integer

FLOAT32, INT64 = 1, 7
"""Types of tensors in ONNX."""


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


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> bytes:
    """NodeProto; attributes are whole numbers or lists of them."""
    parts = [write_bytes(1, name.encode()) for name in inputs] + [write_bytes(2, name.encode()) for name in outputs]
    parts += [write_bytes(3, f"{op}_{outputs[0]}".encode()), write_bytes(4, op.encode())]
    for name, value in attributes.items():
        many = isinstance(value, list)
        held = b"".join(write_integer(8, item) for item in value) if many else write_integer(3, value)
        parts.append(write_bytes(5, write_bytes(1, name.encode()), held, write_integer(20, 7 if many else 2)))
    return b"".join(parts)


def onnx(nodes: list[bytes], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> bytes:
    """ModelProto of IR 9 and opset 18. Constants that no node names are left out."""
    used = b"".join(nodes)
    graph = [
        *(write_bytes(1, each) for each in nodes),
        write_bytes(2, b"graph"),
        *(
            write_bytes(5, write_tensor(name, value))
            for name, value in constants.items()
            if write_bytes(1, name.encode()) in used
        ),
        *(write_bytes(11, _value(*each)) for each in inputs),
        *(write_bytes(12, _value(*each)) for each in outputs),
    ]
    opset = write_bytes(1, b"") + write_integer(2, 18)
    return write_integer(1, 9) + write_bytes(7, *graph) + write_bytes(8, opset)


def _value(name: str, kind: int, shape: tuple[int | str, ...]) -> bytes:
    """ValueInfoProto."""
    axes = [
        write_bytes(1, write_bytes(2, axis.encode()) if isinstance(axis, str) else write_integer(1, axis))
        for axis in shape
    ]
    tensor = write_integer(1, kind) + write_bytes(2, *axes)
    return write_bytes(1, name.encode()) + write_bytes(2, write_bytes(1, tensor))
