"""Small graphs for tests of differentiation: written as ONNX text, run in float64, differentiated numerically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import parser

from edgeswarm.backends.interpreter import Program, program
from edgeswarm.export.autodiff import gradient
from edgeswarm.models.graph import read_graph

Feeds = Mapping[str, np.ndarray]


def model(
    body: str,
    parts: Mapping[str, Sequence[int]],
    result: str,
    inputs: str = "",
    constants: str = "",
    kind: str = "double",
) -> onnx.ModelProto:
    """A model whose flat `params` are cut into `parts`, name -> shape, that computes `result` by `body`.

    The loss is the sum of result * sin(result's place), written as a matrix product, so that every element counts
    differently.  inputs, constants: more of both, as ONNX text.
    """
    sizes = [prod(shape) for shape in parts.values()]
    names = ", ".join(f"{name}_flat" for name in parts)
    lines = [f"{names} = Split<axis = 0>(params, sizes)"]
    lines += [f"{name} = Reshape({name}_flat, {name}_shape)" for name in parts]
    shapes = ", ".join(
        f"int64[{len(shape)}] {name}_shape = {{{', '.join(map(str, shape))}}}" for name, shape in parts.items()
    )
    known = f"int64[{len(sizes)}] sizes = {{{', '.join(map(str, sizes))}}}, {shapes}, int64[1] flat = {{-1}}"
    known += f", {kind} one = {{1}}, {kind} zero = {{0}}, int64 first = {{0}}, int64 step = {{1}}"
    known += f", {constants}" if constants else ""
    lines += [
        body,
        f"line = Reshape({result}, flat)",
        "count = Size(line)",
        "places = Range(first, count, step)",
        f"angle = Cast<to = {11 if kind == 'double' else 1}>(places)",
        "weights = Sin(angle)",
        "loss = MatMul(line, weights)",
    ]
    more = f", {inputs}" if inputs else ""
    text = (
        f'<ir_version: 9, opset_import: ["" : 18]> small ({kind}[{sum(sizes)}] params{more}) => ({kind} loss) '
        f"<{known}> {{ {' '.join(lines)} }}"
    )
    return parser.parse_model(text)


def ready(graph: onnx.ModelProto) -> Program:
    """The graph in the reference backend's interpreter, in float64."""
    return program(read_graph(graph.SerializeToString()), np.float64)


def run(graph: onnx.ModelProto, params: np.ndarray, feeds: Feeds | None = None) -> dict[str, Any]:
    """All outputs by name."""
    return ready(graph)({"params": params, **(feeds or {})})


def numeric(graph: onnx.ModelProto, params: np.ndarray, feeds: Feeds | None = None, step: float = 1e-6) -> np.ndarray:
    """Central differences of the loss after each parameter."""
    loss = ready(graph)
    slopes = np.zeros(params.size)
    for place in range(params.size):
        ends = []
        for sign in (1, -1):
            moved = params.copy()
            moved[place] += sign * step
            ends.append(float(loss({"params": moved, **(feeds or {})})["loss"]))
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def off(graph: onnx.ModelProto, params: np.ndarray, feeds: Feeds | None = None) -> float:
    """How far the written gradient is from central differences: relative L2 (absolute, where both are tiny)."""
    got = run(gradient(graph), params, feeds)
    slope = got["gradient"]
    assert np.allclose(got["loss"], run(graph, params, feeds)["loss"], rtol=1e-12)
    truth = numeric(graph, params, feeds)
    assert slope.shape == truth.shape
    return float(np.linalg.norm(slope - truth) / max(np.linalg.norm(truth), 1e-3))


def scattered(count: int, seed: int = 0, low: float = -1.5, high: float = 1.5) -> np.ndarray:
    """Parameters in random order, no two closer than a finite difference can see, none near a kink at 0 or 1."""
    places = low + (high - low) * (np.arange(count) + 0.37) / count
    return np.random.default_rng(seed).permutation(places)
