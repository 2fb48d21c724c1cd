"""Reference values in a model file: inputs, and what a model gave for them where it was built.

A board computes them again (`edgeswarm model check`) and so knows that its runtime, its processor and this file give
the numbers the builder saw. `reference.json` describes the arrays, `reference.bin` holds them one after another, raw
and little-endian, in the order of the description.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeswarm.models.card import ModelCard
from edgeswarm.models.json_text import Bad, Reader, parse, write
from edgeswarm.models.limits import Limits

FORWARD = "forward"
"""The graph of predictions; the other graphs go by the names of losses."""

DTYPES = ("float32", "int64")
NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_MOST_CASES, _MOST_AXES = 64, 8


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceCase:
    """What one graph gave for one small batch, with the model file's start vector as parameters.

    name: unique, e.g. "ce.blank".  graph: "forward" or a loss.  inputs: every input of the graph besides `params`,
    rows first.  outputs: of "forward" those of the card; of a loss "gradient" (p,), "loss" () and what
    `LossSpec.outputs` names; all float32.  tolerance: relative L2 difference |mine - theirs| / |theirs| of each output
    up to which another runtime's answer counts as the same; the builder measures and stores it.
    """

    name: str
    graph: str
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[Any]]
    tolerance: float


def forward_outputs(card: ModelCard) -> dict[str, tuple[int, ...]]:
    """What the forward graph gives, with shapes without the row axis: embedding, logits with labels, aux with heads."""
    shapes: dict[str, tuple[int, ...]] = {"embedding": (card.embedding,)}
    if card.labels:
        shapes["logits"] = (len(card.labels),)
    if card.heads:
        shapes["aux"] = (card.heads, len(card.labels))
    return shapes


def write_reference(cases: Sequence[ReferenceCase]) -> tuple[bytes, bytes]:
    """(reference.json, reference.bin)."""
    described, arrays = [], []
    for case in cases:
        entry: dict[str, Any] = {"name": case.name, "graph": case.graph, "tolerance": float(case.tolerance)}
        for side, values in (("inputs", case.inputs), ("outputs", case.outputs)):
            entry[side] = []
            for name, array in sorted(values.items()):
                array = np.asarray(array)
                entry[side].append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
                arrays.append(array.astype(array.dtype.newbyteorder("<")).tobytes())
        described.append(entry)
    return write({"cases": described}), b"".join(arrays)


def read_reference(text: bytes, data: bytes, card: ModelCard, limits: Limits) -> tuple[ReferenceCase, ...]:
    """The cases of the two members, checked against the card. Raises Bad, without the file's name."""
    top = Reader.of(parse(text, limits.card_bytes), "", {"cases"})
    cases, at = [], 0
    for entry in top.entries("cases", {"name", "graph", "tolerance", "inputs", "outputs"}, _MOST_CASES):
        sides = []
        for side in ("inputs", "outputs"):
            arrays: dict[str, NDArray[Any]] = {}
            for part in entry.entries(side, {"name", "dtype", "shape"}, _MOST_CASES):
                name, dtype = part.text("name", 200), part.one_of("dtype", DTYPES)
                shape = part.shape("shape", _MOST_AXES, limits.dimension)
                size = math.prod(shape) * np.dtype(dtype).itemsize
                if name in arrays:
                    raise Bad(f"{part.path} comes twice")
                if size > len(data) - at:
                    raise Bad(f"{part.path} needs {size} bytes of reference.bin, {len(data) - at} are left")
                stored = np.dtype(dtype).newbyteorder("<")
                arrays[name] = np.frombuffer(data[at : at + size], stored).astype(dtype).reshape(shape)
                arrays[name].setflags(write=False)
                at += size
            sides.append(arrays)
        cases.append(
            ReferenceCase(
                entry.text("name", 64), entry.text("graph", 64), sides[0], sides[1], entry.number("tolerance", 0.0, 1.0)
            )
        )
    if at != len(data):
        raise Bad(f"reference.bin has {len(data) - at} bytes more than are described")
    check_reference(cases, card)
    return tuple(cases)


def check_reference(cases: Sequence[ReferenceCase], card: ModelCard) -> None:
    """Names, shapes and dtypes against the card; finite values. Raises Bad."""
    if len({case.name for case in cases}) < len(cases) or len(cases) > _MOST_CASES:
        raise Bad(f"two reference cases have one name, or there are more than {_MOST_CASES}")
    for case in cases:
        place = f"reference case {case.name!r:.80}"
        if not NAME.fullmatch(case.name):
            raise Bad(f"{place}: a name has small letters, digits and _ . - only")
        if not 0.0 < case.tolerance < 1.0:
            raise Bad(f"{place}: the tolerance {case.tolerance} is not between 0 and 1")
        if case.graph == FORWARD:
            groups = {"x": ("private", "float32", card.input.shape)}
            outputs: dict[str, tuple[int, ...] | None] = {k: (-1, *v) for k, v in forward_outputs(card).items()}
        elif case.graph in card.losses:
            loss = card.losses[case.graph]
            groups = {spec.name: (spec.group, spec.dtype, spec.shape) for spec in loss.inputs}
            outputs = dict.fromkeys(loss.outputs, None) | {"loss": (), "gradient": (card.size,)}
        else:
            raise Bad(f"{place} is of the graph {case.graph!r:.80}, which the model does not have")
        _names(f"{place}: inputs", case.inputs, groups)
        _names(f"{place}: outputs", case.outputs, outputs)
        rows: dict[str, int] = {}
        for name, (group, dtype, shape) in groups.items():
            array = case.inputs[name]
            if array.ndim < 1 or array.dtype.name != dtype or array.shape[1:] != shape or not len(array):
                raise Bad(f"{place}: input {name} is {array.dtype} of shape {list(array.shape)}, not {dtype} of "
                          f"[rows, {', '.join(map(str, shape))}]")  # fmt: skip
            if rows.setdefault(group, len(array)) != len(array):
                raise Bad(f"{place}: input {name} has {len(array)} rows, others of its group {rows[group]}")
        for name, wanted in outputs.items():
            array = case.outputs[name]
            if wanted and wanted[0] == -1:
                wanted = (rows["private"], *wanted[1:])
            if array.dtype.name != "float32" or (wanted is not None and array.shape != wanted):
                raise Bad(f"{place}: output {name} is {array.dtype} of shape {list(array.shape)}, which does not fit")
        for name, array in (*case.inputs.items(), *case.outputs.items()):
            if not bool(np.isfinite(array).all()):
                raise Bad(f"{place}: {name} holds values that are not finite numbers")


def _names(place: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if found.keys() != wanted.keys():
        raise Bad(f"{place} are {', '.join(sorted(found)) or 'none'}; the card wants {', '.join(sorted(wanted))}")
