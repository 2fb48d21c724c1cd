"""Small ONNX graphs written by hand, as bytes: for models whose gradients somebody has worked out on paper.

Neither torch nor the onnx package is needed; `models.graph` reads and checks what comes out like any other graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from edgeswarm.models.onnx_parts import write_tensor
from edgeswarm.models.protobuf import write_bytes, write_integer

FLOAT32, INT64 = 1, 7
"""Types of tensors in ONNX."""

Value = tuple[str, int, tuple[int | str, ...]]
"""Name, type and shape of what goes in or out; an axis of any length has a name."""


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> bytes:
    """NodeProto; attributes are whole numbers or lists of them."""
    parts = [write_bytes(1, name.encode()) for name in inputs] + [write_bytes(2, name.encode()) for name in outputs]
    parts += [write_bytes(3, f"{op}_{outputs[0]}".encode()), write_bytes(4, op.encode())]
    for name, value in attributes.items():
        many = isinstance(value, list)
        held = b"".join(write_integer(8, item) for item in value) if many else write_integer(3, value)
        parts.append(write_bytes(5, write_bytes(1, name.encode()), held, write_integer(20, 7 if many else 2)))
    return b"".join(parts)


def onnx(
    nodes: Sequence[bytes], inputs: Sequence[Value], outputs: Sequence[Value], constants: Mapping[str, NDArray[Any]]
) -> bytes:
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
