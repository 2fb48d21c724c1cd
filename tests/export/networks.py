"""Small ONNX networks, as a user might bring them, made without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="this needs the onnx package: pip install 'edgeswarm[torch]'")
pytest.importorskip("onnxruntime", reason="this needs onnxruntime: pip install 'edgeswarm[onnx]'")

from onnx import ModelProto, TensorProto, helper, numpy_helper  # noqa: E402


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers of about unit length per output."""
    values = np.random.default_rng(seed).normal(size=shape) / np.sqrt(max(1, np.prod(shape[1:])))
    return values.astype(np.float32)


CONV, DENSE = weights(4, 1, 3, 3, seed=1), weights(4 * 36, 5, seed=2)


def network(
    *,
    opset: int = 18,
    rows: int | str = "n",
    shape: tuple[int | str, ...] = (1, 6, 6),
    dtype: int = TensorProto.FLOAT,
    before: list[Any] = (),  # type: ignore[assignment]
    outputs: tuple[str, ...] = ("out",),
    input_name: str = "image",
) -> ModelProto:
    """image (n, 1, 6, 6) -> Conv 3x3, Relu, Flatten, MatMul -> out (n, 5). before: nodes that make "early" of it."""
    first = "early" if before else input_name
    nodes = [
        *before,
        helper.make_node("Conv", [first, "w"], ["c"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "d"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "users",
        [helper.make_tensor_value_info(input_name, dtype, [rows, *shape])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(CONV, "w"), numpy_helper.from_array(DENSE, "d")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answers(x: np.ndarray) -> np.ndarray:
    """What `network` gives for x (n, 1, 6, 6), in float64."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[:, 0], (3, 3), axis=(1, 2))
    maps = np.maximum(np.einsum("nhwij,oij->nohw", windows, CONV[:, 0].astype(np.float64)), 0)
    result: np.ndarray = maps.reshape(len(x), -1) @ DENSE.astype(np.float64)
    return result


def saved(model: ModelProto, path: Path) -> Path:
    """`model` in a file."""
    path.write_bytes(model.SerializeToString())
    return path
