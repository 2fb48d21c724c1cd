"""A model's forward pass in int8: calibrated on local samples, weights per channel, and measured before it is believed.

Static quantisation in QDQ form: unsigned activations, signed weights (U8S8), the form that convolutions are quick in
on x86-64 and on ARM with dot products (onnxruntime, "Quantize ONNX models"). What comes out is an encoder: it serves
and does not train. Needs the onnx package and onnxruntime.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from edgeswarm.backends.base import Backend, Predict
from edgeswarm.errors import ModelError
from edgeswarm.export.bake import baked, effort, finished, first_line, pruned
from edgeswarm.export.encoder import CASE_ROWS, sealed
from edgeswarm.models.card import ModelCard
from edgeswarm.models.file import Model
from edgeswarm.models.limits import Limits

CALIBRATION_ROWS = 512
"""Enough for the extremes of activations; more takes longer and moves the ranges towards outliers."""

TOLERANCE = 5e-2
"""Relative L2 difference of int8 answers between machines: a value at the edge of a step may fall to either side."""

_ROWS_AT_ONCE = 64
_OPERATORS = ("Conv", "Gemm", "MatMul", "MaxPool", "AveragePool", "GlobalAveragePool", "Add", "Relu")
"""What is computed in int8. Normalisation stays float32: its divisions lose the most and cost the least."""


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Samples x (n, *shape) float32 with positions of their classes y (n,) int64."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def quantise(model: Model, x: NDArray[np.float32], limits: Limits = Limits()) -> Model:  # noqa: B008  frozen
    """`model`'s forward graph in int8, calibrated on x (n, *shape), as an encoder that gives logits too if it did.

    At most CALIBRATION_ROWS samples are used, spread evenly over x. Auxiliary heads are left out: nobody serves them.
    Raises ModelError: no samples, nothing to quantise, already int8, or the quantiser failed.
    """
    if not len(x):
        raise ModelError("quantising needs samples to calibrate with, and there are none")
    if "DequantizeLinear" in {node.op_type for node in onnx.load_model_from_string(model.graphs["forward"]).graph.node}:
        raise ModelError(f"{model.card.name} is int8 already")
    forward = _serving(model)
    if not {node.op_type for node in forward.graph.node} & {"Conv", "Gemm", "MatMul"}:
        raise ModelError(f"{model.card.name} has no layer that int8 would make smaller")
    flops, moved = effort(forward, model.card.input.shape)
    chosen = x[np.linspace(0, len(x) - 1, min(len(x), CALIBRATION_ROWS)).astype(int)]
    quantised = pruned(_quantised(forward, chosen))
    card = _card(model.card, flops, moved)
    return sealed(card, finished(quantised), chosen[:CASE_ROWS], TOLERANCE, model.licence_text, limits)


def accuracy(backend: Backend, model: Model, known: Labelled, held_out: Labelled) -> float:
    """Share of `held_out` that is named rightly: by the logits, or, where a model has none, by the nearest of the
    class means of `known`'s embeddings."""
    name = model.card.hash
    if model.card.labels:
        said = outputs(backend, name, held_out.x)["logits"].argmax(axis=1)
    else:
        embedded = outputs(backend, name, known.x)["embedding"].astype(np.float64)
        classes = np.unique(known.y)
        means = np.stack([embedded[known.y == label].mean(axis=0) for label in classes])
        asked = outputs(backend, name, held_out.x)["embedding"].astype(np.float64)
        gaps = (means**2).sum(axis=1)[None, :] - 2 * asked @ means.T
        said = classes[gaps.argmin(axis=1)]
    return float(np.mean(said == held_out.y))


def outputs(backend: Backend, name: str, x: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """All outputs of the forward graph for many rows, asked for a few at a time. name: the model's hash."""
    parts = [backend.answer(Predict(name, x[at : at + _ROWS_AT_ONCE])) for at in range(0, len(x), _ROWS_AT_ONCE)]
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _serving(model: Model) -> ModelProto:
    """The forward graph with its weights inside and without auxiliary heads."""
    data = model.graphs["forward"]
    forward = baked(data, model.initial) if model.card.size else onnx.load_model_from_string(data)
    kept = [value for value in forward.graph.output if value.name != "aux"]
    del forward.graph.output[:]
    forward.graph.output.extend(kept)
    return pruned(forward)


def _card(card: ModelCard, flops: int, moved: int) -> ModelCard:
    return replace(
        card,
        name=f"{card.name[:59]}-int8",
        architecture=f"{card.architecture[:90]}, int8",
        parameters=(),
        heads=0,
        losses={},
        flops=flops,
        activation_bytes=moved // 4,
        producer={**card.producer, "onnx": onnx.__version__, "quantised_from": card.hash},
        files={},
        hash="",
    )


def _quantised(forward: ModelProto, x: NDArray[np.float32]) -> ModelProto:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """The samples, some rows at a time."""

        def __init__(self) -> None:
            self._at = 0

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            rows = x[self._at : self._at + _ROWS_AT_ONCE]
            self._at += _ROWS_AT_ONCE
            return {"x": rows} if len(rows) else None

    ready = onnx.shape_inference.infer_shapes(forward, data_prop=True)
    with TemporaryDirectory() as folder, _hushed():
        source, result = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(ready, source)
        try:
            quantize_static(
                source,
                result,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(_OPERATORS),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return onnx.load(result)
        except Exception as error:  # the quantiser raises whatever comes: ValueError, KeyError, onnxruntime's own
            raise ModelError(f"onnxruntime cannot quantise this graph: {first_line(error)}") from None


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """The quantiser logs advice about preprocessing, which has been done, through the root logger."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)
